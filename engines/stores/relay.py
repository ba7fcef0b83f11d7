"""A relay that makes a store on loopback look far away: ``python -m windtunnel.engines.stores.relay``, told its settings on one line.

Each HTTP request waits half of a drawn latency before it goes on and half before its answer does; bodies pass through one pipe of a given
bandwidth a direction. A share of requests is refused with 503 before it reaches the store (throttling), a share of answers is cut in the
middle of the body. The port is told on standard output; the relay ends when its standard input does. A line of the log is a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

PIECE = 1 << 16
HEAD_LIMIT = 1 << 20
_SLOW_DOWN = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``latency_s``: mean by HTTP method, "" for all others; ``cv``: of the lognormal around it; bandwidth 0: no limit."""

    upstream: int
    latency_s: Mapping[str, float] = field(default_factory=dict)
    cv: float = 0.0
    bytes_per_s: float = 0.0
    refused: float = 0.0
    cut: float = 0.0
    seed: int = 7
    log: str = ""

    def draw_s(self, method: str, dice: random.Random) -> float:
        """A latency."""
        mean = self.latency_s.get(method, self.latency_s.get("", 0.0))
        if not mean or not self.cv:
            return mean
        spread = math.sqrt(math.log1p(self.cv * self.cv))
        return mean * math.exp(spread * dice.gauss(0.0, 1.0) - spread * spread / 2)


class Pipe:
    """Bytes of one direction, one after another at the bandwidth."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate, self._free_s = bytes_per_s, 0.0

    async def send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        """Write piece by piece, each when the pipe has had the time for it."""
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            if self._rate:
                self._free_s = max(self._free_s, time.monotonic()) + len(piece) / self._rate
                await asyncio.sleep(self._free_s - time.monotonic())
            writer.write(piece)
            await writer.drain()


@dataclass(slots=True)
class Message:
    """A request or an answer: its first line, its head as it came, and its body as it came; ``who``: the key that signed it."""

    first: list[str]
    head: bytes
    body: bytes
    closes: bool
    who: str


async def read_message(
    reader: asyncio.StreamReader, *, bodyless: bool = False, answer: bool = False, ready: Any = None
) -> Message:
    """The next message of a connection. Raises IncompleteReadError at its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
    if "expect" in headers and ready is not None:
        ready(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
    first = lines[0].split(" ", 2)
    none = bodyless or (answer and first[1] in ("204", "304"))
    if none:
        body = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read() if answer else b""
    who = headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
    return Message(first, head, body, headers.get("connection", "").lower() == "close", who)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = []
    while True:
        line = await reader.readuntil(b"\r\n")
        found.append(line)
        size = int(line.split(b";")[0], 16)
        found.append(await reader.readexactly(size + 2))
        if not size:
            return b"".join(found)


class Relay:
    """All connections share the pipes and the dice."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._dice = settings, random.Random(settings.seed)
        self._up, self._down = Pipe(settings.bytes_per_s), Pipe(settings.bytes_per_s)
        self._log: TextIO | None = open(settings.log, "a", encoding="utf-8", buffering=1) if settings.log else None  # noqa: SIM115

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one of its own to the store."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                request = await read_message(reader, ready=writer.write)
                begun = time.monotonic()
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self._settings.upstream, limit=HEAD_LIMIT)
                status, going = await self._request(request, upstream, writer)
                if self._log:
                    told = {
                        "who": request.who, "t": begun, "s": time.monotonic() - begun, "method": request.first[0],
                        "path": request.first[1], "status": status,
                    }  # fmt: skip
                    self._log.write(json.dumps(told) + "\n")
                if going == "closed":
                    break
                if going == "upstream closed":
                    upstream[1].close()
                    upstream = None
        for end in (writer, *(upstream[1:] if upstream else ())):
            end.close()

    async def _request(self, request: Message, upstream: Any, writer: asyncio.StreamWriter) -> tuple[str, str]:
        """(status of the answer, what becomes of the connections)."""
        method = request.first[0]
        latency = self._settings.draw_s(method, self._dice)
        refused, cut = self._dice.random() < self._settings.refused, self._dice.random() < self._settings.cut
        await asyncio.sleep(latency / 2)
        if refused:
            await asyncio.sleep(latency / 2)
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(_SLOW_DOWN)
                + _SLOW_DOWN
            )
            await writer.drain()
            return "503", "closed" if request.closes else ""
        upstream[1].write(request.head)
        await self._up.send(upstream[1], request.body)
        answer = await read_message(upstream[0], bodyless=method == "HEAD", answer=True)
        await asyncio.sleep(latency / 2)
        writer.write(answer.head)
        if cut and len(answer.body) > 1:
            await self._down.send(writer, answer.body[: len(answer.body) // 2])
            return "cut", "closed"
        await self._down.send(writer, answer.body)
        await writer.drain()
        if request.closes:
            return answer.first[1], "closed"
        return answer.first[1], "upstream closed" if answer.closes else ""


async def run(settings: Settings) -> None:
    """Serve on loopback until standard input ends."""
    relay = Relay(settings)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=HEAD_LIMIT)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> int:
    """Entry point."""
    settings = Settings(**json.loads(sys.stdin.readline()))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
