"""What a serving run leaves behind: every latency, outcomes, replicas over time, and spans of some requests, counted.

A latency counts from the intended send time to the answer; only good answers have one. Throughput counts good answers inside
the window in which requests are sent, over its length. The module fills a `Recorder`; it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat

import numpy as np

from windtunnel.engines.models.calls import OUTCOMES, Callee
from windtunnel.engines.models.deployment import Deployment
from windtunnel.engines.models.latencies import statistics, stream_times
from windtunnel.engines.models.streams import SAMPLE, generator
from windtunnel.records.record import Recorder
from windtunnel.sim.serving.loops import Loop
from windtunnel.sim.serving.visits import Asked, Visit

MOST_SAMPLES = 200_000  # latencies that are written out; above it one of every n
FIRST_TRACED, THEN_EVERY = 2_000, 50


class Journal:
    """Of one run. ``proxies_busy_s`` and `retire` sum the CPU seconds of processes."""

    def __init__(self, recorder: Recorder, spans: bool | None) -> None:
        self.recorder = recorder
        self._spans = spans
        self._latencies: list[float] = []
        self._ends: list[float] = []
        self._came: list[float] = []
        self._left: list[float] = []  # requests that were not answered well
        self.outcomes = dict.fromkeys([o for o in OUTCOMES if o != "gone"], 0)  # simulated clients wait
        self.sent = self.traced = 0
        self.names: dict[Callee, str] = {}  # of deployments
        self._tokens = 0
        self._busy_cpu_s = self._busy_gpu_s = 0.0

    def came(self, now: float) -> bool:
        """A request was sent; whether its spans are written: those of all of the first, then of some."""
        number = self.sent
        self.sent = number + 1
        self._came.append(now)
        chosen = number < FIRST_TRACED or number % THEN_EVERY == 0 if self._spans is None else self._spans
        self.traced += chosen
        return chosen

    def answered(self, request: Asked, outcome: str, now: float, operator: str) -> None:
        """Its client has the answer."""
        if outcome != "ok":
            self.outcomes[outcome] += 1
            self._left.append(now)
            return
        self._latencies.append(now - request.intended_s)
        self._ends.append(now)
        if request.tokens[1]:
            self._streamed(request)
        if request.traced:
            self.recorder.span("request", operator, request.intended_s, now, partition=request.number, rows=1)

    def proxied(self, request: Asked, begun_s: float, now: float) -> None:
        """A proxy held a traced request so long, on its way in or out."""
        self.recorder.span("launch", "proxy", begun_s, now, partition=request.number)

    def executed(self, call: Visit, worker: int, loop: Loop, gathered_s: float, items: int) -> None:
        """A traced call waited, from ``gathered_s`` on only for its batch to fill, and was executed: the engine's part, then its own."""
        name, number, now = self.names[call.callee], call.asked.number, loop.clock.now
        begun_s, span = loop.begun_s, self.recorder.span
        inside_s = now - loop.share * (now - begun_s)
        came_s = call.queued_s
        if call.hop_s:
            span("queue", name, came_s, call.sent_s, partition=number, worker=worker)
            came_s = call.sent_s + call.hop_s
        gathered_s = min(max(gathered_s, came_s), begun_s)
        span("queue", name, came_s, gathered_s, partition=number, worker=worker)
        if gathered_s < begun_s:
            span("barrier", name, gathered_s, begun_s, partition=number, worker=worker)
        if begun_s < inside_s:
            span("serialize", name, begun_s, inside_s, partition=number, worker=worker)
        span("compute", name, inside_s, now, partition=number, worker=worker, rows=items)

    def spent(self, call: Visit, worker: int, begun_s: float, now: float) -> None:
        """A traced call has all its tokens; until the first chunk of its prompt was computed it waited."""
        name, number = self.names[call.callee], call.asked.number
        self.recorder.span("queue", name, call.queued_s, begun_s, partition=number, worker=worker)
        self.recorder.span("compute", name, begun_s, now, partition=number, worker=worker, rows=call.asked.tokens[1])

    def _streamed(self, request: Asked) -> None:
        """A stream of tokens was answered well."""
        first, last, output = request.first_s, request.last_s, request.tokens[1]
        ttft, tpot = stream_times(request.intended_s, first, last, output)
        self.recorder.sample("ttft_s", first, ttft)
        if tpot is not None:
            self.recorder.sample("tpot_s", last, tpot)
        self._tokens += output

    def look(self, now: float, deployments: Sequence[Deployment]) -> None:
        """How many calls wait before each deployment, and how many are there at all."""
        for d in deployments:
            self.recorder.sample(f"queue:{d.spec.name}", now, d.waiting)
            self.recorder.sample(f"ongoing:{d.spec.name}", now, d.ongoing)

    def replicas(self, name: str, now: float, count: int) -> None:
        """So many replicas take calls from now on."""
        self.recorder.sample(f"replicas:{name}", now, count)

    def retire(self, busy_s: float, weight: float, gpus: float) -> None:
        """A process has ended, or the run has."""
        self._busy_cpu_s += busy_s * weight
        self._busy_gpu_s += busy_s * gpus

    @property
    def good(self) -> int:
        """Requests answered well."""
        return len(self._latencies)

    def _inside(self, end_s: float) -> float:
        """Requests in the system, averaged over time: each has come once and left once."""
        times = np.concatenate([self._came, self._ends, self._left])
        steps = np.repeat([1, -1], [len(self._came), len(self._ends) + len(self._left)])
        order = np.argsort(times, kind="stable")
        inside = np.cumsum(steps[order])
        return float(inside[:-1] @ np.diff(times[order])) / end_s

    def close(self, window_s: float, end_s: float, bytes_moved: int, retries: int) -> None:
        """Write it all: counters, latencies (samples at the time of the answer)."""
        latencies, ends = np.array(self._latencies), np.array(self._ends)
        self.outcomes["ok"] = self.good
        chosen = _chosen(len(latencies))
        self.recorder.samples += zip(repeat("latency_s"), ends[chosen].tolist(), latencies[chosen].tolist())
        self.recorder.counters.update(
            {
                **{f"requests_{name}": float(count) for name, count in self.outcomes.items()},
                "requests_sent": self.sent, "requests_retried": retries, "requests_in_system_mean": self._inside(end_s),
                "offered_per_s": self.sent / window_s, "throughput_per_s": float((ends <= window_s).sum()) / window_s,
                "busy_cpu_s": self._busy_cpu_s, "busy_gpu_s": self._busy_gpu_s, "bytes_network": bytes_moved,
                "makespan_s": end_s, "virtual_makespan_s": end_s, "requests_not_traced": self.sent - self.traced,
                "latencies_left_out": len(latencies) - len(chosen),
            }
        )  # fmt: skip
        if self._tokens:
            self.recorder.counters["tokens_out"] = self._tokens
            self.recorder.counters["tokens_per_s"] = self._tokens / end_s
        for name in ("ttft", "tpot"):
            values = np.array([v for n, _, v in self.recorder.samples if n == f"{name}_s"]) if self._tokens else ()
            if len(values):
                self.recorder.counters.update(statistics(np.asarray(values), name))
        if len(latencies):
            self.recorder.counters.update(statistics(latencies))
            self.recorder.counters["first_output_s"] = float(ends[0])


def _chosen(count: int) -> np.ndarray:
    """Which of so many latencies are written out: all, or one of every n at random. Every n-th would be always the same of a batch."""
    stride = max(1, math.ceil(count / MOST_SAMPLES))
    begins = np.arange(0, count, stride)
    chosen: np.ndarray = np.minimum(begins + generator(SAMPLE).integers(0, stride, len(begins)), count - 1)
    return chosen
