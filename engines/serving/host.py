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
from collections import Counter
from typing import Any, cast

import uvloop

from windtunnel.engines.models import calls
from windtunnel.engines.models.deadlines import Deadlines
from windtunnel.engines.models.deployment import Deployment, Limits, give_up, late
from windtunnel.engines.models.tokens import fits
from windtunnel.engines.serving import completions, pages
from windtunnel.engines.serving.crew import Crew, Settings
from windtunnel.engines.serving.door import Door
from windtunnel.engines.serving.exchange import Exchange, Job
from windtunnel.engines.serving.messages import BYTES, GONE, Answer, Request, sentence
from windtunnel.engines.serving.mounted import mount
from windtunnel.engines.serving.process import Told
from windtunnel.engines.serving.streamed import EVENTS, lengths
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import EMULATED, reply
from windtunnel.errors import InputError
from windtunnel.spec.units import parse_seconds

DRAIN_S = 10.0


class Host:
    """All deployments, asked through doors."""

    def __init__(self, told: Told, limits: Limits, settings: Settings) -> None:
        self.most_bytes = told.max_body
        self.draining = False
        self._crew = Crew(told.deployments, limits, settings, self._tell)
        self.deployments = self._crew.deployments
        self._told = told
        self._ingress = self.deployments[told.deployments[0].name]
        self._emulated = settings.work in EMULATED
        self._tokens = told.deployments[0].tokens
        self.stream_kind = EVENTS if self._tokens else BYTES
        self._counts: Counter[str] = Counter()
        self._times = pages.Histogram()
        self._deadlines = Deadlines(told.timeout_s)
        self._openapi = json.dumps(pages.openapi(told.max_body, told.timeout_s)).encode()
        self._ready = False
        self._number = 0  # of requests of OpenAI's interface

    async def open(self) -> None:
        """Start the replicas."""
        await self._crew.open()
        self._ready = True
        print("ready", flush=True)
        self._tell()

    async def close(self) -> None:
        """End the replicas."""
        self._ready = False
        await self._crew.close()

    def told(self, lines: bytes, over: asyncio.Event) -> None:
        """What comes on its input: the order to kill its busiest replica, or the end."""
        if not lines:
            over.set()
        for _ in range(lines.count(b"kill")):
            self._crew.kill_busiest()

    def _tell(self) -> None:
        """Say how many replicas there are, whenever that has changed."""
        if self._ready:
            counts = {name: len(d.ready) for name, d in self.deployments.items()}
            print(json.dumps([time.monotonic(), counts]), flush=True)

    # -- requests -----------------------------------------------------------------------------------------------------------------

    def takes(self, path: str) -> bool:
        """The first deployment's path, and where tokens are computed those of OpenAI's interface."""
        return path == "/" or (self._tokens is not None and path in completions.PATHS)

    async def answer(self, request: Request) -> Answer:
        """One request; each way out is counted under its status."""
        request.begun_s = time.monotonic()
        if request.path in completions.PATHS:
            return await self._complete(request)
        return await self._counted(request)

    async def _complete(self, request: Request) -> Answer:
        """A request of OpenAI's interface, put to the emulated model in its own words."""
        self._number += 1
        try:
            asked = completions.Completion(request.body, completions.PATHS[request.path], self._ingress.spec.name, self._number)
        except InputError as error:
            status = 404 if isinstance(error, completions.UnknownModel) else 400
            self.count(status)
            return completions.refused(status, str(error))
        part, request.body = request.part, asked.body
        request.part = (lambda data: part(asked.piece(data))) if asked.stream and part is not None else None
        answer = await self._counted(request)
        if answer.status != 200:
            return completions.refused(answer.status, answer.body.decode(), *answer.more)
        return answer if asked.stream else asked.whole()

    async def _counted(self, request: Request) -> Answer:
        asked = calls.Request()
        try:
            answer = self._unfit(asked, request.body) or await self._asked(asked, request)
        except asyncio.CancelledError:
            self.count(GONE)
            raise
        finally:
            if not asked.over:
                give_up(asked, time.monotonic())
            request.task, request.body = None, b""  # whoever still knows of it keeps no memory of it
        self.count(answer.status)
        self._times.add(time.monotonic() - request.begun_s)
        return answer

    async def _asked(self, asked: calls.Request, request: Request) -> Answer:
        """The outcome that the model tells, as an answer."""
        exchange = asked.load = Exchange(request.body, asyncio.get_running_loop().create_future(), request.part)
        self._watch(asked, request)
        call = calls.Call(asked, self._ingress, None)
        call.load = Job(request.body)
        self._ingress.submit(call, request.begun_s)
        outcome = await exchange.ended
        asked.load = None
        if outcome == "ok":
            body = reply(request.body, self._told.response_bytes) if self._emulated else exchange.body
            return Answer(200, body, (f"{TRACE}: {json.dumps(exchange.trace)}",) if request.trace else ())
        if outcome == "rejected":
            return sentence(503, f"overloaded: {self._why(asked)}", "Retry-After: 1")
        if outcome == "timed_out":
            return sentence(408, f"the request took longer than its deadline of {self._told.timeout_s:g} s")
        return sentence(500, exchange.error or "a replica died with the request")

    def _watch(self, asked: calls.Request, request: Request) -> None:
        """It has its deadline, or that of its client where this comes first."""
        loop = asyncio.get_running_loop()
        if request.most_s is not None and request.most_s < self._deadlines.seconds:
            asked.deadline_s = request.begun_s + request.most_s
            loop.call_later(max(request.most_s, 0.0), self._expire_one, asked)
        elif self._deadlines.watch(asked, request.begun_s):
            loop.call_later(self._deadlines.seconds, self._expire)

    def _expire_one(self, asked: calls.Request) -> None:
        if not asked.over:
            late(asked, self._crew.hands, time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        found, again_s = self._deadlines.look(now)
        if again_s >= 0:
            asyncio.get_running_loop().call_later(again_s, self._expire)
        for asked in found:
            late(asked, self._crew.hands, now)

    def _why(self, asked: calls.Request) -> str:
        """Of a refusal."""
        by = cast("Deployment", asked.refused_by)
        limit = by.limits.queue_limit
        if limit is not None and by.waiting >= limit:
            return f"{by.waiting} requests wait for {by.spec.name!r}; at most {limit} may"
        return f"an answer of {by.spec.name!r} would take about {by.takes_s():.1f} s, too long for the request's deadline"

    def _unfit(self, asked: calls.Request, body: bytes) -> Answer | None:
        """The refusal of what asks for no tokens, or for more than memory will ever hold."""
        if self._tokens is None:
            return None
        try:
            _, prompt, output = lengths(body)
        except InputError as error:
            return sentence(400, str(error))
        asked.tokens = prompt, output
        if fits(self._tokens, prompt, output):
            return None
        most = self._tokens.kv_tokens
        return sentence(413, f"{prompt} tokens of a prompt and {output} of an answer do not fit into memory for {most}")

    # -- pages --------------------------------------------------------------------------------------------------------------------

    def count(self, status: int) -> None:
        """One more answer."""
        self._counts[str(status)] += 1

    def page(self, method: str, path: str) -> Answer:
        """What the host says of itself."""
        if path == completions.MODELS and self._tokens is not None and method in ("GET", "HEAD"):
            return completions.models(self._ingress.spec.name)
        if self.takes(path):
            return sentence(405, "ask with POST", "Allow: POST")
        found = {"/-/healthz": self._health, "/-/metrics": self._metrics, "/-/openapi.json": self._document}.get(path)
        if found is None:
            return sentence(
                404, "there is nothing here; POST / asks the first deployment, /-/openapi.json says what else there is"
            )
        return found() if method in ("GET", "HEAD") else sentence(405, "ask with GET", "Allow: GET, HEAD")

    def _health(self) -> Answer:
        if not self._ready or self.draining:
            return sentence(503, "stopping")
        silent = [(d, r.number, r.process.silent_s) for d in self.deployments.values() for r in d.ready if r.process.is_silent]
        short = [
            name
            for name, d in self.deployments.items()
            if d.spec.replicas.minimum and len(d.ready) == sum(d is other for other, _, _ in silent)
        ]
        told = "; ".join(f"replica {n} of {d.spec.name!r} has not been heard of for {s:.1f} s" for d, n, s in silent)
        if short:
            return sentence(503, "; ".join([f"no replica of: {', '.join(short)}", *([told] if told else [])]))
        return sentence(200, f"ok; {told}" if told else "ok")

    def _metrics(self) -> Answer:
        text = pages.metrics(self._counts, self._times, self.deployments.values())
        return Answer(200, text.encode(), kind="text/plain; version=0.0.4; charset=utf-8")

    def _document(self) -> Answer:
        return Answer(200, self._openapi, kind="application/json")


def _grpc_door(host: Host, told: Told) -> Any:
    from windtunnel.engines.serving.grpc_door import GrpcDoor  # its library is heavy

    return GrpcDoor(host, told.options["host"], told.options["grpc_port"])


async def serve(told: Told, limits: Limits, settings: Settings) -> None:
    """Until SIGTERM, SIGINT or the end of standard input."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    host = Host(told, limits, settings)
    loop.add_reader(0, lambda: host.told(os.read(0, 4096), over))
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
    limits = Limits(
        choice=options["choice"], queue_limit=options["max_queued_requests"], retries=options["retries"], paced=True, central=True,
        lookback_s=parse_seconds(options["lookback"]), seed=options["seed"],
    )  # fmt: skip
    settings = Settings(work=options["work"], seed=options["seed"], hang_s=parse_seconds(options["hang_timeout"]))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    uvloop.run(serve(told, limits, settings))


if __name__ == "__main__":
    main()
