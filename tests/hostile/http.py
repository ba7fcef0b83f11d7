"""The embedded host for hostile situations: one process for all of them, asked on raw connections; and a fuzz of what it reads.

``python -m tests.hostile.http [SECONDS]`` sends damaged requests for so long (``make fuzz-http``: five minutes) and fails when the host
dies, hangs, answers with something that is no HTTP, or grows. The seed is told, so that a failure can be repeated.
"""

from __future__ import annotations

import atexit
import contextlib
import random
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from tests.hostile.frame import Ending, Scene

ECHO = '[[deployments]]\nname = "a"\ncost = { per_call = "0s" }\n'
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
KNOWN = {100, 200, 400, 404, 405, 408, 413, 417, 431, 500, 501, 503, 505}
GOOD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
MOST_GROWTH = 100 * 2**20


@cache
def host() -> Any:
    """A running session, ended with this process."""
    from tests.serving.conftest import running

    stack = contextlib.ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-http-")))
    session = stack.enter_context(running(folder, ECHO, work="sleep", max_body="64KiB", client_timeout="1s"))
    atexit.register(stack.close)
    return session


def ask(data: bytes, patience_s: float = 5.0, end: bool = True) -> bytes:
    """All that comes back on a connection of its own."""
    name, port = host().url.removeprefix("http://").strip("/").split(":")
    answer = b""
    with socket.create_connection((name, int(port)), timeout=patience_s) as client:
        with contextlib.suppress(OSError):  # it may close before it has read all
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while got := client.recv(1 << 16):
                answer += got
    return answer


def sends(data: bytes, end: bool = True) -> Callable[[Scene], Ending]:
    """What a situation does: send it, then ask properly; told are the statuses, and whether the host still answers."""

    def act(_: Scene) -> Ending:
        told = " ".join(s.decode() for s in STATUS.findall(ask(data, end=end))) or "closed"
        return Ending(0, out=f"{told}, then {'well' if ask(GOOD).endswith(b'abc') else 'dead'}")

    return act


def fuzz(seconds: float, seed: int) -> int:
    """Damaged requests until the time is over; how many were sent. Raises AssertionError."""
    draw, sent, end = random.Random(seed), 0, time.monotonic() + seconds
    process = psutil.Process(host().processes[0].pid)
    before = process.memory_info().rss
    while time.monotonic() < end:
        data = _damaged(draw)
        answer = ask(data, patience_s=10.0)
        statuses = {int(s) for s in STATUS.findall(answer)}
        assert not answer or answer.startswith(b"HTTP/1.1 "), (
            f"seed {seed}, request {sent}: no HTTP: {answer[:80]!r} to {data[:200]!r}"
        )
        assert statuses <= KNOWN, f"seed {seed}, request {sent}: {statuses} to {data[:200]!r}"
        sent += 1
        if sent % 50 == 0:
            assert ask(GOOD).endswith(b"abc"), f"seed {seed}: it does not answer after {sent} requests"
            assert process.memory_info().rss - before < MOST_GROWTH, f"seed {seed}: it has grown after {sent} requests"
    return sent


_PARTS = (
    b"POST / HTTP/1.1\r\n", b"HEAD / HTTP/1.1\r\n", b"GET /-/metrics HTTP/1.1\r\n", b"POST http://h/ HTTP/1.0\r\n", b"Host: h\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
    b"Content-Type: application/json\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"\r\n", b"abc",
    b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n",
    b"ffffffffffffffff\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"{", b"\x00", b"\xff" * 20,
)  # fmt: skip


def _damaged(draw: random.Random) -> bytes:
    """Parts of requests in some order, or a good one with bytes changed, cut out, doubled."""
    if draw.random() < 0.5:
        return b"".join(draw.choices(_PARTS, k=draw.randint(1, 12)))
    data = bytearray(GOOD * draw.randint(1, 3))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(3)
        if kind == 0:
            data[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del data[at : at + draw.randint(1, 8)]
        else:
            data[at:at] = data[at : at + draw.randint(1, 30)] * draw.randint(1, 40)
        data = data or bytearray(b"\r")
    return bytes(data)


def main(seconds: float = 300.0) -> None:
    """For so long."""
    seed = int(time.time())
    print(f"seed {seed}", flush=True)
    print(f"{fuzz(seconds, seed)} damaged requests, and it answers", flush=True)


if __name__ == "__main__":
    from tests.hostile import http

    http.main(*map(float, sys.argv[1:2]))
