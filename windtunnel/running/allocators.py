"""What the allocators of a process keep for later; a module of its own since workers import it at every start."""

from __future__ import annotations

import contextlib


def release_unused() -> None:
    """Hand memory that this process's allocators keep for later back to the system."""
    import ctypes

    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # of glibc
        ctypes.CDLL(None).malloc_trim(0)
