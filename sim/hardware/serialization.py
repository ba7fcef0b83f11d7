"""What moving a block costs a worker: a fixed part a block and a part a byte, for writing (emit) and for reading (fetch)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One serialization path, e.g. Arrow IPC into shared memory. ``bytes_per_s`` 0 = bytes are free (zero-copy)."""

    block_s: float = 0.0
    bytes_per_s: float = 0.0

    def seconds(self, blocks: int, size: float) -> float:
        """CPU time for ``blocks`` blocks of together ``size`` bytes."""
        return self.block_s * blocks + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
