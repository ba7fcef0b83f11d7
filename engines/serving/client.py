"""HTTP connections of the load generator: one request at a time each, kept open, as many as it takes.

Nothing waits here: a request without a free connection opens one. The parser is httptools', the one that uvicorn uses. The module
owns sockets and the times of a request; what to send when is `load`'s.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from windtunnel.engines.serving import streamed
from windtunnel.engines.serving.wire import TRACE
from windtunnel.engines.serving.work import reply

OUTCOMES = {503: "rejected", 429: "rejected", 413: "rejected", 408: "timed_out", 504: "timed_out"}
NUMBER_BITS = 40  # of the numbers of one process's requests
_SWEEP_S = 0.25  # how often requests that take too long are given up
_TRACE = TRACE.encode()


@dataclass(slots=True)
class Sent:
    """One request; times are seconds since the start of the run. ``trace``: visits as the server told them, monotonic times.

    ``tokens``: how many it asked for, where answers are streams of tokens.
    """

    intended_s: float
    sent_s: float = 0.0
    first_byte_s: float = 0.0
    done_s: float = 0.0
    outcome: str = "failed"
    trace: list[list] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, what, and what the answers must be.

    Without ``samples`` each request has a body of its own of ``body_bytes``, and its answer must be that body, repeated or cut to
    ``answer_bytes`` (None: any answer will do). With ``samples`` (body, right answer) they are sent in turn. With ``tokens`` (of
    prompt and answer) they ask for these in turn, and the answer must be the stream of them. An answer that has begun and breaks off
    ``deadline_s`` after it was asked for, or is not whole after ``timeout_s``, is timed out. For servers of others: ``template`` is the
    body, with the number of the request for {n}, and an answer of status ``expect`` is good, whatever it says.
    """

    url: str
    body_bytes: int = 0
    answer_bytes: int | None = None
    samples: tuple[tuple[bytes, bytes], ...] = ()
    tokens: tuple[tuple[int, int], ...] = ()
    timeout_s: float = 60.0
    deadline_s: float = math.inf
    trace: bool = True
    method: str = "POST"
    template: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    expect: int = 200

    def lengths(self, number: int) -> tuple[int, int]:
        """Tokens of the prompt and of the answer of a request; none where answers are no streams of them."""
        return self.tokens[(number & ((1 << NUMBER_BITS) - 1)) % len(self.tokens)] if self.tokens else (0, 0)

    def exchange(self, number: int) -> tuple[bytes, bytes | None]:
        """The body of a request, and its right answer."""
        if self.template:
            return self.template.replace("{n}", str(number)).encode(), None
        if self.samples:
            return self.samples[number % len(self.samples)]
        if self.tokens:
            prompt, output = self.lengths(number)
            return streamed.request(f"{number:x}", prompt, output, self.body_bytes), streamed.answer(f"{number:x}", output)
        stamp = b"%016x" % number
        body = stamp[: self.body_bytes] if self.body_bytes <= len(stamp) else reply(stamp, self.body_bytes)
        return body, None if self.answer_bytes is None else reply(body, self.answer_bytes)


Done = Callable[[Sent], None]


class Connection(asyncio.Protocol):
    """A connection and the request that it has."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.request: Sent | None = None
        self.transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self._body = b""
        self._expected: bytes | None = None
        self._trace: list[list] = []
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: Sent, done: Done) -> None:
        """Write it."""
        assert self.transport is not None
        self.request, self._done, self._body, self._trace = request, done, b"", []
        data, self._expected, request.tokens = self.client.message()
        self.transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio's protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        """Of asyncio's protocol."""
        if self.request is not None and not self.request.first_byte_s:
            self.request.first_byte_s = time.monotonic() - self.client.start
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            assert self.transport is not None
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools' parser."""
        if name.lower() == _TRACE:
            self._trace = json.loads(value)

    def on_body(self, body: bytes) -> None:
        """Of httptools' parser."""
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """Of httptools' parser."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # not yet the answer
            return
        outcome = "ok" if status == self.client.target.expect else OUTCOMES.get(status, "failed")
        if outcome == "ok" and self._expected is not None and self._body != self._expected:
            outcome = "wrong"
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._end(outcome, keep)

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio's protocol."""
        self.client.gone(self)
        request, now = self.request, time.monotonic() - self.client.start
        late = request is not None and request.first_byte_s and now >= request.sent_s + self.client.target.deadline_s
        self._end("timed_out" if late else "failed", keep=False)

    def give_up(self) -> None:
        """Its request has waited long enough."""
        self._end("timed_out", keep=False)
        if self.transport is not None:
            self.transport.abort()

    def _end(self, outcome: str, keep: bool) -> None:
        request, done = self.request, self._done
        if request is None or done is None:
            return
        self.request = self._done = None
        request.done_s = time.monotonic() - self.client.start
        request.outcome, request.trace = outcome, self._trace
        if keep:
            self.client.idle.append(self)
        elif self.transport is not None:
            self.transport.close()
        done(request)


class Client:
    """All connections to one target; ``start``: the monotonic time that all times of requests count from.

    ``first``: the number of the first request, so that those of several processes differ.
    """

    def __init__(self, target: Target, start: float, first: int = 0) -> None:
        parts = urlsplit(target.url)
        assert parts.hostname is not None
        self.target, self.start = target, start
        self.idle: list[Connection] = []
        self._host, self._port = parts.hostname, parts.port or 80
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task] = set()
        self._flying: deque[tuple[float, Connection, Sent]] = deque()
        lines = [
            f"{target.method} {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1", f"Host: {parts.netloc}",
            *([] if "content-type" in {name.lower() for name, _ in target.headers} else ["Content-Type: application/octet-stream"]),
            *(f"{name}: {value}" for name, value in target.headers), *([f"{TRACE}: 1"] if target.trace else []), "Content-Length: ",
        ]  # fmt: skip
        self._head = "\r\n".join(lines).encode()
        self._number = first

    def message(self) -> tuple[bytes, bytes | None, int]:
        """The bytes of the next request, the right answer to it, and how many tokens that has."""
        number = self._number
        self._number += 1
        body, expected = self.target.exchange(number)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body), expected, self.target.lengths(number)[1]

    def send(self, request: Sent, done: Done) -> None:
        """Send now; ``done`` is called with the request when it is answered or lost."""
        request.sent_s = time.monotonic() - self.start
        if self.idle:
            self._give(self.idle.pop(), request, done)
            return
        task = asyncio.get_running_loop().create_task(self._open(request, done))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, request: Sent, done: Done) -> None:
        try:
            async with asyncio.timeout(self.target.timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self), self._host, self._port
                )
        except OSError:  # TimeoutError is one too
            request.done_s = time.monotonic() - self.start
            done(request)
            return
        self._all.add(connection)
        self._give(connection, request, done)

    def _give(self, connection: Connection, request: Sent, done: Done) -> None:
        self._flying.append((time.monotonic() + self.target.timeout_s, connection, request))
        connection.send(request, done)

    def gone(self, connection: Connection) -> None:
        """A connection is closed."""
        self._all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    async def sweep(self) -> None:
        """Give up requests that take longer than the timeout, until cancelled."""
        while True:
            now = time.monotonic()
            flying = self._flying
            while flying and (flying[0][0] <= now or flying[0][1].request is not flying[0][2]):
                _, connection, request = flying.popleft()
                if connection.request is request:
                    connection.give_up()
            await asyncio.sleep(_SWEEP_S)

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self._all):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)
