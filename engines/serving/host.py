"""The embedded serving host: HTTP in, a deployment's queue, a replica process, the deployments it calls, HTTP out.

It runs as a process of its own (`python -m windtunnel.engines.serving.host`), told by one line of JSON; the listening socket is
inherited. SIGTERM or the end of its input drains it: requests inside are answered, then the replicas end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from windtunnel.engines.serving.deployment import Deployment, Overloaded, ReplicaDied, Rules
from windtunnel.engines.serving.process import Told, serve_app
from windtunnel.engines.serving.wire import TRACE

from windtunnel.serving import Calls


class Host:
    """The application: routes, deadlines, counts."""

    def __init__(self, told: Told, rules: Rules) -> None:
        self._told = told
        self._deployments = {d.name: Deployment(d, i, rules) for i, d in enumerate(told.deployments)}
        self._ingress = told.deployments[0].name
        self._counts: Counter[str] = Counter()
        self._ready = False

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/-/healthz", self._health, methods=["GET"]),
            Route("/-/metrics", self._metrics, methods=["GET"]),
            Route("/", self._answer, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._life)

    @contextlib.asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        try:
            await asyncio.gather(*(d.open() for d in self._deployments.values()))
            self._ready = True
            yield
        finally:
            self._ready = False
            await asyncio.gather(*(d.close() for d in self._deployments.values()))

    async def _answer(self, request: Request) -> Response:
        """One request; each way out is counted under its status."""
        response = await self._guarded(request)
        self._counts[str(response.status_code)] += 1
        return response

    async def _guarded(self, request: Request) -> Response:
        try:
            body = await read_body(request, self._told.max_body)
        except ClientDisconnect:
            return PlainTextResponse("the client left before its body was complete\n", 400)
        if isinstance(body, Response):
            return body
        trace: list[list[Any]] = []
        work = asyncio.create_task(self._visit(self._ingress, body, trace))
        try:
            await asyncio.wait_for(work, self._told.timeout_s)
        except TimeoutError:
            return PlainTextResponse(f"the request took longer than its deadline of {self._told.timeout_s:g} s\n", 408)
        except Overloaded as error:
            return PlainTextResponse(f"overloaded: {error}\n", 503, {"Retry-After": "1"})
        except ReplicaDied as error:
            return PlainTextResponse(f"{error}\n", 500)
        headers = {TRACE: json.dumps(trace)} if TRACE in request.headers else {}
        size = self._told.response_bytes
        return Response(body if size is None else bytes(size), headers=headers, media_type="application/octet-stream")

    async def _visit(self, name: str, body: bytes, trace: list[list[Any]]) -> None:
        """A deployment's own work, then what it calls; its place is held until they are done."""
        deployment = self._deployments[name]
        replica, queued, begun, ended, items = await deployment.call(body)
        try:
            trace.append([name, replica.number, queued, begun, ended, items])
            await self._in_order(deployment.spec.calls, body, trace)
        finally:
            deployment.release(replica)

    async def _in_order(self, calls: Calls, body: bytes, trace: list[list[Any]]) -> None:
        for item in calls:
            if isinstance(item, str):
                await self._visit(item, body, trace)
            else:
                await self._side_by_side(item, body, trace)

    async def _side_by_side(self, calls: Calls, body: bytes, trace: list[list[Any]]) -> None:
        tasks = [
            asyncio.create_task(self._visit(c, body, trace) if isinstance(c, str) else self._in_order(c, body, trace))
            for c in calls
        ]
        try:
            await asyncio.gather(*tasks)
        finally:  # one branch refused: the others work for nobody
            for task in tasks:
                task.cancel()

    async def _health(self, request: Request) -> Response:
        short = [d.spec.name for d in self._deployments.values() if not d.replicas]
        if short or not self._ready:
            return PlainTextResponse(f"no replica of: {', '.join(short)}\n" if short else "stopping\n", 503)
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        lines = ["# TYPE windtunnel_requests_total counter"]
        lines += [f'windtunnel_requests_total{{status="{s}"}} {n}' for s, n in sorted(self._counts.items())]
        names = ("calls", "rejected", "retries", "replicas_lost")
        for what in names:
            lines.append(f"# TYPE windtunnel_{what}_total counter")
            for name, d in self._deployments.items():
                lines.append(f"windtunnel_{what}_total{{deployment={json.dumps(name)}}} {d.counts[what]}")
        for what in ("queue", "ongoing", "replicas"):
            lines.append(f"# TYPE windtunnel_{what} gauge")
            for name, d in self._deployments.items():
                value = {"queue": len(d.queue), "ongoing": sum(r.ongoing for r in d.replicas), "replicas": len(d.replicas)}[what]
                lines.append(f"windtunnel_{what}{{deployment={json.dumps(name)}}} {value}")
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


async def read_body(request: Request, most: int) -> bytes | Response:
    """The body, or the answer to one that is too long or says that it is JSON and is not."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return PlainTextResponse(f"the body is longer than the limit of {most} bytes\n", 413)
        parts.append(part)
    body = b"".join(parts)
    if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return PlainTextResponse("the body says it is JSON and cannot be read as JSON\n", 400)
    return body


def main() -> None:
    """Entry point."""
    told = Told.read()
    rules = Rules(
        choice=told.options["choice"], work=told.options["work"], seed=told.options["seed"],
        queue_limit=told.options["max_queued_requests"], retries=told.options["retries"],
    )  # fmt: skip
    serve_app(Host(told, rules).app(), told)


if __name__ == "__main__":
    main()
