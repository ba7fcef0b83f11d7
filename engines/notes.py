"""What the processes of a foreign engine tell of the kernels that they call: loads, seconds in kernels, seconds of crossing to them.

An engine's own processes answer to it alone, so they leave notes in a folder: one file a process, a line a note. The adapter reads
them when its run is over. Without the folder nothing is written. The module knows no engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

#: environment variable with the folder of the notes
FOLDER = "WINDTUNNEL_NOTES"


class Spent:
    """Wall and CPU seconds of this thread inside kernels, since the process began."""

    seconds = 0.0
    cpu_s = 0.0


def told(counters: dict[str, float]) -> None:
    """Leave a note: counters to add up."""
    if folder := os.environ.get(FOLDER):
        line = (json.dumps(counters) + "\n").encode()
        handle = os.open(os.path.join(folder, f"{os.getpid()}.notes"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)  # one write: lines of two threads do not mix
        finally:
            os.close(handle)


def read(folder: Path) -> dict[str, float]:
    """The sum of all notes; they are gone afterwards. A line that a dying process cut off is left out."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("*.notes")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                for name, value in json.loads(line).items():
                    found[name] = found.get(name, 0.0) + value
        path.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def load(operator: str) -> Iterator[None]:
    """A stateful kernel is loaded inside."""
    start = time.perf_counter()
    yield
    told({"loads": 1, "load_s": time.perf_counter() - start})


def kernel_calls(operator: str, outputs: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """What a call of a kernel yields; a note of its seconds when it is through. The consumer's time between two is not the kernel's."""
    wall = cpu = 0.0
    iterator: Iterator[Any] | None = None
    while True:
        start, start_cpu = time.perf_counter(), time.thread_time()
        iterator = iter(outputs()) if iterator is None else iterator
        out = next(iterator, None)
        wall += time.perf_counter() - start
        cpu += time.thread_time() - start_cpu
        if out is None:
            break
        yield out
    Spent.seconds += wall
    Spent.cpu_s += cpu
    told({"kernel_s": wall, f"kernel_s:{operator}": wall, "kernel_cpu_s": cpu, "kernel_calls": 1})


def crossing(outputs: Iterator[Any]) -> Iterator[Any]:
    """What a task yields; a note of the CPU seconds of its thread outside kernels: reading, converting and writing rows.

    Waiting for the engine on the other side is no CPU time, and what that side does for the crossing is not seen: a lower bound.
    """
    start, kernels = time.thread_time(), Spent.cpu_s
    yield from outputs
    told({"bridge_s": max(0.0, time.thread_time() - start - (Spent.cpu_s - kernels)), "bridge_tasks": 1})
