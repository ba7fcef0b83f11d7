"""The memory limit of a real run: a control group of version 2 where the machine lets us make one, else a watchdog.

A control group is exact: the kernel counts every page that the engine's processes touch, and ends them all at the limit. The
watchdog is the sampler that measures memory anyway (PSS of the process tree): it ends the tree when a sample passes the limit, so
a peak shorter than its interval escapes it, and a run may pass the limit by what it takes between two samples. Which of the two
was at work stands in the record's environment. The module starts no process and knows no engine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from windtunnel.spec.units import format_bytes

#: a folder of control groups that was delegated to us; looked at before our own group and the root
FOLDER = "WINDTUNNEL_CGROUP"
ROOT = Path("/sys/fs/cgroup")
_numbers = count()


@dataclass(frozen=True, slots=True)
class Group:
    """A control group with a limit, empty until `add`."""

    folder: Path
    limit_bytes: int

    def add(self, pid: int) -> bool:
        """Take in a process and all that it starts from now on; False when it cannot be moved."""
        return _write(self.folder / "cgroup.procs", str(pid))

    @property
    def killed(self) -> bool:
        """Whether the kernel ended processes of the group because of the limit."""
        events = dict(line.split() for line in _read(self.folder / "memory.events").splitlines() if len(line.split()) == 2)
        return int(events.get("oom_kill", 0)) > 0

    def close(self) -> None:
        """Remove the group; its processes must have ended."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def make_group(limit_bytes: int, root: Path = ROOT) -> Group | None:
    """A group with ``limit_bytes``, or None where the machine allows none."""
    for parent in _parents(root):
        folder = parent / f"windtunnel-{os.getpid()}-{next(_numbers)}"
        if "memory" not in _read(parent / "cgroup.controllers").split():
            continue
        if "memory" not in _read(parent / "cgroup.subtree_control").split():
            _write(parent / "cgroup.subtree_control", "+memory")  # refused where processes live in the group itself
        try:
            folder.mkdir()
        except OSError:
            continue
        if _write(folder / "memory.max", str(limit_bytes)):
            _write(folder / "memory.swap.max", "0")
            _write(folder / "memory.oom.group", "1")
            return Group(folder, limit_bytes)
        Group(folder, limit_bytes).close()
    return None


def _parents(root: Path) -> Iterator[Path]:
    """Where a group may be made: what the user names, our own group, the root (free of the rule that inner groups hold nobody)."""
    if named := os.environ.get(FOLDER):
        yield Path(named)
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/") and root == ROOT:
            yield root / line[4:]
    yield root


def by_group(limit_bytes: int) -> str:
    """Why a run ended, in a sentence."""
    return f"its processes passed the memory limit of {format_bytes(limit_bytes)} and the kernel ended them (control group)"


def by_watchdog(limit_bytes: int, found_bytes: int) -> str:
    """The same, measured."""
    return (
        f"its processes held {format_bytes(found_bytes)} and passed the memory limit of {format_bytes(limit_bytes)}: they were ended "
        "(measured as PSS)"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return False
    return True
