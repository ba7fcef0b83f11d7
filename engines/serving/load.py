"""The load generator: sends each request at its intended time whether or not others were answered (open loop), or keeps a number
of clients busy (closed loop), and keeps four times of every request.

A latency counts from the *intended* time, so a server that stalls cannot hide the requests that it kept from being sent. The
module judges its own lag; it knows no engine and no deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from windtunnel.engines.serving.wire import TRACE

OUTCOMES = {200: "ok", 503: "rejected", 408: "timed_out"}


@dataclass(slots=True)
class Sent:
    """One request; times are seconds since the start of the run. ``trace``: visits as the server told them, monotonic times."""

    intended_s: float
    sent_s: float = 0.0
    first_byte_s: float = 0.0
    done_s: float = 0.0
    outcome: str = "failed"
    trace: list[list] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, and how. ``expected_bytes``: an answer of another length counts as failed; None = not checked."""

    url: str
    body: bytes = b""
    expected_bytes: int | None = None
    timeout_s: float = 60.0
    trace: bool = True


async def open_loop(target: Target, times: Sequence[float]) -> list[Sent]:
    """Send at these times; returns all requests in order of their intended times, with every one accounted for."""
    requests = [Sent(t) for t in times]
    tasks = []
    async with _session(target) as session:
        start = time.monotonic()
        for request in requests:
            while (wait := request.intended_s - (time.monotonic() - start)) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(_send(session, target, request, start)))
            if len(tasks) % 32 == 0:
                await asyncio.sleep(0)  # late or not, answers are read
        await asyncio.gather(*tasks)
    return _relative(requests, start)


async def closed_loop(target: Target, clients: int, duration_s: float, think_s: float) -> list[Sent]:
    """Each client sends, waits for the answer, thinks, and sends again, until the duration is over."""
    requests: list[Sent] = []
    async with _session(target) as session:
        start = time.monotonic()

        async def client() -> None:
            while (now := time.monotonic() - start) < duration_s:
                request = Sent(now)
                requests.append(request)
                await _send(session, target, request, start)
                await asyncio.sleep(think_s)

        await asyncio.gather(*(client() for _ in range(clients)))
    return _relative(requests, start)


def _session(target: Target) -> aiohttp.ClientSession:
    """No limit on connections: a limit would be a queue of the client's own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=False),
        timeout=aiohttp.ClientTimeout(total=target.timeout_s),
        headers={TRACE: "1"} if target.trace else {},
    )


async def _send(session: aiohttp.ClientSession, target: Target, request: Sent, start: float) -> None:
    request.sent_s = time.monotonic() - start
    with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
        async with session.post(target.url, data=target.body) as response:
            request.first_byte_s = time.monotonic() - start
            body = await response.read()
            outcome = OUTCOMES.get(response.status, "failed")
            if outcome == "ok" and target.expected_bytes is not None and len(body) != target.expected_bytes:
                outcome = "failed"
            request.outcome = outcome
            request.trace = json.loads(response.headers.get(TRACE, "[]"))
    request.done_s = time.monotonic() - start


def _relative(requests: list[Sent], start: float) -> list[Sent]:
    """Times that the server told, made relative to the start too (one machine, one monotonic clock)."""
    for request in requests:
        for visit in request.trace:
            visit[2:5] = [t - start for t in visit[2:5]]
    return requests
