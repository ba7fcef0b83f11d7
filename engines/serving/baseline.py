"""What a user would write instead: a FastAPI application under uvicorn, as many worker processes as the scenario has replicas.

Deployments that the first one calls are functions called in the same process: no queue, no router, no bound on what waits. It
runs as `python -m windtunnel.engines.serving.baseline`; the workers share one inherited socket, as `uvicorn --workers` does.
"""

from __future__ import annotations

import json

from fastapi import FastAPI, Request, Response

from windtunnel.engines.serving.process import Told, serve_app
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import EMULATED, Chain, reply


def build(told: Told) -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None)
    kind, seed = told.options["work"], told.options["seed"]
    chain = Chain(told.deployments, kind, seed, told.number)

    @app.get("/-/healthz")
    async def health() -> str:
        return "ok"

    @app.post("/")
    async def answer(request: Request) -> Response:
        body = await request.body()
        ((content, trace),) = chain([body])
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
