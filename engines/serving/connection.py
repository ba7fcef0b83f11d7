"""One client of the host: HTTP/1.1 on a raw connection, one request after another, one write an answer.

The module owns what is well-formed. What a request is answered with is `host`'s, how long a client may take is `door`'s. The parser is
httptools', the one of uvicorn and Node.js; a connection whose request is for a mounted ASGI application is handed to uvicorn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from windtunnel.engines.serving.messages import GONE, Answer, Request, sentence
from windtunnel.engines.serving.wire import TRACE

if TYPE_CHECKING:
    from windtunnel.engines.serving.door import Door

OWN = "/-/"  # paths below it are the host's pages
MOST_HEADER_BYTES = 64 * 1024
LINGER_S = 2.0  # after an answer to a request that was not read to its end: until then its rest is read and dropped
_LONGEST_LINE = 8 * 1024  # of the request line; more is refused
_TRACE = TRACE.encode()


class Connection(asyncio.Protocol):
    """One client. Messages that come before the one before them is answered wait, and reading pauses."""

    def __init__(self, door: Door) -> None:
        self._door, self._host = door, door.host
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._since_s = time.monotonic()  # of the wait for the client
        self._inside = False  # a message has begun and not ended
        self._start = b""  # of a request line that is not whole
        self._queue: deque[tuple[str, str, Request | Answer, bool]] = deque()
        self._task: asyncio.Task | None = None
        self._closing = self._streaming = self._keep = self._eof = False
        self._handed: asyncio.Protocol | None = None
        self._reset()

    def _reset(self) -> None:
        self._url, self._parts, self._size, self._headers = b"", list[bytes](), 0, 0
        self._trace = self._json = False
        self._refusal: Answer | None = None

    # -- asyncio's protocol ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._door.connections) >= self._door.most:
            self._host.count(503)
            self._write(sentence(503, "too many connections", "Retry-After: 1"), keep=False)
            self._close()
            return
        self._door.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It has left: what it asked for is not needed."""
        self._door.connections.discard(self)
        if self._handed is not None:
            self._handed.connection_lost(error)
        for _ in range(self._inside + len(self._queue)):
            self._host.count(GONE)
        self._inside, self._closing = False, True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._handed is not None:
            self._handed.data_received(data)
            return
        if self._closing or self._refusal is not None:
            return  # what follows is dropped
        if not self._inside and self._door.mounted is not None:
            data = self._start + data
            if not self._is_mine(data):
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request was answered as if it had not asked for another protocol; what follows is dropped
        except httptools.HttpParserError as error:
            self._refuse(sentence(400, f"this is not a request of HTTP/1.1: {error}"))

    def eof_received(self) -> bool:
        """The client will send no more; it may still wait for an answer."""
        if self._handed is not None:
            return bool(self._handed.eof_received())
        self._eof = True
        return self._task is not None

    def pause_writing(self) -> None:
        """Told to uvicorn; here an answer is one write and the next one waits for it."""
        if self._handed is not None:
            self._handed.pause_writing()

    def resume_writing(self) -> None:
        """See `pause_writing`."""
        if self._handed is not None:
            self._handed.resume_writing()

    def _is_mine(self, data: bytes) -> bool:
        """Whether the door answers it; keeps the start of a line that is not whole, hands over what a mounted application answers."""
        line, end, _ = data.lstrip(b"\r\n").partition(b"\n")
        if not end and len(line) < _LONGEST_LINE:
            self._start = data
            return False
        self._start = b""
        parts = line.split(b" ")
        path = parts[1].partition(b"?")[0] if len(parts) > 1 else b"/"
        if path == b"/" or path.startswith(OWN.encode()) or len(parts) != 3:
            return True
        assert self._door.mounted is not None and self._transport is not None
        self._door.connections.discard(self)
        self._handed = self._door.mounted()
        self._handed.connection_made(self._transport)
        self._handed.data_received(data)
        return False

    # -- httptools' parser ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reset()
        self._inside = True
        self._since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count_header(len(name) + len(value))
        name = name.lower()
        if name == b"content-type":
            self._json = value.partition(b";")[0].strip().lower() == b"application/json"
        elif name == _TRACE:
            self._trace = True
        elif name == b"expect" and value.lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif name == b"content-length" and int(value) > self._host.most_bytes:
            self._too_long()

    def _count_header(self, size: int) -> None:
        self._headers += size
        if self._headers > MOST_HEADER_BYTES and self._refusal is None:
            self._refuse(sentence(431, f"the headers are longer than the limit of {MOST_HEADER_BYTES} bytes"))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._refusal is not None:
            return
        self._size += len(body)
        if self._size > self._host.most_bytes:
            self._too_long()
        else:
            self._parts.append(body)

    def _too_long(self) -> None:
        if self._refusal is None:
            self._refuse(sentence(413, f"the body is longer than the limit of {self._host.most_bytes} bytes"))

    def on_message_complete(self) -> None:
        """A request is here."""
        self._inside = False
        if self._refusal is not None:
            return
        parser = self._parser
        method, keep = parser.get_method().decode(), parser.should_keep_alive() and not parser.should_upgrade()
        path = self._url.partition(b"?")[0].decode("latin-1")
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        request: Request | Answer = Request(body=body, trace=self._trace)
        if self._json and path == "/":
            request = _well_formed(body) or request
        if self._task is not None:
            self._queue.append((method, path, request, keep))
            assert self._transport is not None
            self._transport.pause_reading()
        elif not self._closing:
            self._begin(method, path, request, keep)

    # -- answers ----------------------------------------------------------------------------------------------------------------

    def _begin(self, method: str, path: str, request: Request | Answer, keep: bool) -> None:
        if isinstance(request, Answer):
            self._host.count(request.status)
            self._finish(request, keep)
        elif path == "/" and method == "POST":
            self._keep = keep
            request.part = self._part
            self._task = request.task = asyncio.get_running_loop().create_task(self._answer(request))
        elif self._door.mounted is not None and path != "/" and not path.startswith(OWN):
            self._close()  # pipelined behind one of ours: the client asks again on a new connection (RFC 9112, 9.3.2)
        else:
            answer = self._host.page(method, path)
            self._host.count(answer.status)
            self._finish(answer, keep, head=method == "HEAD")

    async def _answer(self, request: Request) -> None:
        answer = await self._host.answer(request)
        self._task = None
        if self._streaming:
            self._end_stream(answer)
        else:
            self._finish(answer, self._keep)

    def _finish(self, answer: Answer, keep: bool, head: bool = False) -> None:
        if self._closing:
            return
        self._write(answer, keep=keep and not self._host.draining, head=head)
        if not keep or self._host.draining:
            self._close()
        else:
            self._next()

    def _next(self) -> None:
        self._since_s = time.monotonic()
        if self._queue:
            waiting = self._queue.popleft()
            if not self._queue and self._transport is not None:
                self._transport.resume_reading()
            self._begin(*waiting)
        elif self._eof:
            self._close()

    def _write(self, answer: Answer, *, keep: bool, head: bool = False) -> None:
        assert self._transport is not None
        lines = [_status_line(answer.status), f"Content-Type: {answer.kind}", f"Content-Length: {len(answer.body)}", *answer.more]
        if not keep:
            lines.append("Connection: close")
        self._transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head else answer.body))

    def _part(self, data: bytes) -> None:
        """A piece of an answer, as a chunk."""
        if self._closing or self._transport is None or not data:
            return
        if self._transport.get_write_buffer_size() > self._host.most_bytes:
            self.abort()  # its client does not read
            return
        start = b""
        if not self._streaming:
            self._streaming = True
            start = (
                f"{_status_line(200)}\r\nContent-Type: {self._host.stream_kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
        self._transport.write(start + b"%x\r\n%b\r\n" % (len(data), data))

    def _end_stream(self, answer: Answer) -> None:
        self._streaming = False
        if self._closing or self._transport is None:
            return
        if answer.status != 200:
            self.abort()  # without its last chunk the client knows that it is not whole
            return
        trailers = "".join(f"{line}\r\n" for line in answer.more)
        self._transport.write(b"0\r\n%b\r\n" % trailers.encode("latin-1"))
        if self._keep and not self._host.draining:
            self._next()
        else:
            self._close()

    # -- ends -------------------------------------------------------------------------------------------------------------------

    def _refuse(self, answer: Answer) -> None:
        """Answer at once, drop the rest, close."""
        self._refusal = answer
        self._inside = False
        if self._closing:
            return
        self._host.count(answer.status)
        if self._task is not None:  # an earlier one is not answered yet; this connection ends with it
            self._keep = False
            return
        self._write(answer, keep=False)
        self._closing = True
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._close)

    def _close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def close_if_idle(self) -> None:
        """For a drain: a connection without a request."""
        if self._task is None and not self._inside and self._handed is None:
            self._close()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def look(self, late_s: float) -> None:
        """Close it when its client has been waited for since before that time."""
        if self._since_s >= late_s or self._transport is None or self._handed is not None:
            return
        if self._inside or self._start:
            self._refuse(sentence(408, f"the request did not arrive within {self._door.patience_s:g} s"))
        elif self._task is None:
            self.abort() if self._transport.get_write_buffer_size() else self._close()


def _well_formed(body: bytes) -> Answer | None:
    """The answer to a body that says that it is JSON and is not."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return sentence(400, "the body says it is JSON and cannot be read as JSON")
    return None


_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}" for s in HTTPStatus}


def _status_line(status: int) -> str:
    return _LINES.get(status, f"HTTP/1.1 {status} -")
