"""Devices of one machine as the processes that use them see them: who holds which, how much of its memory, and whose turn it is.

A folder stands for the devices of a session. A process claims the device with the fewest holders when it loads a model, and a
kernel has the device to itself while it runs: two processes on one device take turns, as on a real one. The books are files under
locks that the system releases with the process, so a killed holder leaves nothing. What the kernels took is added up there, for
the record. The module knows neither engines nor models.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windtunnel.errors import OutOfMemory
from windtunnel.spec.units import format_bytes

_BOOKS = "devices.json"


def open_devices(folder: Path, kind: str, count: int, memory_bytes: int) -> None:
    """Begin the books of ``count`` devices; ``memory_bytes`` 0 = no limit."""
    folder.mkdir(parents=True, exist_ok=True)
    books = {"kind": kind, "memory_bytes": memory_bytes, "holders": [[] for _ in range(count)], "totals": {}}
    (folder / _BOOKS).write_text(json.dumps(books), encoding="utf-8")


def take_totals(folder: Path) -> dict[str, float]:
    """What kernels added since the last call."""
    with _books(folder) as books:
        totals: dict[str, float] = books["totals"]
        books["totals"] = {}
    return totals


class Claim:
    """A share of one device for this process, given back by `release` or with the process."""

    def __init__(self, folder: Path, size: int, what: str) -> None:
        """Raises OutOfMemory where no device has ``size`` bytes left."""
        self._folder, self._mark = folder, [os.getpid(), _started(os.getpid()), size]
        with _books(folder) as books:
            limit, holders = books["memory_bytes"], books["holders"]
            for number, held in enumerate(holders):
                holders[number] = [h for h in held if _started(h[0]) == h[1]]
            order = sorted(range(len(holders)), key=lambda n: (len(holders[n]), n))
            room = [n for n in order if not limit or sum(h[2] for h in holders[n]) + size <= limit]
            if not room:
                least = min(sum(h[2] for h in held) for held in holders)
                raise OutOfMemory(
                    f"{what} needs {format_bytes(size)} of device memory, and of the {format_bytes(limit)} of a {books['kind']} "
                    f"{format_bytes(least)} are taken"
                )
            self.number = room[0]
            holders[self.number].append(self._mark)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The device to itself."""
        with (self._folder / f"turn-{self.number}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self, **amounts: float) -> None:
        """Write down what a kernel took."""
        with _books(self._folder) as books:
            for name, amount in amounts.items():
                books["totals"][name] = books["totals"].get(name, 0.0) + amount

    def release(self) -> None:
        """Give the share back; idempotent, and silent when the session is over."""
        with contextlib.suppress(OSError, ValueError), _books(self._folder) as books:
            if self._mark in books["holders"][self.number]:
                books["holders"][self.number].remove(self._mark)


def _started(pid: int) -> int:
    """When a process began, in ticks; -1 for one that is gone. With its number it names a process for ever."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return 0 if not Path("/proc").is_dir() else -1
    except IndexError:
        return -1


@contextlib.contextmanager
def _books(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / _BOOKS).open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        books: dict[str, Any] = json.load(file)
        yield books
        file.seek(0)
        file.truncate()
        json.dump(books, file)
