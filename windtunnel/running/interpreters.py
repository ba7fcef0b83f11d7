"""Interpreters of their own for engines whose pinned libraries clash with ours: where they lie, and how they are installed.

An environment is a folder ``<root>/<engine>`` with a Python and what the engine needs; it is complete when its note
``windtunnel.json`` is there. The module starts ``uv`` (or ``pip``) and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import InputError, RunFailed

#: what this package itself needs inside such an environment, beside pyarrow and numpy in whatever version the engine pins
OWN_NEEDS = ("psutil>=6", "numpy>=2.1", "pyarrow>=16")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An engine's own environment."""

    engine: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        """Whether its installation came to its end."""
        return (self.folder / "windtunnel.json").is_file() and self.python.exists()

    def version(self, distribution: str) -> str:
        """The version of a distribution installed there."""
        pattern = re.compile(re.escape(distribution).replace("\\-", "[-_.]") + r"-([^-]+)\.dist-info$", re.IGNORECASE)
        names = (p.name for p in self.folder.glob("lib/python*/site-packages/*.dist-info"))
        return next((m[1] for n in names if (m := pattern.match(n))), "unknown")


def root() -> Path:
    """``$WINDTUNNEL_ENVIRONMENTS``, else a folder of the user's cache."""
    if asked := os.environ.get("WINDTUNNEL_ENVIRONMENTS"):
        return Path(asked).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windtunnel" / "environments"


def interpreter(engine: str) -> Interpreter:
    """The place of an engine's environment, there or not."""
    return Interpreter(engine, root() / engine)


def install(engine: str, requirements: Iterable[str], say: Callable[[str], None]) -> Interpreter:
    """Make the environment anew. Raises RunFailed with the installer's last words."""
    place, wanted = interpreter(engine), [*requirements, *OWN_NEEDS]
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    uv = _uv()
    if uv is not None:
        steps = [[uv, "venv", "--quiet", "--python", sys.executable, str(place.folder)],
                 [uv, "pip", "install", "--quiet", "--python", str(place.python), *wanted]]  # fmt: skip
    else:
        pip = [str(place.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps = [[sys.executable, "-m", "venv", str(place.folder)], [*pip, *wanted]]
    for step in steps:
        say(" ".join(step))
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines()[-5:]
            raise RunFailed(f"the environment of {engine} could not be installed: {' '.join(words)[:1000]}")
    (place.folder / "windtunnel.json").write_text(json.dumps({"engine": engine, "requirements": wanted}), encoding="utf-8")
    return place


def extra_requirements(extra: str) -> list[str]:
    """What an extra of this package names, for kernels that need it there too."""
    import importlib.metadata

    needs = importlib.metadata.requires("windtunnel") or []
    found = [n.partition(";")[0].strip() for n in needs if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", n)]
    if not found:
        raise InputError(f"windtunnel has no extra {extra!r}")
    return found


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")
