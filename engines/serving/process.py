"""How a serving process is told what to do, serves an inherited socket, and ends: shared by the host and the FastAPI baseline.

The module owns the process's life. It knows no deployment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from windtunnel.spec.serving import DeploymentSpec, deployment_from_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a serving process is told: to serve the inherited socket ``fd``, or to listen on ``port`` itself.

    ``response_bytes`` None: the answer is the request's body.
    """

    deployments: tuple[DeploymentSpec, ...]
    options: Mapping[str, Any]
    fd: int
    port: int
    number: int
    timeout_s: float
    max_body: int
    response_bytes: int | None

    @classmethod
    def read(cls) -> Told:
        """From one line of JSON on standard input."""
        data = json.loads(sys.stdin.buffer.readline())
        return cls(**{**data, "deployments": tuple(deployment_from_plain(d) for d in data["deployments"])})


class _Server(uvicorn.Server):
    """Says on standard output that it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", flush=True)


def serve_app(app: Any, told: Told) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input; then answer what is inside and return."""
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="on", timeout_keep_alive=30, timeout_graceful_shutdown=10, backlog=2048
    )
    threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    server = _Server(config)
    server.run(sockets=[socket.socket(fileno=told.fd)])


def _watch_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
