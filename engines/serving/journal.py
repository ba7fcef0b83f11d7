"""What a real serving run leaves behind: raw times of every request, and the counters that scenarios promise. It decides nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.engines.models.latencies import settling, statistics, stream_times
from windtunnel.records.record import Recorder
from windtunnel.spec.serving import ServingSpec

if TYPE_CHECKING:
    from windtunnel.engines.serving.client import Sent


def write(recorder: Recorder, sent: list[Sent], serving: ServingSpec, duration_s: float | None) -> None:
    """Raw times of every request as spans and samples, and the counters that scenarios promise."""
    first = serving.deployments[0].name
    numbers = Counter(dict.fromkeys(("ok", "rejected", "timed_out", "failed", "wrong"), 0))
    for number, r in enumerate(sent):
        numbers[r.outcome] += 1
        recorder.span("request", first, r.intended_s, r.done_s, partition=number, rows=int(r.outcome == "ok"))
        recorder.span("emit", "client", r.intended_s, r.sent_s, partition=number)
        if r.first_byte_s:
            recorder.span("fetch", "client", r.sent_s, r.first_byte_s, partition=number)
        if r.outcome == "ok":
            recorder.sample("latency_s", r.done_s, r.done_s - r.intended_s)
        for name, replica, queued, begun, ended, items in r.trace:
            recorder.span("queue", name, queued, begun, partition=number, worker=replica)
            recorder.span("compute", name, begun, ended, partition=number, worker=replica, rows=items)
    for d in serving.deployments:
        recorder.sample(f"replicas:{d.name}", 0.0, d.replicas.minimum)
    end = max((r.done_s for r in sent), default=0.0)
    window = duration_s or max((r.intended_s for r in sent), default=0.0) or 1.0
    ends = np.array([r.done_s for r in sent if r.outcome == "ok"])
    recorder.counters.update({f"requests_{name}": float(n) for name, n in numbers.items()})
    recorder.counters.update(
        requests_sent=float(len(sent)), offered_per_s=len(sent) / window, makespan_s=end,
        throughput_per_s=float((ends <= window).sum()) / window,
    )  # fmt: skip
    if sent:
        recorder.counters["send_lag_p99_s"] = float(np.percentile([r.sent_s - r.intended_s for r in sent], 99))
    _streams(recorder, sent, max(end, window))
    if len(ends):
        recorder.counters.update(statistics(np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"])))
        recorder.counters["first_output_s"] = float(ends.min())
        recorder.counters["warm_up_share"] = settling(np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"]))


def _streams(recorder: Recorder, sent: list[Sent], end_s: float) -> None:
    """Of answers that were streams of tokens: the time to the first one, and for each one after it (TTFT, TPOT)."""
    streams = [r for r in sent if r.tokens and r.outcome == "ok"]
    if not streams:
        return
    found: dict[str, list[float]] = {"ttft": [], "tpot": []}
    for r in streams:
        ttft, tpot = stream_times(r.intended_s, r.first_byte_s, r.done_s, r.tokens)
        found["ttft"].append(ttft)
        recorder.sample("ttft_s", r.first_byte_s, ttft)
        if tpot is not None:
            found["tpot"].append(tpot)
            recorder.sample("tpot_s", r.done_s, tpot)
    tokens = float(sum(r.tokens for r in streams))
    recorder.counters.update(tokens_out=tokens, tokens_per_s=tokens / end_s)
    for name, values in found.items():
        if values:
            recorder.counters.update(statistics(np.array(values), name))
