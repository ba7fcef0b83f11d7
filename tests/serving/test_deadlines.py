"""What keeps the time of requests keeps nothing else of them."""

from __future__ import annotations

import asyncio
import time

import pytest

pytest.importorskip("httptools")

from windtunnel.engines.serving.host import Deadlines
from windtunnel.engines.serving.messages import Request


def _request(task: asyncio.Task | None) -> Request:
    return Request(body=b"", trace=False, begun_s=time.monotonic(), task=task)


def test_requests_that_were_answered_are_forgotten_long_before_their_deadline() -> None:
    async def run() -> int:
        deadlines = Deadlines(3600.0)
        for _ in range(1000):
            request = _request(asyncio.current_task())
            deadlines.watch(request)
            request.task = None
        return len(deadlines._waiting)

    assert asyncio.run(run()) == 1


def test_only_what_is_late_is_cancelled() -> None:
    async def run() -> list[bool]:
        deadlines = Deadlines(0.05)
        tasks = [asyncio.create_task(asyncio.sleep(t)) for t in (60.0, 0.0)]
        requests = [_request(task) for task in tasks]
        for request in requests:
            deadlines.watch(request)
        await tasks[1]
        requests[1].task = None
        await asyncio.gather(*tasks, return_exceptions=True)
        return [task.cancelled() for task in tasks]

    assert asyncio.run(run()) == [True, False]
