"""A node's disk: bandwidth shared equally by its users, apart for reading and writing. Owns no file and no placement.

A volume may have a limit for both together too, as block storage has (Amazon EBS: throughput of a volume and of an instance counts
reads and writes): then all users share its time, and a read or write alone is as fast as the volume reads or writes.
"""

from __future__ import annotations

from typing import Any

from windtunnel.errors import OutOfMemory
from windtunnel.sim.clock import Clock
from windtunnel.sim.hardware.cpu import Done, Shared
from windtunnel.spec.cluster import DiskSpec
from windtunnel.spec.units import format_bytes


class Disk:
    """Reads and writes in bytes; ``used`` bytes lie on it, ``peak`` at most so far."""

    __slots__ = (
        "_capacity", "_clock", "_reads", "_rows", "_seek", "_units", "_writes", "chunk", "peak", "read_bytes", "seeks", "used",
        "written_bytes",
    )  # fmt: skip

    def __init__(self, clock: Clock, spec: DiskSpec) -> None:
        self._clock = clock
        total = spec.total_bytes_per_s
        self.chunk = 0  # bytes between two seeks where sorted runs are merged; 0: nothing is sought
        self.seeks = 0.0
        self._seek = 0.0  # bytes that a drive could move during one
        if spec.kind == "hdd":
            total = total or max(spec.read_bytes_per_s, spec.write_bytes_per_s)  # one arm reads and writes
            self.chunk, self._seek = spec.chunk_bytes, spec.seek_s * total / spec.drives
        rate = spindles(total, spec) if self.chunk else divided(total or spec.read_bytes_per_s)
        self._reads = Shared(clock, rate)
        self._writes = self._reads if total else Shared(clock, divided(spec.write_bytes_per_s))
        #: bytes of the common limit that a byte read or written takes
        self._units = (max(total / spec.read_bytes_per_s, 1.0), max(total / spec.write_bytes_per_s, 1.0))
        self._rows: tuple[list[float], int, int] | None = None
        self._capacity = spec.capacity_bytes
        self.used = self.peak = self.read_bytes = self.written_bytes = 0

    def watch(self, log: list[float], read_row: int, write_row: int) -> None:
        """From now on, append the bytes that are read and written to a `Meter`'s log; what shares a limit fills both rows."""
        if self._reads is self._writes:
            self._rows = (log, read_row, write_row)
        else:
            self._reads.watch(log, read_row)
            self._writes.watch(log, write_row)

    def read(self, size: int, done: Done, arg: Any, places: float = 1) -> None:
        """Read ``size`` bytes from ``places`` places, then ``done(arg)``."""
        self.read_bytes += size
        work = size * self._units[0] + self._moves(places)
        self._reads.add(work, 1.0, self._noted(size if not self.chunk else work, done), arg)

    def _moves(self, places: float) -> float:
        """What the arm's ways cost, in bytes."""
        if not self.chunk:
            return 0.0
        self.seeks += places
        return places * self._seek

    def runs(self, size: int) -> int:
        """Places at which the reading of sorted runs begins anew while they are merged."""
        return -(-size // self.chunk) if self.chunk else 1

    def write(self, size: int, done: Done, arg: Any) -> None:
        """Write ``size`` bytes in one place, then ``done(arg)``; raises OutOfMemory when they do not fit."""
        self.used += size
        self.peak = max(self.peak, self.used)
        self.written_bytes += size
        if self.used > self._capacity:
            raise OutOfMemory(
                f"the disk is full: {format_bytes(self.used)} of blocks on a disk of {format_bytes(self._capacity)}"
            )
        work = size * self._units[1] + self._moves(1)
        self._writes.add(work, 1.0, self._noted(size if not self.chunk else work, done), arg)

    def _noted(self, size: float, done: Done) -> Done:
        if self._rows is None:
            return done
        (log, *rows), begin = self._rows, self._clock.now

        def ended(arg: Any) -> None:
            for row in rows:
                log.extend((row, begin, self._clock.now, float(size)))
            done(arg)

        return ended


def divided(bytes_per_s: float) -> Any:
    """The rate of each of ``load`` users of a bandwidth; a single user gets all of it."""
    return lambda load: bytes_per_s / load if load > 1.0 else bytes_per_s


def spindles(bytes_per_s: float, spec: DiskSpec) -> Any:
    """The rate of each of ``load`` streams on the drives of ``spec``, which move ``bytes_per_s`` together."""
    drives, each = spec.drives, bytes_per_s / spec.drives
    useful = spec.chunk_bytes / (spec.chunk_bytes + spec.seek_s * each)  # share of a shared drive's time

    def rate(load: float) -> float:
        if load <= drives:
            return each
        shared = min(load - drives, drives)
        return each * (drives - shared + shared * useful) / load

    return rate
