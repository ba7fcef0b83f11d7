"""What a body costs on its way from the host to a replica and back: through their socket, and through the shared memory beside it.

`python -m tests.bench.serving_bodies`: microseconds of CPU time of both processes a call, at rising sizes. It is where the least size for
shared memory comes from (`windtunnel.engines.serving.shared.LEAST`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import socket
import struct
import time

from windtunnel.engines.serving import shared
from windtunnel.engines.serving.wire import BYTES_AFTER

SIZES = (1_000, 10_000, 32_000, 100_000, 1_000_000, 10_000_000)
SECONDS = 0.5
HEAD = struct.Struct("<Q")


def _receive(source: socket.socket, size: int) -> bytes:
    found, at = bytearray(size), 0
    while at < size:
        read = source.recv_into(memoryview(found)[at:])
        if not read:
            raise EOFError
        at += read
    return bytes(found)


def _send(target: socket.socket, bodies: shared.Bodies, body: bytes) -> None:
    count, data = bodies.put([body])
    target.sendall(HEAD.pack(count) + data)


def _take(source: socket.socket, bodies: shared.Bodies) -> bytes:
    (count,) = HEAD.unpack(_receive(source, HEAD.size))
    return bodies.get(count, _receive(source, count & BYTES_AFTER))


def _replica(ours: socket.socket, source: socket.socket, memory: int) -> None:
    ours.close()
    bodies = shared.Bodies(memory, host=False)
    try:
        while True:
            _send(source, bodies, _take(source, bodies))
    except (EOFError, ConnectionError):
        return


def microseconds(size: int, least: int) -> float:
    """CPU time of both processes a call, where bodies of ``least`` bytes and more take the shared memory."""
    shared.LEAST = least
    ours, theirs = socket.socketpair()
    memory = shared.create()
    child = multiprocessing.get_context("fork").Process(target=_replica, args=(ours, theirs, os.dup(memory)))
    child.start()
    theirs.close()
    bodies = shared.Bodies(memory, host=True)
    body, count = bytes(size), 0
    try:
        _send(ours, bodies, body)
        assert _take(ours, bodies) == body
        begun, end = time.process_time(), time.monotonic() + SECONDS
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        while time.monotonic() < end:
            _send(ours, bodies, body)
            _take(ours, bodies)
            count += 1
        own = time.process_time() - begun
    finally:
        ours.close()
        child.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (own + theirs_s) / count * 1e6


def main() -> None:
    """A line a size."""
    for size in SIZES:
        ways = {"socket": 2 * size, "shared": 0}
        found = {name: round(min(microseconds(size, least) for _ in range(3)), 1) for name, least in ways.items()}
        print(json.dumps({"bytes": size, "cpu_us_a_call": found}), flush=True)


if __name__ == "__main__":
    main()
