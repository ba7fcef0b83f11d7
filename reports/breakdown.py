"""Where the time of requests went: each moment of a request belongs to the spans that are open then, in equal parts. Pure.

So the parts of a request sum to its latency exactly, parallel branches share the time that they overlap, and what no span covers
went by between processes: sockets, hops, and whatever a server does not tell. Only requests with spans are looked at; simulated runs
write those of the first and of some others, so each stands for those that were sent nearest to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from windtunnel.records.record import RunRecord

#: part of a request → kinds of spans
PARTS: Mapping[str, tuple[str, ...]] = {
    "proxy": ("launch",), "queue": ("queue",), "batch wait": ("barrier",), "compute": ("compute",),
    "serialization": ("serialize", "deserialize"), "sent late": ("emit",), "between processes": (),
}  # fmt: skip
MOST = 4_000  # requests that are looked at
TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Mean seconds of a request by part, of all and of the slowest 1 % (``tail``); ``requests`` looked at."""

    mean: dict[str, float]
    tail: dict[str, float]
    requests: int


def breakdown(record: RunRecord) -> Breakdown | None:
    """None for a record without spans of requests."""
    table = record.spans
    kinds = np.asarray(table["kind"].cast("string").to_pylist(), dtype=object)
    numbers, starts, ends = (table[c].to_numpy() for c in ("partition", "start_s", "end_s"))
    whole = kinds == "request"
    good = whole & (table["rows"].to_numpy() > 0)
    if not good.any():
        return None
    known = numbers[good]
    stride = max(1, -(-len(known) // MOST))
    chosen = {int(n): place for place, n in enumerate(known[::stride].tolist())}
    limits = np.stack([starts[good][::stride], ends[good][::stride]], axis=1)
    codes = {kind: code for code, kinds_of in enumerate(PARTS.values()) for kind in kinds_of}
    inside: list[list[tuple[float, float, int]]] = [[] for _ in chosen]
    for place in np.flatnonzero(~whole & np.isin(numbers, list(chosen))).tolist():
        code = codes.get(kinds[place])
        if code is not None:
            inside[chosen[int(numbers[place])]].append((starts[place], ends[place], code))
    parts = np.array([_parts(spans, *limit) for spans, limit in zip(inside, limits.tolist(), strict=True)])
    weights, total = _weights(record, limits[:, 0]), limits[:, 1] - limits[:, 0]
    order = np.argsort(total, kind="stable")
    slow = order[np.cumsum(weights[order]) > TAIL * weights.sum()]
    mean, tail = (np.average(parts[chosen], axis=0, weights=weights[chosen]) for chosen in (order, slow))
    return Breakdown(_named(mean), _named(tail), len(parts))


def _weights(record: RunRecord, starts: np.ndarray) -> np.ndarray:
    """How many good requests each one stands for: those that were sent nearest to it."""
    samples = record.samples
    latencies = samples.filter(pc.equal(samples["name"].cast("string"), "latency_s"))
    sent = latencies["time_s"].to_numpy() - latencies["value"].to_numpy()
    order = np.argsort(starts, kind="stable")
    ordered = starts[order]
    nearest = np.searchsorted((ordered[1:] + ordered[:-1]) / 2, sent)
    weights = np.empty(len(starts))
    weights[order] = np.bincount(nearest, minlength=len(starts))
    return weights if weights.any() else np.ones(len(starts))


def _named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(PARTS, values.tolist(), strict=True))


def _parts(spans: Sequence[tuple[float, float, int]], start: float, end: float) -> list[float]:
    """Seconds of each part of one request."""
    found = [0.0] * len(PARTS)
    clipped = [(max(a, start), min(b, end), code) for a, b, code in spans if b > start and a < end]
    edges = sorted({start, end, *(a for a, _, _ in clipped), *(b for _, b, _ in clipped)})
    for left, right in zip(edges, edges[1:], strict=False):
        open_now = [code for a, b, code in clipped if a <= left and b >= right]
        for code in open_now or [len(PARTS) - 1]:
            found[code] += (right - left) / max(1, len(open_now))
    return found
