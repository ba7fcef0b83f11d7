"""Builds the compiled core: `windtunnel.core` says of which modules it is made and when it is used.

Names of modules follow a tree of links, as type checkers read them (`.types` in the Makefile): rooms lie beside the package.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
import sysconfig
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from windtunnel.core import BUILT, LIBRARY, NOTE, ROOT, SUFFIX, digests, files

#: `make type` checks the types; here they need only be known, and of libraries only those of numpy are used
_TYPES = """
[mypy]
follow_imports = skip
ignore_missing_imports = True
[mypy-windtunnel.*]
follow_imports = silent
[mypy-numpy.*]
follow_imports = silent
"""


def build() -> None:
    """Compile the core; what was there stays until the new one is whole. Ends the process with a sentence where that cannot be."""
    if lacking := _lacking():
        sys.exit(f"the compiled core needs {lacking}; without it windtunnel runs on Python, with the same results")
    made = digests()
    print(f"compiling {len(made)} modules, which takes a minute or two …", flush=True)
    with tempfile.TemporaryDirectory(prefix="windtunnel-core-") as folder:
        out = Path(folder) / "out"
        _compile(Path(folder), out)
        note = {"suffix": SUFFIX, "digests": made}
        (out / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
        fresh = BUILT.with_name(BUILT.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(out, fresh)
        shutil.rmtree(BUILT, ignore_errors=True)
        fresh.rename(BUILT)
    print(f"compiled {len(made)} modules into {BUILT.name}/; `make slow` takes them away")


def _lacking() -> str | None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not (shutil.which(compiler) or shutil.which("cc")):
        return f"a C compiler ({compiler!r} was not found): `apt-get install gcc`, or `xcode-select --install` on macOS"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers: `apt-get install python3-dev`"
    if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
        return "mypyc: `make fast` installs it"
    return None


def _compile(folder: Path, out: Path) -> None:
    """Compile a tree of links in which modules lie where their names say."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    package = folder / "windtunnel"
    package.mkdir()
    for entry in (ROOT / "windtunnel").iterdir():
        (package / entry.name).symlink_to(entry)
    for room in ("engines", "sim", "reports", "workloads"):
        (package / room).symlink_to(ROOT / room)
    said = io.StringIO()  # mypyc names every generator that it makes a list of
    (folder / "mypy.ini").write_text(_TYPES, encoding="utf-8")
    try:
        with chdir(folder), redirect_stdout(said), redirect_stderr(said):
            modules = mypycify(
                ["--config-file=mypy.ini", *(f"windtunnel/{name}" for name in files())],
                opt_level="1", debug_level="0", group_name=LIBRARY.removesuffix("__mypyc"),
            )  # fmt: skip
            for module in modules:  # the same roundings as Python's, on processors that could multiply and add in one step too
                module.extra_compile_args.append("-ffp-contract=off")
            command = Distribution({"name": "windtunnel", "ext_modules": modules}).get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
            command.ensure_finalized()
            command.run()
    except BaseException:
        print(said.getvalue(), file=sys.stderr)
        raise
    shutil.copytree(folder / "lib" / "windtunnel", out)
    shutil.copy(folder / "lib" / f"{LIBRARY}{SUFFIX}", out)


if __name__ == "__main__":
    build()
