"""Bodies between the host and a replica in shared memory: a ring a direction, beside the socket that tells where they lie.

One file without a name, so that it is gone with its last process. Who writes goes on until it would pass the
mark of who reads; then, and with short bodies, for which a system call costs as much as their copy, bytes go through the socket. A mark
is read and written with nothing held: one that is seen late only makes the writer take the socket. The frames that tell where bytes
lie are sent after them and through the kernel, which orders the two.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

from windtunnel.engines.serving.wire import PLACE, SHARED

LEAST = 32 * 1024  # bytes of a message; less goes through the socket
SIZE = 32 * 2**20  # bytes of a ring; they are taken from the system when they are first used
_MARK = 64  # bytes of a ring before its content


def create() -> int:
    """A file descriptor of memory for a replica and its host.

    No part of /dev/shm where the system can help it: that may be small, and a page that does not fit ends the process.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("windtunnel-bodies")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, 2 * (_MARK + SIZE))
    return fd


class Ring:
    """One direction. The mark counts the bytes that were read since the beginning, holes at the end of the ring included."""

    def __init__(self, memory: memoryview, size: int) -> None:
        self._mark = memory[:8].cast("Q")
        self._bytes = memory[_MARK : _MARK + size]
        self._size, self._next = size, 0

    def put(self, parts: Sequence[bytes], count: int) -> int | None:
        """Write ``parts`` of ``count`` bytes side by side; where, or None when there is no room."""
        size, read = self._size, self._mark[0]
        at = self._next
        if read == at:  # all was read: from the start again, so that no more memory is touched than is needed
            read = at = at + -at % size
        start = at % size
        if start + count > size:
            at, start = at + size - start, 0
        if at + count - read > size or count > size:
            return None
        self._next = at + count
        for part in parts:
            end = start + len(part)
            self._bytes[start:end] = part
            start = end
        return at

    def take(self, at: int, count: int) -> bytes:
        """Read them, once and in order; their room is free."""
        start = at % self._size
        found = bytes(self._bytes[start : start + count])
        self._mark[0] = at + count
        return found


class Bodies:
    """Both directions, seen from the host or from the replica."""

    def __init__(self, fd: int, *, host: bool) -> None:
        memory = memoryview(mmap.mmap(fd, 2 * (_MARK + SIZE)))
        os.close(fd)
        first, second = Ring(memory, SIZE), Ring(memory[_MARK + SIZE :], SIZE)
        self._out, self._in = (first, second) if host else (second, first)

    def put(self, parts: Sequence[bytes]) -> tuple[int, bytes]:
        """The count for a head, and what follows it."""
        count = sum(map(len, parts))
        if count >= LEAST and (at := self._out.put(parts, count)) is not None:
            return SHARED | PLACE.size, PLACE.pack(at, count)
        return count, parts[0] if len(parts) == 1 else b"".join(parts)

    def get(self, length: int, data: bytes) -> bytes:
        """The content of a frame with this count; ``data`` followed it."""
        return self._in.take(*PLACE.unpack(data)) if length & SHARED else data
