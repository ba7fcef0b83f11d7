"""A replica that computes tokens: iterations of an emulated language model, streams of many calls at once.

Which sequences an iteration computes, and what memory they hold, is `windtunnel.engines.models.tokens`, the same object that the
simulated world runs. An iteration lasts what the scenario declares: the process sleeps for it as it would wait for a device, or, where
the deployment asks for CPUs and ``work`` is ``spin``, burns it. Reading calls and writing tokens come on top.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from windtunnel.engines.models.tokens import Batcher, Sequence, Step
from windtunnel.engines.serving.replica import Call, Inbox
from windtunnel.engines.serving.shared import Bodies
from windtunnel.engines.serving.streamed import DONE, event, lengths
from windtunnel.engines.serving.wire import ANSWER, LAST, PART, SKIPPED
from windtunnel.spec.serving import TokenSpec

Pass = Callable[[float], None]  # lets so many seconds pass


class TokenLoop:
    """Calls in, iterations, tokens out, until the input ends."""

    def __init__(
        self,
        source: socket.socket,
        bodies: Bodies,
        spec: TokenSpec,
        factor: Callable[[], float],
        spend: Pass,
        buffer: bytes = b"",
    ) -> None:
        self._source, self._factor, self._spend = source, factor, spend
        self._inbox = Inbox(source, bodies, buffer)
        self._batcher: Batcher[Call] = Batcher(spec)
        self._names: dict[Call, str] = {}
        self._begun_s: dict[Call, float] = {}

    def serve(self) -> None:
        """Iteration after iteration; wait where there is nothing to do."""
        while True:
            self._read()
            step = self._batcher.plan()
            if step is None:
                if not self._inbox.wait():
                    return
                continue
            begun = time.monotonic()
            for sequence, _ in step.prefill:
                self._begun_s.setdefault(sequence.key, begun)
            self._spend(self._batcher.seconds(step) * self._factor())
            self._tell(step)

    def _read(self) -> None:
        """What has come, and what was withdrawn, since the last look."""
        inbox = self._inbox
        inbox.look()
        calls, inbox.calls = inbox.calls, []
        for call in calls:
            self._take(call)
        withdrawn, inbox.withdrawn = set(inbox.withdrawn), []
        for call in [c for c in self._names if c.number in withdrawn]:
            self._batcher.drop(call)
            self._end(call, SKIPPED)

    def _take(self, call: Call) -> None:
        if time.monotonic() > call.deadline_s:
            self._source.sendall(ANSWER.pack(call.number, 0, 0, 0.0, 0.0, SKIPPED))
            return
        self._names[call], prompt, output = lengths(call.data)
        self._batcher.add(call, prompt, output)

    def _tell(self, step: Step[Call]) -> None:
        """Every token that the iteration made; answers that are whole end."""
        finished = self._batcher.done(step)[1]
        made = [*step.decode, *(s for s, _ in step.prefill if not s.to_compute)]
        now = time.monotonic()
        self._source.sendall(b"".join(self._part(s, now) for s in made))
        for call in finished:
            self._end(call, LAST)

    def _part(self, sequence: Sequence[Call], now: float) -> bytes:
        call = sequence.key
        data = event(self._names[call], sequence.generated - 1) + (DONE if sequence.finished else b"")
        return ANSWER.pack(call.number, 1, len(data), self._begun_s[call], now, PART) + data

    def _end(self, call: Call, kind: int) -> None:
        del self._names[call]
        begun = self._begun_s.pop(call, 0.0)
        self._source.sendall(ANSWER.pack(call.number, int(kind == LAST), 0, begun, time.monotonic(), kind))
