"""The load generator: sends each request at its intended time whether or not others were answered (open loop), or keeps a number
of clients busy (closed loop), and keeps four times of every request.

A latency counts from the *intended* time, so a server that stalls cannot hide the requests that it kept from being sent. Where one
process cannot hold the schedule, several share it, each a process of its own (`python -m windtunnel.engines.serving.load`) that
starts at the same moment of the machine's monotonic clock. `ceiling` measures what one process can do at most, against a server that
does nothing. The module knows no engine and no deployment.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import uvloop

from windtunnel.engines.serving.client import NUMBER_BITS, Client, Sent, Target

#: of what one process can do at most, the share that it is asked for: beyond it, requests leave late
SHARE = 0.4
_START_S = 1.0  # for processes to start before the first request
_PROBE_S = 0.5
_PROBE_CLIENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What to send: at ``times`` (open), or by ``clients`` with pauses for ``duration_s`` (closed).

    ``together``: the clients send as a group, and again when all of them are answered.
    """

    times: tuple[float, ...] = ()
    clients: int = 0
    duration_s: float = 0.0
    think_s: float = 0.0
    together: bool = False

    def parts(self, count: int) -> list[Loop]:
        """The same load for so many processes."""
        if not self.clients:
            return [Loop(times=self.times[i::count]) for i in range(count)]
        shares = [len(range(i, self.clients, count)) for i in range(count)] if not self.together else [self.clients]
        return [replace(self, clients=n) for n in shares if n]


async def open_loop(target: Target, times: Sequence[float], start: float | None = None, first: int = 0) -> list[Sent]:
    """Send at these times; returns all requests in order of their intended times, with every one accounted for."""
    requests = [Sent(t) for t in times]
    async with _client(target, start, first) as client:
        start = client.start
        left = len(requests)
        over = asyncio.Event()

        def done(_: Sent) -> None:
            nonlocal left
            left -= 1
            if not left:
                over.set()

        for number, request in enumerate(requests):
            while (wait := request.intended_s - (time.monotonic() - start)) > 0:
                await asyncio.sleep(wait)
            client.send(request, done)
            if number % 32 == 31:
                await asyncio.sleep(0)  # late or not, answers are read
        if requests:
            await over.wait()
    return _relative(requests, start)


async def closed_loop(target: Target, load: Loop, start: float | None = None, first: int = 0) -> list[Sent]:
    """Each client sends, waits for the answer (or for that of the last one of all), thinks, and sends again, until the duration is over."""
    requests: list[Sent] = []
    async with _client(target, start, first) as client:
        start = client.start
        await asyncio.sleep(max(start - time.monotonic(), 0.0))
        loop = asyncio.get_running_loop()
        busy, back = load.clients, 0
        over = asyncio.Event()

        def ask() -> None:
            nonlocal busy
            now = time.monotonic() - start
            if now < load.duration_s:
                request = Sent(now)
                requests.append(request)
                client.send(request, answered)
                return
            busy -= 1
            if not busy:
                over.set()

        def answered(_request: Sent) -> None:
            nonlocal back
            back += 1
            if load.together and back < load.clients:
                return
            for _ in range(load.clients if load.together else 1):
                if load.think_s > 0:
                    loop.call_later(load.think_s, ask)
                else:
                    loop.call_soon(ask)
            back = 0

        for _ in range(load.clients):
            ask()
        await over.wait()
    return _relative(requests, start)


def generate(target: Target, loop: Loop, processes: int = 1) -> list[Sent]:
    """Carry out a load, on this process or on several others; requests in order of their intended times."""
    if processes <= 1:
        return uvloop.run(_carry_out(target, loop, time.monotonic()))
    start = time.monotonic() + _START_S
    samples = [[base64.b64encode(part).decode() for part in pair] for pair in target.samples]
    told = {**asdict(replace(target, samples=())), "samples": samples}
    children = [
        subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in loop.parts(processes)
    ]
    sent: list[Sent] = []
    try:
        for number, (child, part) in enumerate(zip(children, loop.parts(processes), strict=True)):
            assert child.stdin is not None
            told["tokens"] = target.tokens[number::processes]  # as the times of the parts
            json.dump({"target": told, "start": start, "first": number << NUMBER_BITS, "loop": asdict(part)}, child.stdin)
            child.stdin.close()
        for child in children:
            assert child.stdout is not None
            sent += [Sent(*json.loads(line)) for line in child.stdout]
            if child.wait():
                raise ChildProcessError(f"a process of the load generator ended with code {child.returncode}")
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
    return sorted(sent, key=lambda r: r.intended_s)


def ceiling() -> float:
    """Requests/s that one process of the generator can send and see answered, by a server that does nothing."""
    server = subprocess.Popen(
        [sys.executable, "-m", "windtunnel.engines.serving.nothing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        probe = Loop(clients=_PROBE_CLIENTS, duration_s=_PROBE_S)
        sent = generate(Target(url=f"http://127.0.0.1:{port}/", trace=False, timeout_s=5.0), probe)
    finally:
        server.kill()
        server.wait()
    return sum(r.outcome == "ok" for r in sent) / _PROBE_S


def processes_for(rate_per_s: float, one_per_s: float) -> int:
    """How many processes hold a rate when one can do ``one_per_s`` at most; no more than there are CPUs."""
    return max(1, min(os.cpu_count() or 1, int(-(-rate_per_s // (SHARE * one_per_s)))))


async def _carry_out(target: Target, loop: Loop, start: float, first: int = 0) -> list[Sent]:
    if loop.clients:
        return await closed_loop(target, loop, start, first)
    return await open_loop(target, loop.times, start, first)


@contextlib.asynccontextmanager
async def _client(target: Target, start: float | None, first: int) -> AsyncIterator[Client]:
    client = Client(target, time.monotonic() if start is None else start, first)
    sweep = asyncio.get_running_loop().create_task(client.sweep())
    try:
        yield client
    finally:
        sweep.cancel()
        await client.close()


def _relative(requests: list[Sent], start: float) -> list[Sent]:
    """Times that the server told, made relative to the start too (one machine, one monotonic clock)."""
    for request in requests:
        for visit in request.trace:
            visit[2:5] = [t - start for t in visit[2:5]]
    return requests


def main() -> None:
    """Entry point of one process of several."""
    told: dict[str, Any] = json.load(sys.stdin)
    samples = tuple((base64.b64decode(body), base64.b64decode(answer)) for body, answer in told["target"].pop("samples"))
    target = Target(**told["target"], samples=samples)
    for request in uvloop.run(_carry_out(target, Loop(**told["loop"]), told["start"], told["first"])):
        print(json.dumps(astuple(request)))


if __name__ == "__main__":
    main()
