"""A replica: a process that answers one call after another, over the socket that is its standard input.

The end of its input is its order to stop, so it never outlives its host. A call that was withdrawn, or whose deadline has passed
before its turn, is skipped. It knows no HTTP, queue or other replica.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from windtunnel.engines.models.streams import SERVICE, Factors
from windtunnel.engines.serving.shared import Bodies
from windtunnel.engines.serving.wire import ANSWER, BYTES_AFTER, FAILED, HEAD, LAST, PART, SKIPPED, join, split
from windtunnel.engines.serving.work import Handler, handler, spend
from windtunnel.spec.serving import CallCost, TokenSpec

_CHUNK = 1 << 18


class Call(NamedTuple):
    """What has been read and not answered; numbers are unique, so it may be a key."""

    number: int
    items: int
    deadline_s: float
    data: bytes


class Inbox:
    """Calls in the order in which they came, without those that were withdrawn."""

    def __init__(self, source: socket.socket, bodies: Bodies, buffer: bytes = b"") -> None:
        self._source, self._bodies, self._buffer = source, bodies, bytearray(buffer)
        self._calls: dict[int, Call] = {}
        self.withdrawn: set[int] = set()

    def next(self) -> Call | None:
        """The next call; waits for one. None when the input ends."""
        self.look()
        while not self._calls:
            data = self._source.recv(_CHUNK)
            if not data:
                return None
            self._take(data)
        number = next(iter(self._calls))
        self.withdrawn.clear()
        return self._calls.pop(number)

    def all(self) -> list[Call]:
        """Every call that has been read."""
        calls = list(self._calls.values())
        self._calls.clear()
        return calls

    def look(self) -> None:
        """Read what is there without waiting."""
        try:
            self._take(self._source.recv(_CHUNK, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass

    def _take(self, data: bytes) -> None:
        buffer, at = self._buffer, 0
        buffer += data
        while len(buffer) - at >= HEAD.size:
            number, items, length, deadline_s = HEAD.unpack_from(buffer, at)
            end = at + HEAD.size + (length & BYTES_AFTER)
            if len(buffer) < end:
                break
            if items:
                content = self._bodies.get(length, bytes(buffer[at + HEAD.size : end]))
                self._calls[number] = Call(number, items, deadline_s, content)
            else:
                self._withdraw(number)
            at = end
        del buffer[:at]

    def _withdraw(self, number: int) -> None:
        if self._calls.pop(number, None) is None:
            self.withdrawn.add(number)
        else:
            self._source.sendall(ANSWER.pack(number, 0, 0, 0.0, 0.0, SKIPPED))


def serve(source: socket.socket, bodies: Bodies, work: Handler, buffer: bytes = b"") -> None:
    """Answer until the input ends."""
    inbox = Inbox(source, bodies, buffer)
    while call := inbox.next():
        begun = time.monotonic()
        if begun > call.deadline_s:
            source.sendall(ANSWER.pack(call.number, 0, 0, begun, begun, SKIPPED))
            continue
        try:
            kind, items, parts = _answer(inbox, call, work, source, begun)
        except Exception as error:  # the user's code; the replica goes on
            kind, items, parts = FAILED, 1, [f"{type(error).__name__}: {error}".encode()]
        count, data = bodies.put(parts)
        source.sendall(ANSWER.pack(call.number, items, count, begun, time.monotonic(), kind) + data)


def _answer(inbox: Inbox, call: Call, work: Handler, target: socket.socket, begun: float) -> tuple[int, int, list[bytes]]:
    answers = work(split(call.data, call.items))
    if isinstance(answers, Iterator):
        for part in answers:
            target.sendall(ANSWER.pack(call.number, 1, len(part), begun, time.monotonic(), PART) + part)
            inbox.look()
            if call.number in inbox.withdrawn:
                return SKIPPED, 0, [b""]
        return LAST, 1, [b""]
    if len(answers) != call.items:
        return FAILED, 1, [f"the handler gave {len(answers)} answers to {call.items} requests".encode()]
    wrong = next((type(a).__name__ for a in answers if not isinstance(a, bytes)), None)
    if wrong:
        return FAILED, 1, [f"the handler gave {wrong} where an answer is bytes".encode()]
    return LAST, call.items, join(answers)


def main() -> None:
    """Entry point: one line of JSON with cost or tokens, kind of work and random stream; then frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle: it drains
    source = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)  # what a handler prints is no answer
    line, _, rest = _first_line(source).partition(b"\n")
    told = json.loads(line)
    bodies = Bodies(told["memory"], host=False)
    run = _token_loop(source, bodies, told, rest) if told["tokens"] else partial(serve, source, bodies, _handler(told), rest)
    time.sleep(told["startup_s"])
    source.sendall(ANSWER.pack(0, 0, 0, 0.0, 0.0, LAST))  # ready
    run()


def _handler(told: dict[str, Any]) -> Handler:
    return handler(CallCost(**told["cost"]), told["work"], *told["stream"])


def _token_loop(source: socket.socket, bodies: Bodies, told: dict[str, Any], rest: bytes) -> Callable[[], None]:
    from windtunnel.engines.serving.token_replica import TokenLoop

    factor = Factors("lognormal", told["cost"]["cv"], SERVICE, *told["stream"])
    return TokenLoop(source, bodies, TokenSpec(**told["tokens"]), factor, spend(told["work"] == "spin"), rest).serve


def _first_line(source: socket.socket) -> bytes:
    found = b""
    while b"\n" not in found:
        data = source.recv(_CHUNK)
        if not data:
            sys.exit(0)
        found += data
    return found


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)
