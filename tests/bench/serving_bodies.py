"""What a body costs on its way from the host to a replica and back: through their socket, and through shared memory beside it.

`python -m tests.bench.serving_bodies`: microseconds of CPU time of both processes a call, at rising sizes. Shared memory is given its best
case: one block that is there already, written by the host, read in place by the replica, which writes its answer into another one, copied
out by the host; the socket then carries only the head. What it would need besides (a pool of blocks, their life after a death) costs more.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import socket
import time
from multiprocessing import shared_memory
from typing import Any

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SECONDS = 0.5
HEAD = 64


def _receive(source: socket.socket, size: int) -> bytearray:
    found, view = bytearray(size), 0
    while view < size:
        read = source.recv_into(memoryview(found)[view:])
        if not read:
            raise EOFError
        view += read
    return found


def _replica(source: socket.socket, size: int, names: tuple[str, str] | None) -> None:
    blocks = [shared_memory.SharedMemory(name) for name in names] if names else []
    try:
        while True:
            if blocks:
                _receive(source, HEAD)
                body = blocks[0].buf[:size]  # read in place
                blocks[1].buf[:size] = body
                body.release()
                source.sendall(bytes(HEAD))
            else:
                source.sendall(_receive(source, size + HEAD))
    except (EOFError, ConnectionError):
        for block in blocks:
            block.close()


def _call(source: socket.socket, body: bytes, blocks: list[Any]) -> bytes:
    if not blocks:
        source.sendall(bytes(HEAD) + body)
        return bytes(_receive(source, len(body) + HEAD)[HEAD:])
    blocks[0].buf[: len(body)] = body
    source.sendall(bytes(HEAD))
    _receive(source, HEAD)
    return bytes(blocks[1].buf[: len(body)])


def microseconds(size: int, shared: bool) -> float:
    """CPU time of both processes a call."""
    blocks = [shared_memory.SharedMemory(create=True, size=size) for _ in range(2)] if shared else []
    ours, theirs = socket.socketpair()
    names = (blocks[0].name, blocks[1].name) if shared else None
    child = multiprocessing.get_context("fork").Process(target=_child, args=(ours, theirs, size, names))
    child.start()
    theirs.close()
    body, count = bytes(size), 0
    try:
        assert _call(ours, body, blocks) == body
        begun, end = time.process_time(), time.monotonic() + SECONDS
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        while time.monotonic() < end:
            _call(ours, body, blocks)
            count += 1
        own = time.process_time() - begun
    finally:
        ours.close()
        child.join()
        for block in blocks:
            block.close()
            block.unlink()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (own + theirs_s) / count * 1e6


def _child(ours: socket.socket, theirs: socket.socket, size: int, names: tuple[str, str] | None) -> None:
    ours.close()
    _replica(theirs, size, names)


def main() -> None:
    """A line a size."""
    for size in SIZES:
        found = {
            name: round(min(microseconds(size, shared) for _ in range(3)), 1)
            for name, shared in (("socket", False), ("shared", True))
        }
        print(json.dumps({"bytes": size, "cpu_us_a_call": found}), flush=True)


if __name__ == "__main__":
    main()
