"""The embedded serving host: a request in, a deployment's queue, a replica process, the deployments it calls, an answer out.

It runs as a process of its own (`python -m windtunnel.engines.serving.host`), told by one line of JSON; the listening socket is
inherited. SIGTERM or the end of its input drains it: requests inside are answered, then the replicas end. The module owns deadlines,
the way through the deployments, and counts. Doors (`door`: HTTP, `grpc_door`: gRPC) own what a request looks like outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import time
from collections import Counter, deque
from typing import Any

import uvloop

from windtunnel.engines.serving import pages
from windtunnel.engines.serving.deployment import Deployment, Overloaded, ReplicaDied, Rules
from windtunnel.engines.serving.door import Door
from windtunnel.engines.serving.messages import BYTES, GONE, Answer, Request, sentence
from windtunnel.engines.serving.mounted import mount
from windtunnel.engines.serving.process import Told
from windtunnel.engines.serving.streamed import EVENTS, lengths
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import EMULATED, reply
from windtunnel.engines.serving.workers import HandlerFailed, Visit
from windtunnel.errors import InputError
from windtunnel.spec.serving import Calls, TokenSpec
from windtunnel.spec.units import parse_seconds

DRAIN_S = 10.0


class Host:
    """All deployments, asked through doors."""

    def __init__(self, told: Told, rules: Rules) -> None:
        self.most_bytes = told.max_body
        self.draining = False
        self.deployments = {d.name: Deployment(d, i, rules, self._tell) for i, d in enumerate(told.deployments)}
        self._told = told
        self._ingress = self.deployments[told.deployments[0].name]
        self._emulated = rules.work in EMULATED
        self._tokens = told.deployments[0].tokens
        self.stream_kind = EVENTS if self._tokens else BYTES
        self._counts: Counter[str] = Counter()
        self._times = pages.Histogram()
        self._deadlines = Deadlines(told.timeout_s)
        self._openapi = json.dumps(pages.openapi(told.max_body, told.timeout_s)).encode()
        self._ready = False

    async def open(self) -> None:
        """Start the replicas."""
        await asyncio.gather(*(d.open() for d in self.deployments.values()))
        self._ready = True
        print("ready", flush=True)
        self._tell()

    async def close(self) -> None:
        """End the replicas."""
        self._ready = False
        await asyncio.gather(*(d.close() for d in self.deployments.values()))

    def _tell(self) -> None:
        """Say how many replicas there are, whenever that has changed."""
        if self._ready:
            counts = {name: len(d.replicas) for name, d in self.deployments.items()}
            print(json.dumps([time.monotonic(), counts]), flush=True)

    # -- requests -----------------------------------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Answer:
        """One request; each way out is counted under its status."""
        request.begun_s = time.monotonic()
        try:
            answer = await self._guarded(request)
        except asyncio.CancelledError:
            if not request.expired:
                self.count(GONE)
                raise
            answer = self._late()
        finally:
            request.task, request.body = None, b""  # whoever still knows of it keeps no memory of it
        self.count(answer.status)
        self._times.add(time.monotonic() - request.begun_s)
        return answer

    async def _guarded(self, request: Request) -> Answer:
        if self._tokens is not None and (refusal := _unfit(request.body, self._tokens)):
            return refusal
        deadline_s = self._deadlines.watch(request)
        trace: list[list[Any]] = []
        try:
            visit = await self._visit(self._ingress, request.body, deadline_s, trace, request.part)
        except Overloaded as error:
            return sentence(503, f"overloaded: {error}", "Retry-After: 1")
        except TimeoutError:
            return self._late()
        except (ReplicaDied, HandlerFailed) as error:
            return sentence(500, str(error))
        body = reply(request.body, self._told.response_bytes) if self._emulated else visit.body
        return Answer(200, body, (f"{TRACE}: {json.dumps(trace)}",) if request.trace else ())

    def _late(self) -> Answer:
        return sentence(408, f"the request took longer than its deadline of {self._told.timeout_s:g} s")

    async def _visit(
        self, deployment: Deployment, body: bytes, deadline_s: float, trace: list[list[Any]], part: Any = None
    ) -> Visit:
        """A deployment's own work, then what it calls; its place is held until they are done."""
        visit = await deployment.call(body, deadline_s, part)
        try:
            trace.append([deployment.spec.name, visit.replica.number, *visit[1:5]])
            if deployment.spec.calls:
                await self._in_order(deployment.spec.calls, body, deadline_s, trace)
        finally:
            deployment.release(visit.replica)
        return visit

    async def _in_order(self, calls: Calls, body: bytes, deadline_s: float, trace: list[list[Any]]) -> None:
        for item in calls:
            if isinstance(item, str):
                await self._visit(self.deployments[item], body, deadline_s, trace)
            else:
                await self._side_by_side(item, body, deadline_s, trace)

    async def _side_by_side(self, calls: Calls, body: bytes, deadline_s: float, trace: list[list[Any]]) -> None:
        tasks = [asyncio.create_task(self._in_order((c,) if isinstance(c, str) else c, body, deadline_s, trace)) for c in calls]
        try:
            await asyncio.gather(*tasks)
        finally:  # one branch refused: the others work for nobody
            for task in tasks:
                task.cancel()

    # -- pages --------------------------------------------------------------------------------------------------------------------

    def count(self, status: int) -> None:
        """One more answer."""
        self._counts[str(status)] += 1

    def page(self, method: str, path: str) -> Answer:
        """What the host says of itself."""
        if path == "/":
            return sentence(405, "ask with POST", "Allow: POST")
        found = {"/-/healthz": self._health, "/-/metrics": self._metrics, "/-/openapi.json": self._document}.get(path)
        if found is None:
            return sentence(
                404, "there is nothing here; POST / asks the first deployment, /-/openapi.json says what else there is"
            )
        return found() if method in ("GET", "HEAD") else sentence(405, "ask with GET", "Allow: GET, HEAD")

    def _health(self) -> Answer:
        short = [name for name, d in self.deployments.items() if not d.replicas and d.spec.replicas.minimum]
        if short:
            return sentence(503, f"no replica of: {', '.join(short)}")
        return sentence(200, "ok") if self._ready and not self.draining else sentence(503, "stopping")

    def _metrics(self) -> Answer:
        text = pages.metrics(self._counts, self._times, self.deployments.values())
        return Answer(200, text.encode(), kind="text/plain; version=0.0.4; charset=utf-8")

    def _document(self) -> Answer:
        return Answer(200, self._openapi, kind="application/json")


