"""A replica: a process that answers one batch of calls after another, over the socket that is its standard input.

The end of its input is its order to stop, so it never outlives its host. A call that was withdrawn, or whose deadline has passed
before its turn, is skipped. It knows no HTTP, queue or other replica.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from windtunnel.engines.models.batches import Gatherer
from windtunnel.engines.models.streams import SERVICE, Factors
from windtunnel.engines.serving.shared import Bodies
from windtunnel.engines.serving.wire import ANSWER, BYTES_AFTER, FAILED, HEAD, LAST, PART, SKIPPED
from windtunnel.engines.serving.work import Handler, handler, spend, wake_on_time
from windtunnel.spec.serving import BatchSpec, CallCost, TokenSpec

_CHUNK = 1 << 18


class Call(NamedTuple):
    """What has been read and not answered; numbers are unique, so it may be a key."""

    number: int
    deadline_s: float
    data: bytes


class Inbox:
    """Calls in the order in which they came, and the numbers of those that were withdrawn."""

    def __init__(self, source: socket.socket, bodies: Bodies, buffer: bytes = b"") -> None:
        self._source, self._bodies, self._buffer = source, bodies, bytearray(buffer)
        self.calls: list[Call] = []
        self.withdrawn: list[int] = []
        self._take(b"")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for more, for so long at most; False when the input has ended."""
        if seconds is not None and not select.select([self._source], [], [], seconds)[0]:
            return True
        data = self._source.recv(_CHUNK)
        self._take(data)
        return bool(data)

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
                self.calls.append(Call(number, deadline_s, content))
            else:
                self.withdrawn.append(number)
            at = end
        del buffer[:at]


class Server:
    """Answers until the input ends. What is executed together, and when, is `windtunnel.engines.models.batches`."""

    def __init__(self, source: socket.socket, bodies: Bodies, work: Handler, batch: BatchSpec, buffer: bytes = b"") -> None:
        self._source, self._bodies, self._work = source, bodies, work
        self._inbox = Inbox(source, bodies, buffer)
        self._gatherer: Gatherer[Call] = Gatherer(batch)

    def serve(self) -> None:
        """Read, execute what is due, wait."""
        inbox, gatherer = self._inbox, self._gatherer
        lives = True
        while lives or len(gatherer):
            if lives:
                inbox.look()
            now = time.monotonic()
            for call in inbox.calls:
                gatherer.add(call, call.deadline_s, now)
            inbox.calls.clear()
            if inbox.withdrawn:
                self._drop()
            calls = gatherer.next(now)
            self._skip(gatherer.late)
            if calls:
                self._execute(calls)
                gatherer.ended(time.monotonic())
                continue
            due_s = gatherer.due_s()
            if lives:
                lives = inbox.wait(None if due_s == math.inf else max(0.0, due_s - now))
            elif due_s < math.inf:
                time.sleep(max(0.0, due_s - now))

    def _drop(self) -> None:
        """Those that nobody waits for; what has begun or ended goes its way."""
        numbers = set(self._inbox.withdrawn)
        self._inbox.withdrawn.clear()
        self._skip([c for c in self._gatherer.left() if c.number in numbers and self._gatherer.drop(c)])

    def _skip(self, calls: list[Call]) -> None:
        for call in calls:
            self._source.sendall(ANSWER.pack(call.number, 0, 0, 0.0, 0.0, SKIPPED))
        calls.clear()

    def _execute(self, calls: list[Call]) -> None:
        begun = time.monotonic()
        try:
            kind, answers = self._answers(calls, begun)
        except Exception as error:  # the user's code; the replica goes on
            kind, answers = FAILED, [f"{type(error).__name__}: {error}".encode()] * len(calls)
        ended, frames = time.monotonic(), []
        for call, answer in zip(calls, answers, strict=True):
            count, data = self._bodies.put([answer])
            frames.append(ANSWER.pack(call.number, len(calls), count, begun, ended, kind) + data)
        self._source.sendall(frames[0] if len(frames) == 1 else b"".join(frames))

    def _answers(self, calls: list[Call], begun: float) -> tuple[int, Sequence[bytes]]:
        answers = self._work([call.data for call in calls])
        if isinstance(answers, Iterator):
            return self._pieces(calls[0], answers, begun), [b""] * len(calls)
        if len(answers) != len(calls):
            return FAILED, [f"the handler gave {len(answers)} answers to {len(calls)} requests".encode()] * len(calls)
        wrong = next((type(a).__name__ for a in answers if not isinstance(a, bytes)), None)
        if wrong:
            return FAILED, [f"the handler gave {wrong} where an answer is bytes".encode()] * len(calls)
        return LAST, answers

    def _pieces(self, call: Call, answers: Iterator[bytes], begun: float) -> int:
        """Send an answer piece by piece, as long as somebody waits for it."""
        for part in answers:
            self._source.sendall(ANSWER.pack(call.number, 1, len(part), begun, time.monotonic(), PART) + part)
            self._inbox.look()
            if call.number in self._inbox.withdrawn:
                return SKIPPED
        return LAST


def beat(fd: int, seconds: float) -> None:
    """In a thread of its own: say that the process lives, until nobody listens."""
    while True:
        try:
            os.write(fd, b".")
        except OSError:
            return
        time.sleep(seconds)


def main() -> None:
    """Entry point: one line of JSON with cost or tokens, kind of work and random stream; then frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle: it drains
    wake_on_time()
    source = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)  # what a handler prints is no answer
    line, _, rest = _first_line(source).partition(b"\n")
    told = json.loads(line)
    threading.Thread(target=beat, args=(told["beats"], told["beat_s"]), name="beat", daemon=True).start()
    bodies = Bodies(told["memory"], host=False)
    if told["tokens"]:
        run = _token_loop(source, bodies, told, rest)
    else:
        run = Server(source, bodies, _handler(told), BatchSpec(**told["batch"]), rest).serve
    time.sleep(max(0.0, told["launched_s"] + told["startup_s"] - time.monotonic()))  # what its process took is part of it
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
