"""Places that processes of one machine take in turn, for engines that schedule no devices: a file with a lock for each.

The system gives a lock back when its process ends, however it ends, so that no place is ever lost. The module knows no engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windtunnel.spec.plan import Operator

_LOOK_S = 0.002  # between two looks for a free place


@dataclass(frozen=True, slots=True)
class Slots:
    """``count`` places called ``name`` in a folder that all processes see; as data it travels to them. A count of 0 is no limit."""

    folder: str
    name: str
    count: int

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a free place, and hold it."""
        if not self.count:
            yield
            return
        handle = self._wait()
        try:
            yield
        finally:
            os.close(handle)

    def _wait(self) -> int:
        while True:
            for number in range(self.count):
                handle = os.open(Path(self.folder) / f"{self.name}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(handle)
                else:
                    return handle
            time.sleep(_LOOK_S)


def slots_of(op: Operator, devices: int, folder: Path) -> Slots:
    """The places that tasks of an operator share: devices, or as many tasks as it allows at once, whichever are fewer."""
    most = op.concurrency.maximum if op.concurrency is not None else None
    if op.resources.gpus:
        places = int(devices // op.resources.gpus)
        return Slots(
            str(folder), "device" if most is None else f"device-{op.name}", places if most is None else min(places, most)
        )
    return Slots(str(folder), f"operator-{op.name}", most or 0)
