"""A user's ASGI application (FastAPI, Starlette, …) beside the host's own paths: uvicorn's protocol on the host's connections.

The module owns the application's life. It knows no deployment.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from windtunnel.errors import InputError


class Mounted:
    """An application that runs."""

    def __init__(self, app: Any) -> None:
        self._config = uvicorn.Config(app, http="httptools", log_level="error", access_log=False)
        self._config.load()
        self._lifespan = self._config.lifespan_class(self._config)
        self._state = ServerState()

    async def open(self) -> None:
        """Its start-up. Raises InputError when it fails."""
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise InputError("the mounted application failed in its start-up")

    def protocol(self) -> asyncio.Protocol:
        """Answers one connection."""
        made: Any = self._config.http_protocol_class
        return cast("asyncio.Protocol", made(config=self._config, server_state=self._state, app_state=self._lifespan.state))

    async def close(self, seconds: float) -> None:
        """Answer what is inside, then its shut-down."""
        for connection in list(self._state.connections):
            connection.shutdown()
        while self._state.connections and seconds > 0:
            await asyncio.sleep(0.02)
            seconds -= 0.02
        await self._lifespan.shutdown()


async def mount(name: str) -> Mounted:
    """The application ``module:name``, started. Raises InputError."""
    module, _, attribute = name.partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"option app = {name!r} must be module:name of an ASGI application: {error}") from error
    mounted = Mounted(app)
    await mounted.open()
    return mounted
