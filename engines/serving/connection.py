"""One client of the host: HTTP/1.1 on a raw connection, one request after another, one write an answer.

The module owns what is well-formed. What a request is answered with is `host`'s, how long a client may take is `door`'s. The parser is
httptools', the one of uvicorn and Node.js; a connection whose request is for a mounted ASGI application is handed to uvicorn.
"""

from __future__ import annotations

import asyncio
import json
import re
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
_HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?")  # RFC 9110, 7.2


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
        self._first = 0  # bytes that came with the next request, if it is the first among them
        self._taking = False  # requests that waited are being taken up
        self._old = False  # the request that is answered is one of HTTP/1.0
        self._blocked = False  # the client does not read: no request is taken until it does
        self._handed: asyncio.Protocol | None = None
        self._reset()

    def _reset(self) -> None:
        self._url, self._parts, self._size, self._headers = b"", list[bytes](), 0, 0
        self._trace = self._json = self._expects = self._whole_head = False
        self._raw = self._hosts = 0
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
        self._first = len(data) if not self._inside else 0
        self._raw += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request was answered as if it had not asked for another protocol; what follows is dropped
        except httptools.HttpParserError as error:
            if self._refusal is None:  # not one that a callback has refused already
                self._refuse(sentence(400, f"this is not a request of HTTP/1.1: {error}"))
        else:
            self._bound_raw()

    def _bound_raw(self) -> None:
        """What has come and is no body is bounded while it comes: the parser tells of a field when it is whole."""
        framing = 0 if not self._whole_head else 8 * self._size  # a chunk of one byte has six more around it
        if self._inside and self._refusal is None and self._raw - self._size > MOST_HEADER_BYTES + _LONGEST_LINE + framing:
            self._refuse(sentence(431, f"the headers are longer than the limit of {MOST_HEADER_BYTES} bytes"))

    def eof_received(self) -> bool:
        """The client will send no more; it may still wait for an answer."""
        if self._handed is not None:
            return bool(self._handed.eof_received())
        self._eof = True
        return self._task is not None

    def pause_writing(self) -> None:
        """The client does not read its answers: it is asked for nothing more until it does."""
        self._blocked = True
        if self._handed is not None:
            self._handed.pause_writing()
        elif self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads."""
        self._blocked = False
        if self._handed is not None:
            self._handed.resume_writing()
        elif self._task is None and not self._closing:
            self._next()

    def _is_mine(self, data: bytes) -> bool:
        """Whether the door answers it; keeps the start of a line that is not whole, hands over what a mounted application answers."""
        line, end, _ = data.lstrip(b"\r\n").partition(b"\n")
        if not end and len(line) < _LONGEST_LINE:
            self._start = data
            return False
        self._start = b""
        parts = line.split(b" ")
        path = _path(parts[1]) if len(parts) > 1 else "/"
        if path == "/" or path.startswith(OWN) or len(parts) != 3 or self._host.takes(path):
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
        self._raw, self._first = self._first, 0  # what came with the end of one before counts for none
        self._since_s = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which is counted and changes nothing."""
        self._count_header(len(name) + len(value) + 4)
        if self._whole_head or self._refusal is not None:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1 if _HOST.fullmatch(value) else 2
        elif name == b"content-type":
            self._json = value.partition(b";")[0].strip().lower() == b"application/json"
        elif name == _TRACE:
            self._trace = True
        elif name == b"expect":
            self._expects = True
            if value.lower() != b"100-continue":
                self._refuse(sentence(417, "the only expectation that can be met is 100-continue"))
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._refuse(sentence(501, "the only transfer coding that is understood is chunked"))
        elif name == b"content-length" and value.strip().isdigit() and int(value[:20]) > self._host.most_bytes:
            self._too_long()

    def on_headers_complete(self) -> None:
        """The head of a request is whole."""
        self._whole_head = True
        version = self._parser.get_http_version()
        if self._refusal is not None:
            return
        if version not in ("1.0", "1.1"):
            self._refuse(sentence(505, f"version {version} of HTTP is not spoken here; 1.1 is"))
        elif self._hosts > 1 or (version == "1.1" and not self._hosts):
            self._refuse(sentence(400, "a request has one header Host, with the name of a host"))
        elif self._expects and version == "1.1" and self._task is None and not self._closing and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        path = _path(self._url)
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        request: Request | Answer = Request(body=body, trace=self._trace, old=parser.get_http_version() == "1.0", path=path)
        if self._json and self._host.takes(path):
            request = _well_formed(body) or request
        if self._task is not None or self._blocked or self._queue:
            self._queue.append((method, path, request, keep))
            assert self._transport is not None
            self._transport.pause_reading()
        elif not self._closing:
            self._begin(method, path, request, keep)

    # -- answers ----------------------------------------------------------------------------------------------------------------

    def _begin(self, method: str, path: str, request: Request | Answer, keep: bool) -> None:
        if isinstance(request, Answer):
            self._host.count(request.status)
            self._finish(request, keep, head=method == "HEAD")
        elif method == "POST" and self._host.takes(path):
            self._keep, self._old = keep, request.old
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
        """Take up what waits, as long as the client reads; then read on."""
        self._since_s = time.monotonic()
        if self._taking:
            return
        self._taking = True
        while self._queue and self._task is None and not self._blocked and not self._closing:
            self._begin(*self._queue.popleft())
        self._taking = False
        if self._queue or self._task is not None or self._blocked or self._closing:
            return
        if self._eof:
            self._close()
        elif self._transport is not None:
            self._transport.resume_reading()

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
            how = "Connection: close" if self._old else "Transfer-Encoding: chunked"
            start = f"{_status_line(200)}\r\nContent-Type: {self._host.stream_kind}\r\n{how}\r\n\r\n".encode()
        self._transport.write(start + (data if self._old else b"%x\r\n%b\r\n" % (len(data), data)))

    def _end_stream(self, answer: Answer) -> None:
        self._streaming = False
        if self._closing or self._transport is None:
            return
        if answer.status != 200:
            self.abort()  # without its last chunk the client knows that it is not whole
            return
        if self._old:  # its end is the end of the connection
            self._close()
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
        if self._task is not None or self._queue:  # earlier ones are not answered yet; this connection ends with them
            if self._queue:
                self._queue[-1] = (*self._queue[-1][:3], False)
            else:
                self._keep = False
            return
        self._write(answer, keep=False, head=self._parser.get_method() == b"HEAD")
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
    """The answer to a body that says that it is JSON and is not (RFC 8259: UTF-8, and numbers that are numbers)."""
    try:
        json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return sentence(400, "the body says it is JSON and cannot be read as JSON")
    return None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _path(url: bytes) -> str:
    """Of a target in origin form, or in absolute form, which every server accepts (RFC 9112, 3.2.2)."""
    if url[:7].lower() == b"http://":
        url = b"/" + url[7:].partition(b"/")[2]
    return url.partition(b"?")[0].decode("latin-1")


_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}" for s in HTTPStatus}


def _status_line(status: int) -> str:
    return _LINES.get(status, f"HTTP/1.1 {status} -")