def _unfit(body: bytes, spec: TokenSpec) -> Answer | None:
    """The refusal of what asks for no tokens, or for more than memory will ever hold."""
    try:
        _, prompt, output = lengths(body)
    except InputError as error:
        return sentence(400, str(error))
    if spec.kv_tokens is None or prompt + output - 1 <= spec.kv_tokens:
        return None
    return sentence(413, f"{prompt} tokens of a prompt and {output} of an answer do not fit into memory for {spec.kv_tokens}")


class Deadlines:
    """Cancels what takes too long. Requests have the same limit, so the oldest is always the next and one timer serves all;
    one with a shorter limit of its own has a timer of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, Request]] = deque()
        self._armed = False

    def watch(self, request: Request) -> float:
        """The monotonic time by which it must be answered."""
        if request.most_s is not None and request.most_s < self._seconds:
            asyncio.get_running_loop().call_later(max(request.most_s, 0.0), request.expire)
            return request.begun_s + request.most_s
        deadline_s = request.begun_s + self._seconds
        while self._waiting and self._waiting[0][1].task is None:  # answered long before
            self._waiting.popleft()
        self._waiting.append((deadline_s, request))
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(self._seconds, self._look)
        return deadline_s

    def _look(self) -> None:
        waiting, now = self._waiting, time.monotonic()
        while waiting and (waiting[0][0] <= now or waiting[0][1].task is None):
            waiting.popleft()[1].expire()
        self._armed = bool(waiting)
        if waiting:
            asyncio.get_running_loop().call_later(waiting[0][0] - now, self._look)


def _grpc_door(host: Host, told: Told) -> Any:
    from windtunnel.engines.serving.grpc_door import GrpcDoor  # its library is heavy

    return GrpcDoor(host, told.options["host"], told.options["grpc_port"])


async def serve(told: Told, rules: Rules) -> None:
    """Until SIGTERM, SIGINT or the end of standard input."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_reader(0, lambda: None if os.read(0, 4096) else over.set())
    host = Host(told, rules)
    grpc_door = _grpc_door(host, told) if told.options["grpc_port"] else None
    mounted = await mount(told.options["app"]) if told.options["app"] else None
    patience_s = parse_seconds(told.options["client_timeout"])
    door = Door(host, patience_s, told.options["max_connections"], mounted.protocol if mounted else None)
    server = await loop.create_server(door.connection, sock=socket.socket(fileno=told.fd), backlog=2048)
    sweep = loop.create_task(door.sweep())
    try:
        await host.open()
        if grpc_door:
            await grpc_door.open()
        await over.wait()
    finally:
        host.draining = True
        server.close()
        if grpc_door:
            await grpc_door.close(DRAIN_S)
        await door.drain(DRAIN_S)
        sweep.cancel()
        if mounted:
            await mounted.close(DRAIN_S)
        await host.close()


def main() -> None:
    """Entry point."""
    told = Told.read()
    options = told.options
    rules = Rules(
        choice=options["choice"], work=options["work"], seed=options["seed"], queue_limit=options["max_queued_requests"],
        retries=options["retries"], lookback_s=parse_seconds(options["lookback"]),
    )  # fmt: skip
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    uvloop.run(serve(told, rules))


if __name__ == "__main__":
    main()
