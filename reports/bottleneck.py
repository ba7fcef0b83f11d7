"""Which resource binds a run, and when: a timeline of bottlenecks, read off what the run used. Pure.

The rule, for each stretch between two samples:

1. The resource whose share is highest binds, if that is at least `BUSY` of the cluster's capacity.
2. Else a link or disk of one node binds, if the busiest node's share is at least `BUSY` (``hot``).
3. Else the store or the memory binds, if at least `FULL` of it is taken: whoever fills it is held back or writes to disk.
4. Else the run waits, if such spans cover at least half of the stretch: for its training loop to step, which holds all others back;
   for a barrier or for backpressure. Else for what no sample shows, such as latency, a start, one long task, or a dependency.

Of equal shares (to a percent) the first in the order of `RATES` counts: a device stands before the workers that use it. The driver is
a resource, too: where it binds, the cluster waits for the scheduler. Stretches with the same answer that follow each other are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.records.columns import chosen, numbers, texts
from windtunnel.records.record import RunRecord
from windtunnel.records.training import steps
from windtunnel.reports.metrics import Curve
from windtunnel.reports.usage import Usage, usage

BUSY = 0.75
FULL = 0.9
RATES = ("device", "cpu", "disk_write", "disk_read", "nic_down", "nic_up", "network_core", "remote_store", "driver")
SPACES = ("store", "memory")
WAITING = "waiting"
WAITS = {"barrier": "barrier", "blocked": "backpressure"}  # kinds of spans, and what a stretch of waiting is called then
LOOP = "workers:"  # and of steps of a training loop, followed by its name


@dataclass(frozen=True, slots=True)
class Segment:
    """From ``start_s`` to ``end_s`` it was ``resource`` that bound; ``share``: how much of it was in use on average.

    ``hot``: on one node only. Of waiting, ``share`` is that of the busiest resource.
    """

    start_s: float
    end_s: float
    resource: str
    share: float
    hot: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


def bottlenecks(record: RunRecord) -> tuple[Segment, ...]:
    """The timeline of a run; empty where the record shows none of its resources."""
    spans = chosen(record.spans, "kind", WAITS)
    times = (numbers(spans, "start_s").tolist(), numbers(spans, "end_s").tolist())
    named = [(WAITS[kind], start, end) for kind, start, end in zip(texts(spans, "kind"), *times, strict=True)]
    if (loop := steps(record)) is not None:
        columns = (loop[name].to_pylist() for name in ("operator", "start_s", "end_s"))
        named += [(f"{LOOP}{name}", start, end) for name, start, end in zip(*columns, strict=True)]
    return timeline(usage(record), named)


def timeline(used: Usage, waits: Sequence[tuple[str, float, float]] = ()) -> tuple[Segment, ...]:
    """What binds when; ``waits``: (why, start, end) of stages that wait."""
    starts = sorted({t for curve in used.use.values() for t in curve.times_s if t < used.end_s})
    if not starts:
        return ()
    edges = np.array([*starts, used.end_s])
    use, hot = ({name: _at(c, edges) for name, c in curves.items()} for curves in (used.use, used.hot))
    covered = {why: _covered(waits, why, edges) for why in sorted({why for why, _, _ in waits})}
    found: list[Segment] = []
    for i, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        resource, share, one = _binds({n: v[i] for n, v in use.items()}, {n: v[i] for n, v in hot.items()})
        if resource == WAITING:
            why = max(covered, key=lambda w: (w.startswith(LOOP) and covered[w][i] >= 0.5, covered[w][i]), default="")
            resource = why if why and covered[why][i] >= 0.5 else WAITING
        last = found[-1] if found else None
        if last is not None and (last.resource, last.hot) == (resource, one):
            mean = (last.share * last.seconds + share * (end - start)) / (end - last.start_s)
            found[-1] = Segment(last.start_s, end, resource, mean, one)
        else:
            found.append(Segment(start, end, resource, share, one))
    return tuple(found)


def _binds(use: Mapping[str, float], hot: Mapping[str, float]) -> tuple[str, float, bool]:
    """(resource, share, whether on one node only)."""
    rates = [*RATES, *(name for name in use if name.startswith("workers:"))]
    best = max((name for name in rates if name in use), key=lambda n: round(use[n], 2), default="")
    if best and use[best] >= BUSY:
        return best, float(use[best]), False
    hottest = max((name for name in RATES if name in hot), key=lambda n: round(hot[n], 2), default="")
    if hottest and hot[hottest] >= BUSY:
        return hottest, float(hot[hottest]), True
    for space in SPACES:
        for shares, one in ((use, False), (hot, True)):
            if shares.get(space, 0.0) >= FULL:
                return space, float(shares[space]), one
    return WAITING, float(use.get(best, 0.0)), False


def _at(curve: Curve, edges: np.ndarray) -> np.ndarray:
    """The value of steps in each stretch; 0 before the first."""
    place = np.searchsorted(np.array(curve.times_s), edges[:-1], side="right")
    return np.concatenate([[0.0], curve.values])[place]


def _covered(waits: Sequence[tuple[str, float, float]], why: str, edges: np.ndarray) -> np.ndarray:
    """Share of each stretch in which a stage waits, at most 1."""
    total = np.zeros(len(edges) - 1)
    for kind, start, end in waits:
        if kind == why:
            total += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0.0, None)
    return np.minimum(total / np.maximum(np.diff(edges), 1e-12), 1.0)


def longest(segments: Sequence[Segment]) -> tuple[tuple[str, float], ...]:
    """(resource, share of the run's time that it binds), longest first."""
    total = sum(s.seconds for s in segments)
    seconds: dict[str, float] = {}
    for segment in segments:
        seconds[segment.resource] = seconds.get(segment.resource, 0.0) + segment.seconds
    ordered = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    return tuple((name, part / total) for name, part in ordered) if total > 0 else ()
