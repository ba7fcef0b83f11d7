"""Which core of the simulator runs: Python, or the same sources compiled with mypyc (``make fast``).

The module owns the list of modules, and the choice when the package is imported; `compiling` builds them. The compiled core lies in
a folder of its own and is used as long as it was built from the sources as they are; a test proves that both leave the same records
(`tests/sim/test_core.py`). ``WINDTUNNEL_CORE=python`` asks for Python, ``=compiled`` refuses to go on without the other.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".fast"
ASKED = "WINDTUNNEL_CORE"
#: what every simulated task or request passes through, and all classes that derive from it, by room
MODULES = {
    "engines/models": (
        "arrivals", "batches", "bulk", "calls", "checkpoints", "dask", "deadlines", "deployment", "flink", "gates", "graph", "handout",
        "latencies", "ledger", "lineage", "mapreduce", "pace", "pools", "ray", "routing", "serving", "slots", "slowstart", "spark",
        "speculation", "streaming", "streams",
    ),
    "sim": ("clock",),
    "sim/costs": ("laws",),
    "sim/world": (
        "agenda", "draws", "execution", "faults", "gathering", "journal", "losses", "meter", "place", "pressure", "rounds", "samples",
        "steady", "tasks", "usage", "wave", "world",
    ),
    "sim/hardware": ("cpu", "disk", "gpu", "memory", "network", "node", "pages", "serialization", "store"),
    "sim/serving": (
        "breakage", "carrier", "cores", "journal", "loops", "replicas", "site", "tokens", "visits", "work", "world",
    ),
}  # fmt: skip
NOTE = "built.json"  # the digests of the sources that were compiled, written last
LIBRARY = "windtunnel_core__mypyc"  # what all compiled modules share
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def files() -> Iterator[str]:
    """The sources of the core, as paths below the root."""
    return (f"{room}/{name}.py" for room, names in MODULES.items() for name in names)


def kind() -> str:
    """``compiled`` or ``python``."""
    return "compiled" if any(isinstance(finder, _Finder) for finder in sys.meta_path) else "python"


def reason() -> str | None:
    """Why the compiled core cannot be used; None where it can."""
    import json

    try:
        built = json.loads((BUILT / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "there is none; `make fast` builds it"
    if built["suffix"] != SUFFIX:
        return f"it was built for another Python ({built['suffix']}); `make fast` builds it anew"
    changed = [name for name, digest in digests().items() if built["digests"].get(name) != digest]
    if changed or len(built["digests"]) != len(list(files())):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return (
            f"{changed[0] if changed else 'the list of its modules'}{more} changed since it was built; `make fast` builds it anew"
        )
    return None


def choose() -> None:
    """Use the compiled core from now on, where there is one that equals its sources and nobody asked for Python."""
    asked = os.environ.get(ASKED, "")
    if asked == "python" or not (asked or BUILT.is_dir()):
        return
    if asked not in ("", "compiled"):
        raise ImportError(f"{ASKED} = {asked!r} must be 'python' or 'compiled'")
    why = reason()
    if why is None:
        sys.meta_path.insert(0, _Finder())
    elif asked:
        raise ImportError(f"{ASKED} asks for the compiled core, which cannot be used: {why}")
    else:
        os.environ[ASKED] = "python"  # child processes need not say it again
        print(f"windtunnel: the compiled core is left aside: {why}", file=sys.stderr)


class _Finder:
    """Finds the modules of the core, and the library that they share, in the folder of the compiled ones."""

    def __init__(self) -> None:
        modules = {_module(name): BUILT / name.removesuffix(".py") for name in files()}
        self._files = {**modules, LIBRARY: BUILT / LIBRARY}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the import system asks."""
        file = self._files.get(name)
        return None if file is None else importlib.util.spec_from_file_location(name, f"{file}{SUFFIX}")


def _module(file: str) -> str:
    return "windtunnel." + file.removesuffix(".py").replace("/", ".")


def digests() -> dict[str, str]:
    """SHA-256 of each source."""
    import hashlib

    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in files()}
