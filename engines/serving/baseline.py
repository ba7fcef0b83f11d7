"""What a user would write instead: a FastAPI application under uvicorn, as many worker processes as the scenario has replicas.

Deployments that the first one calls are functions called in the same process: no queue, no router, no bound on what waits. It
runs as `python -m windtunnel.engines.serving.baseline`; the workers share one inherited socket, as `uvicorn --workers` does.
"""

from __future__ import annotations

import json
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from windtunnel.engines.serving.process import Told, serve_app
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import EMULATED, handler, reply

from windtunnel.serving import Calls


def build(told: Told) -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None)
    kind, seed = told.options["work"], told.options["seed"]
    specs = {d.name: d for d in told.deployments}
    work = {d.name: handler(d.cost, kind, seed, i, told.number) for i, d in enumerate(told.deployments)}

    def visit(name: str, body: bytes, trace: list[list[Any]]) -> bytes:
        begun = time.monotonic()
        answer = b"".join(work[name]([body]))
        trace.append([name, told.number, begun, begun, time.monotonic(), 1])
        follow(specs[name].calls, body, trace)
        return answer

    def follow(calls: Calls, body: bytes, trace: list[list[Any]]) -> None:
        for item in calls:
            visit(item, body, trace) if isinstance(item, str) else follow(item, body, trace)

    @app.get("/-/healthz")
    async def health() -> str:
        return "ok"

    @app.post("/")
    async def answer(request: Request) -> Response:
        body = await request.body()
        trace: list[list[Any]] = []
        content = visit(told.deployments[0].name, body, trace)
        headers = {TRACE: json.dumps(trace)} if TRACE in request.headers else {}
        if kind in EMULATED:
            content = reply(body, told.response_bytes)
        return Response(content, headers=headers, media_type="application/octet-stream")

    return app


def main() -> None:
    """Entry point of one worker."""
    told = Told.read()
    serve_app(build(told), told)


if __name__ == "__main__":
    main()
