"""A thin HTTP front before an engine that has no server of its own: Dask's workers, Spark's stream, or a batch engine in micro-batches.

It runs as `python -m windtunnel.engines.serving.fronts`. The front is the embedded host's HTTP door; what follows is the engine's:
a Dask task for every request, a line for Spark's stream, or rounds in which all that waits is shared among worker processes, and the
next round begins when the last one of this round is done (what a batch engine gives when it is asked to serve). Deployments that the
first one calls run in the same worker, one after another. The module knows no queueing rule of the embedded host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from windtunnel.engines.serving.door import Door
from windtunnel.engines.serving.messages import BYTES, GONE, Answer, Request, sentence
from windtunnel.engines.serving.process import Told
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import EMULATED, Chain, reply
from windtunnel.spec.units import parse_seconds

DRAIN_S = 10.0
Visits = list[list[Any]]
#: an answer, and where its time went
Served = tuple[bytes, Visits]

_held: Chain | None = None  # of a worker process


def _hold_in_pool(told: Told, number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front's to handle: it drains
    hold(told, number)


def hold(told: Told, number: int) -> None:
    """Load what this worker runs, once."""
    global _held
    _held = Chain(told.deployments, told.options["work"], told.options["seed"], number)
    time.sleep(max(d.startup_s for d in told.deployments))


def hold_once(told: Told, number: int) -> None:
    """`hold`, where nobody says when a worker starts."""
    if _held is None:
        hold(told, number)


def work(bodies: Sequence[bytes]) -> list[Served]:
    """In a worker process."""
    assert _held is not None
    return _held(list(bodies))


class Behind(Protocol):
    """The engine behind the front."""

    async def open(self) -> None:
        """Start its workers."""

    async def ask(self, body: bytes) -> Served:
        """One request."""

    async def close(self) -> None:
        """End its workers."""


class Rounds:
    """Micro-batches on worker processes: all that waits, shared evenly, then a barrier."""

    def __init__(self, told: Told) -> None:
        self._told, self._count = told, told.deployments[0].replicas.minimum
        self._trigger_s = parse_seconds(told.options["trigger"])
        self._waiting: list[tuple[bytes, asyncio.Future]] = []
        self._some = asyncio.Event()
        self._pools: list[ProcessPoolExecutor] = []
        self._loop_task: asyncio.Task | None = None

    async def open(self) -> None:
        """One pool a worker, so that each share has its own process."""
        spawn = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_hold_in_pool, initargs=(self._told, i))
            for i in range(self._count)
        ]
        await asyncio.gather(*(self._run(pool, ()) for pool in self._pools))
        self._loop_task = asyncio.create_task(self._rounds())

    async def ask(self, body: bytes) -> Served:
        """Wait for the next round."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((body, done))
        self._some.set()
        answer: Served = await done
        return answer

    async def _rounds(self) -> None:
        while True:
            begun = time.monotonic()
            await self._some.wait()
            self._some.clear()
            batch = [(body, done) for body, done in self._waiting if not done.done()]
            self._waiting = []
            await asyncio.gather(*(self._share(pool, batch[i :: self._count]) for i, pool in enumerate(self._pools)))
            await asyncio.sleep(max(0.0, begun + self._trigger_s - time.monotonic()))

    async def _share(self, pool: ProcessPoolExecutor, share: list[tuple[bytes, asyncio.Future]]) -> None:
        if not share:
            return
        try:
            answers: list[Any] = await self._run(pool, [body for body, _ in share])
        except Exception as error:  # the handler's, or the process died
            answers = [error] * len(share)
        for (_, done), answer in zip(share, answers, strict=True):
            if done.done():
                continue
            done.set_exception(answer) if isinstance(answer, Exception) else done.set_result(answer)

    async def _run(self, pool: ProcessPoolExecutor, bodies: Sequence[bytes]) -> list[Served]:
        return await asyncio.get_running_loop().run_in_executor(pool, work, bodies)

    async def close(self) -> None:
        """End the processes."""
        if self._loop_task is not None:
            self._loop_task.cancel()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


