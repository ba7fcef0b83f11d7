"""Bodies in shared memory between the host and a replica: rings by hand and by chance, and real replicas asked with long bodies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httptools")

from tests.serving.conftest import replicas, running
from windtunnel.engines.serving import shared
from windtunnel.engines.serving.shared import _MARK, LEAST, Bodies, Ring
from windtunnel.engines.serving.wire import SHARED

BATCHES = '[[deployments]]\nname = "a"\ncost = { per_call = "1ms" }\nbatch = { max_size = 3, wait = "50ms" }\n'
SIZES = (10, 40_000, 1_000_000, 15_000_000, 15_000_000, 15_000_000, 7)
TWO = '[[deployments]]\nname = "a"\nreplicas = 2\ncost = { per_call = "1ms" }\n'
HANDLER = '''
import time

class Turned:
    """Answers each body backwards; the first letter may ask for more."""

    def samples(self):
        return [b"ab"]

    def __call__(self, bodies):
        if bodies[0][:1] == b"w":
            time.sleep(0.3)
        if bodies[0] == b"text":
            return ["no bytes"] * len(bodies)
        return [body[::-1] for body in bodies]
'''


def _rings(size: int) -> tuple[Ring, Ring]:
    memory = memoryview(bytearray(_MARK + size))
    return Ring(memory, size), Ring(memory, size)


def test_a_ring_is_full_until_what_is_in_it_was_read() -> None:
    writer, reader = _rings(100)
    first = writer.put([b"a" * 60], 60)
    assert first == 0 and writer.put([b"b" * 60], 60) is None and writer.put([b"c" * 101], 101) is None
    second = writer.put([b"d" * 20, b"e" * 20], 40)
    assert second == 60 and writer.put([b"f"], 1) is None
    assert reader.take(first, 60) == b"a" * 60
    assert writer.put([b"g" * 60], 60) == 100, "it begins again where the first one lay"
    assert reader.take(second, 40) == b"d" * 20 + b"e" * 20
    assert reader.take(100, 60) == b"g" * 60
    assert writer.put([b"h" * 100], 100) == 200, "an empty ring is used from its start, with a hole before"


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.binary(max_size=45)), max_size=60))
def test_what_is_taken_is_what_was_put(size: int, steps: list[tuple[bool, bytes]]) -> None:
    writer, reader = _rings(size)
    lying: deque[tuple[int, bytes]] = deque()
    for put, content in steps:
        if put:
            at = writer.put([content[:3], content[3:]], len(content))
            if at is None:
                assert lying or len(content) > size, "an empty ring takes whatever fits in it"
            else:
                lying.append((at, content))
        elif lying:
            at, expected = lying.popleft()
            assert reader.take(at, len(expected)) == expected


def test_long_bodies_take_the_ring_and_short_ones_do_not() -> None:
    fd = shared.create()
    host, replica = Bodies(os.dup(fd), host=True), Bodies(fd, host=False)
    for sender, receiver in ((host, replica), (replica, host)):
        for body, ringed in ((b"x" * LEAST, True), (b"y" * (LEAST - 1), False), (b"z" * (shared.SIZE + 1), False)):
            count, data = sender.put([body])
            assert bool(count & SHARED) == ringed and (not ringed or len(data) < 100)
            assert receiver.get(count, data) == body


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "turning.py").write_text(HANDLER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in (str(tmp_path), os.environ.get("PYTHONPATH")) if p))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


async def _all(port: int, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    async def one(body: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), answer

    return await asyncio.gather(*map(one, bodies))


def test_long_bodies_come_back_from_batches_and_beyond_the_ring(handlers: Path) -> None:
    bodies = [bytes([65 + i]) * 10 + os.urandom(size) for i, size in enumerate(SIZES)]
    with running(handlers, BATCHES, work="turning:Turned") as session:
        for _ in range(2):
            assert asyncio.run(_all(session._port, bodies)) == [(200, body[::-1]) for body in bodies]


def test_answers_that_are_no_bytes_are_refused_and_the_replica_goes_on(handlers: Path) -> None:
    with running(handlers, TWO, work="turning:Turned") as session:
        before = {r.pid for r in replicas(session)}
        for body, status, answer in ((b"text", 500, b"str"), (b"ab", 200, b"ba")):
            ((code, said),) = asyncio.run(_all(session._port, [body]))
            assert code == status and answer in said
        assert {r.pid for r in replicas(session)} == before


def test_a_replica_that_dies_with_a_long_body_gives_it_to_another(handlers: Path) -> None:
    bodies = [b"w" + os.urandom(2_000_000) for _ in range(4)]
    with running(handlers, TWO, work="turning:Turned") as session:

        async def ask() -> list[tuple[int, bytes]]:
            task = asyncio.create_task(_all(session._port, bodies))
            await asyncio.sleep(0.15)
            os.kill(replicas(session)[0].pid, signal.SIGKILL)
            return await task

        assert asyncio.run(ask()) == [(200, body[::-1]) for body in bodies]
