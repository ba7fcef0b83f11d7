"""The load generator: shares of a load, several processes, what a wrong or missing answer counts as."""

from __future__ import annotations

import asyncio
import itertools

import pytest

pytest.importorskip("httptools")

from windtunnel.engines.serving.client import Sent, Target
from windtunnel.engines.serving.load import Loop, ceiling, closed_loop, generate, open_loop, processes_for


def test_a_load_is_shared_without_loss() -> None:
    times = tuple(float(i) for i in range(7))
    assert sorted(itertools.chain(*(p.times for p in Loop(times=times).parts(3)))) == list(times)
    assert [p.clients for p in Loop(clients=5, duration_s=1.0).parts(3)] == [2, 2, 1]
    assert len(Loop(clients=2, duration_s=1.0).parts(3)) == 2


def test_as_many_processes_as_the_rate_needs_and_no_more_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert [processes_for(r, 1000.0) for r in (1, 400, 401, 1e9)] == [1, 1, 2, 4]


def _asked(answer: bytes, count: int = 3, close: bool = False) -> list[Sent]:
    """What becomes of requests to a server that answers every one with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(3)
                writer.write(answer)
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def both() -> list[Sent]:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = Target(url=f"http://127.0.0.1:{port}/", body_bytes=3, answer_bytes=3, timeout_s=0.5)
        try:
            return await open_loop(target, [0.01 * i for i in range(count)])
        finally:
            server.close()

    return asyncio.run(both())


HEAD = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(("answer", "close", "outcome"), [
    (HEAD % (b"200 OK", 3) + b"000", False, "ok"),
    (HEAD % (b"200 OK", 3) + b"000", True, "ok"),
    (HEAD % (b"200 OK", 2) + b"00", False, "wrong"),
    (HEAD % (b"200 OK", 3) + b"001", False, "wrong"),
    (HEAD % (b"503 Busy", 0), False, "rejected"),
    (HEAD % (b"408 Late", 0), False, "timed_out"),
    (HEAD % (b"500 Broken", 0), False, "failed"),
    (b"no HTTP at all\r\n\r\n", False, "failed"),
    (b"", True, "failed"),
    (b"", False, "timed_out"),
])  # fmt: skip
def test_every_request_has_an_outcome(answer: bytes, close: bool, outcome: str) -> None:
    sent = _asked(answer, close=close)
    assert [r.outcome for r in sent] == [outcome] * 3
    assert all(r.intended_s <= r.sent_s <= r.done_s for r in sent)


def test_nobody_listens_and_every_request_is_told_so() -> None:
    target = Target(url="http://127.0.0.1:9/", timeout_s=0.5)
    assert [r.outcome for r in asyncio.run(open_loop(target, [0.0, 0.01]))] == ["failed"] * 2
    assert asyncio.run(closed_loop(target, Loop(clients=1, duration_s=0.02, think_s=0.01)))


def test_several_processes_share_a_schedule() -> None:
    """Against nobody: what counts is that all of it comes back, in order, whatever process sent it."""
    times = tuple(i / 100 for i in range(20))
    sent = generate(Target(url="http://127.0.0.1:9/", timeout_s=0.5), Loop(times=times), processes=2)
    assert [r.intended_s for r in sent] == list(times)


def test_the_generator_measures_itself() -> None:
    assert ceiling() > 100
