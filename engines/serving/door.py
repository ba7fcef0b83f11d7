"""The HTTP door of the host: all its connections, how many there may be, how long a client may take, and their end.

What a connection says is `connection`'s; what a request is answered with is `host`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from windtunnel.engines.serving.connection import Connection
from windtunnel.engines.serving.messages import Asked

Handover = Callable[[], asyncio.Protocol]


class Door:
    """All connections. ``patience_s``: how long a request may take to arrive, an answer to be read, an idle connection to be used."""

    def __init__(self, host: Asked, patience_s: float, most_connections: int, mounted: Handover | None = None) -> None:
        self.host, self.mounted = host, mounted
        self.patience_s, self.most = patience_s, most_connections
        self.connections: set[Connection] = set()

    def connection(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self)

    async def sweep(self) -> None:
        """Close connections whose client takes too long, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.patience_s / 4))
            late = time.monotonic() - self.patience_s
            for connection in list(self.connections):
                connection.look(late)

    async def drain(self, seconds: float) -> None:
        """Answer what is inside, then close."""
        end = time.monotonic() + seconds
        while self.connections and time.monotonic() < end:
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
