"""A node's disk: bandwidth shared equally by its users, apart for reading and writing. Owns no file and no placement."""

from __future__ import annotations

from typing import Any

from simpy.core import Environment
from windtunnel.sim.hardware.cpu import Done, Shared

from windtunnel.cluster import DiskSpec
from windtunnel.errors import OutOfMemory
from windtunnel.units import format_bytes


class Disk:
    """Reads and writes in bytes; ``used`` bytes lie on it, ``peak`` at most so far."""

    __slots__ = ("_capacity", "_reads", "_writes", "peak", "read_bytes", "used", "written_bytes")

    def __init__(self, env: Environment, spec: DiskSpec) -> None:
        self._reads = Shared(env, divided(spec.read_bytes_per_s))
        self._writes = Shared(env, divided(spec.write_bytes_per_s))
        self._capacity = spec.capacity_bytes
        self.used = self.peak = self.read_bytes = self.written_bytes = 0

    def watch(self, log: list[float], read_row: int, write_row: int) -> None:
        """From now on, append the bytes that are read and written to a `Meter`'s log."""
        self._reads.watch(log, read_row)
        self._writes.watch(log, write_row)

    def read(self, size: int, done: Done, arg: Any) -> None:
        """Read ``size`` bytes, then ``done(arg)``."""
        self.read_bytes += size
        self._reads.add(float(size), 1.0, done, arg)

    def write(self, size: int, done: Done, arg: Any) -> None:
        """Write ``size`` bytes, then ``done(arg)``; raises OutOfMemory when they do not fit."""
        self.used += size
        self.peak = max(self.peak, self.used)
        self.written_bytes += size
        if self.used > self._capacity:
            raise OutOfMemory(
                f"the disk is full: {format_bytes(self.used)} of blocks on a disk of {format_bytes(self._capacity)}"
            )
        self._writes.add(float(size), 1.0, done, arg)


def divided(bytes_per_s: float) -> Any:
    """The rate of each of ``load`` users of a bandwidth; a single user gets all of it."""
    return lambda load: bytes_per_s / load if load > 1.0 else bytes_per_s
