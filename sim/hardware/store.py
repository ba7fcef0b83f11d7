"""A node's object store: bytes of blocks in shared memory, bounded; what does not fit goes to disk. Knows no block's content."""

from __future__ import annotations

from windtunnel.sim.hardware.memory import Memory


class ObjectStore:
    """``used`` of ``limit`` bytes are in memory (counted in the node's `Memory` too); ``spilled`` bytes went to disk."""

    __slots__ = ("limit", "memory", "peak", "spilled", "used")

    def __init__(self, limit: int, memory: Memory) -> None:
        self.limit = limit
        self.memory = memory
        self.used = self.peak = self.spilled = 0

    def put(self, size: int) -> bool:
        """Store a block; False when it does not fit and must be written to disk."""
        if self.used + size > self.limit:
            self.spilled += size
            return False
        self.used += size
        if self.used > self.peak:
            self.peak = self.used
        memory = self.memory
        memory.used += size  # as `Memory.take` does, for every block there is
        if memory.used > memory.peak:
            memory.higher("a block in the object store")
        return True

    def free(self, size: int) -> None:
        """Forget a block that is in memory."""
        self.used -= size
        assert self.used >= 0, "more of the object store freed than stored"
        self.memory.give(size)