class Front:
    """What the door asks: a bound on what waits, a deadline, counts."""

    def __init__(self, told: Told, behind: Behind) -> None:
        self.most_bytes, self.draining, self.stream_kind = told.max_body, False, BYTES
        self._told, self._behind = told, behind
        self._inside = 0
        self._counts: Counter[int] = Counter()

    def takes(self, path: str) -> bool:
        """The first deployment's path."""
        return path == "/"

    async def answer(self, request: Request) -> Answer:
        """One request; each way out is counted."""
        self._inside += 1
        try:
            answer = await self._guarded(request)
        except asyncio.CancelledError:
            self.count(GONE)
            raise
        finally:
            self._inside -= 1
        self.count(answer.status)
        return answer

    async def _guarded(self, request: Request) -> Answer:
        most = self._told.options["max_queued_requests"]
        if self._inside > most:
            return sentence(503, f"overloaded: {most} requests are inside", "Retry-After: 1")
        queued = time.monotonic()
        try:
            async with asyncio.timeout(self._told.timeout_s):
                body, visits = await self._behind.ask(request.body)
        except TimeoutError:
            return sentence(408, f"the request took longer than its deadline of {self._told.timeout_s:g} s")
        except BrokenProcessPool:
            return sentence(500, "a worker process died with the request")
        except Exception as error:  # of the handler, in another process
            return sentence(500, f"{type(error).__name__}: {error}")
        for visit in visits[:1]:
            visit[2] = queued
        if self._told.options["work"] in EMULATED:
            body = reply(request.body, self._told.response_bytes)
        return Answer(200, body, (f"{TRACE}: {json.dumps(visits)}",) if request.trace else ())

    def page(self, method: str, path: str) -> Answer:
        """Health and counts."""
        if path == "/":
            return sentence(405, "ask with POST", "Allow: POST")
        if path == "/-/healthz":
            return sentence(503, "stopping") if self.draining else sentence(200, "ok")
        if path == "/-/metrics":
            lines = [f'windtunnel_requests_total{{status="{s}"}} {n}' for s, n in sorted(self._counts.items())]
            return Answer(
                200, "\n".join([*lines, f"windtunnel_ongoing {self._inside}", ""]).encode(), kind="text/plain; version=0.0.4"
            )
        return sentence(404, "there is nothing here; POST / asks the first deployment")

    def count(self, status: int) -> None:
        """One more answer."""
        self._counts[status] += 1


def _behind(told: Told) -> Behind:
    if told.options["behind"] == "dask":
        from windtunnel.engines.serving.dask_tasks import DaskTasks

        return DaskTasks(told)
    if told.options["behind"] == "spark":
        from windtunnel.engines.serving.spark_stream import SparkStream

        return SparkStream(told)
    return Rounds(told)


async def serve(told: Told) -> None:
    """Until SIGTERM, SIGINT or the end of standard input."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_reader(0, lambda: None if os.read(0, 4096) else over.set())
    behind = _behind(told)
    front = Front(told, behind)
    door = Door(front, parse_seconds(told.options["client_timeout"]), told.options["max_connections"])
    sweep = loop.create_task(door.sweep())
    try:
        await behind.open()
        server = await loop.create_server(door.connection, sock=socket.socket(fileno=told.fd), backlog=2048)
        print("ready", flush=True)
        await over.wait()
        front.draining = True
        server.close()
        await door.drain(DRAIN_S)
    finally:
        sweep.cancel()
        with contextlib.suppress(Exception):
            await behind.close()


def main() -> None:
    """Entry point."""
    asyncio.run(serve(Told.read()))


if __name__ == "__main__":
    from windtunnel.engines.serving import fronts  # so that workers find what they are sent in a module, not in __main__

    fronts.main()
