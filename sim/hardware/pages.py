"""A node's page cache: files are written to free memory first and reach the disk behind the writer's back.

The law is Linux's, simplified: a writer goes on at once while less than ``DIRTY_RATIO`` of memory waits to be written
(vm.dirty_ratio, 20 % by default in the kernel's Documentation/admin-guide/sysctl/vm.rst), else it waits for the disk. Bytes
written or read last stay in what memory is free; the least recently touched go first. Knows bytes and numbers, no blocks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Any

from windtunnel.sim.hardware.cpu import Done
from windtunnel.sim.hardware.disk import Disk
from windtunnel.sim.hardware.memory import Memory

DIRTY_RATIO = 0.2


class PageCache:
    """Reads and writes of numbered parts of files through ``memory`` of ``total`` bytes in front of ``disk``."""

    __slots__ = ("_dirty", "_disk", "_held", "_memory", "_resident", "_total", "_waiting")

    def __init__(self, disk: Disk, memory: Memory, total: int) -> None:
        self._disk, self._memory, self._total = disk, memory, total
        self._resident: OrderedDict[int, int] = OrderedDict()
        self._held = self._dirty = 0
        self._waiting: deque[tuple[Done, Any]] = deque()

    def write(self, first: int, sizes: Sequence[int], done: Done, arg: Any) -> bool:
        """Write parts ``first``, ``first`` + 1 … of one file. True: the writer may go on at once; else ``done(arg)`` is called
        when it may."""
        size = sum(sizes)
        self._dirty += size
        self._disk.write(size, self._flushed, size)
        self._touch(enumerate(sizes, first))
        if self._dirty <= DIRTY_RATIO * self._total:
            return True
        self._waiting.append((done, arg))
        return False

    def _flushed(self, size: int) -> None:
        self._dirty -= size
        while self._waiting and self._dirty <= DIRTY_RATIO * self._total:
            done, arg = self._waiting.popleft()
            done(arg)

    def read(self, parts: Iterable[tuple[int, int]]) -> int | None:
        """Bytes of these parts (number, size) that are not in memory, None when all are; they are there afterwards in any case."""
        return self._touch(parts)

    def forget(self, number: int) -> None:
        """The part was deleted."""
        self._held -= self._resident.pop(number, 0)

    def _touch(self, parts: Iterable[tuple[int, int]]) -> int | None:
        """Parts are used, one after the other; bytes of those that were not in memory, None when all were."""
        resident, held, missing = self._resident, self._held, None
        free = max(self._total - self._memory.used, 0)
        for number, size in parts:
            if number in resident:
                resident.move_to_end(number)
            else:
                resident[number] = size
                held += size
                missing = (missing or 0) + size
            while held > free and resident:
                held -= resident.popitem(last=False)[1]
        self._held = held
        return missing
