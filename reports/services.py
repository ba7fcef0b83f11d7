"""Serving records → what a report says of services: latencies with their confidence, load curves and their knee, where time went,
simulated against real. Pure; it draws nothing.

A group is one set of deployments on one cluster, whatever was offered to it. A configuration (engine or label, in one world) has a
`Point` for each load that was offered; several runs of one load (other seeds, other repetitions) make one point, of all their
requests together. Percentiles count from the intended send time, of requests answered well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from windtunnel.records.record import RunRecord
from windtunnel.records.serving import OUTCOMES, TOKENS, replicas_over_time, serving_numbers
from windtunnel.reports.arms import is_aa
from windtunnel.reports.breakdown import Breakdown, breakdown
from windtunnel.reports.confidence import Quantile, quantile
from windtunnel.reports.metrics import Curve, sampled
from windtunnel.spec.canonical import canonical_json
from windtunnel.spec.units import format_seconds

LEVELS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_RATES = ("rate_per_s", "steps", "concurrency", "file", "column", "duration_s")  # what a load differs in


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration under one load. ``offered``: requests a second sent, or clients of a closed loop (``closed``).

    ``goodput_per_s``: good answers within the objective's bound; None without one. ``cdf``: seconds at rising shares of requests,
    evenly spaced in the logarithm of what is left. ``tokens``: of streamed answers, p50 and p99 of the time to the first token and of
    the time of each one after it (TTFT, TPOT), and tokens a second; the mean of the runs. Numbers are None where no run ended well.
    """

    label: str
    engine: str
    clock: str
    load: str
    closed: bool
    status: str
    reason: str | None
    runs: int
    offered: float | None
    answered_per_s: float | None
    goodput_per_s: float | None
    mean_s: float | None
    percentiles: dict[str, Quantile]
    requests: dict[str, int]
    tokens: dict[str, float]
    cdf: tuple[tuple[float, float], ...]
    breakdown: Breakdown | None
    replicas: dict[str, Curve]
    queues: dict[str, Curve]
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A configuration over its loads, in rising order. ``knee``: the load with the most throughput per mean latency (Kleinrock's
    power); ``highest``: the highest load offered up to which all keep the objective, None without an objective or such a load."""

    label: str
    clock: str
    points: tuple[Point, ...]
    knee: float | None
    highest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One number of a simulated run beside the real one."""

    title: str
    label: str
    quantity: str
    real: float
    simulated: float

    @property
    def error(self) -> float:
        """Simulated over real, minus 1."""
        return self.simulated / self.real - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """All that is shown of a group."""

    title: str
    objective_s: float | None
    points: tuple[Point, ...]
    curves: tuple[Curves, ...]
    matches: tuple[Match, ...]
    verdict: str


def services(records: Sequence[RunRecord]) -> tuple[Service, ...]:
    """Serving records by what serves."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_what(record), []).append(record)
    titles = [f"{part[0].workload} on {part[0].cluster}" for part in groups.values()]
    found = zip(groups.values(), titles, strict=True)
    return tuple(_service(part, t if titles.count(t) == 1 else f"{t} ({part[0].workload_digest[:8]})") for part, t in found)


def _what(record: RunRecord) -> str:
    """The deployments, their cluster and what a request is, without the load."""
    spec = record.workload_spec["serving"]
    arrivals = {k: v for k, v in spec["arrivals"].items() if k not in _RATES}
    return canonical_json([record.workload, record.cluster_spec, spec["deployments"], arrivals])


def _service(records: Sequence[RunRecord], title: str) -> Service:
    objective = (records[0].workload_spec.get("objective") or {}).get("p99_s")
    arms: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        arms.setdefault((record.clock, record.label, _load(record)), []).append(record)
    points = tuple(sorted((_point(part, objective) for part in arms.values()), key=_order))
    curves = tuple(_curves(points, objective))
    matches = tuple(_matches(points))
    return Service(
        title=title, objective_s=objective, points=points, curves=curves, matches=matches,
        verdict=_verdict(points, curves, matches, objective),
    )  # fmt: skip


def _order(point: Point) -> tuple[str, bool, float, str]:
    return point.label, point.clock != "wall", point.offered or 0.0, point.load


def _load(record: RunRecord) -> str:
    """What was offered, in words: equal words are one load."""
    arrivals: dict[str, Any] = record.workload_spec["serving"]["arrivals"]
    kind = arrivals["kind"]
    if kind == "closed":
        return f"{arrivals['concurrency']} client{'s' if arrivals['concurrency'] != 1 else ''}"
    if arrivals.get("rate_per_s"):
        return f"{arrivals['rate_per_s']:g}/s" + ("" if kind == "poisson" else f" {kind}")
    return f"{kind} {arrivals.get('file') or ''}".strip()


def _point(records: Sequence[RunRecord], objective: float | None) -> Point:
    good = [r for r in records if r.status == "ok"]
    first, some = (good or list(records))[0], good or []
    bad = next((r for r in records if r.status != "ok"), None)
    latencies = [_latencies(r) for r in some]
    together = np.concatenate(latencies) if latencies else np.empty(0)
    closed = first.workload_spec["serving"]["arrivals"]["kind"] == "closed"
    numbers = [serving_numbers(r) for r in some]
    answered = _mean([n["throughput_per_s"] for n in numbers])
    clients = float(first.workload_spec["serving"]["arrivals"].get("concurrency") or 0)
    within = float((together <= objective).mean()) if objective and len(together) else None
    return Point(
        label=first.label, engine=first.engine, clock=first.clock, load=_load(first), closed=closed,
        status=first.status, reason=None if bad is None else bad.reason, runs=len(some),
        offered=clients if closed else _mean([n["offered_per_s"] for n in numbers]), answered_per_s=answered,
        goodput_per_s=None if within is None or answered is None else answered * within,
        mean_s=_mean([n["latency_s"]["mean"] for n in numbers]),
        percentiles={name: quantile(latencies, level) for name, level in LEVELS.items()} if len(together) else {},
        requests={k: sum(n["requests"][k] for n in numbers) for k in ("sent", *OUTCOMES)} if numbers else {},
        tokens=_tokens(some), cdf=_cdf(together), breakdown=breakdown(first) if some else None,
        replicas=_replicas(first) if some else {}, queues=_queues(first) if some else {}, end_s=first.makespan_s or 0.0,
    )  # fmt: skip


def _tokens(records: Sequence[RunRecord]) -> dict[str, float]:
    names = (*(f"{kind}_{level}_s" for kind in TOKENS for level in ("p50", "p99")), "tokens_per_s")
    found = {name: _mean([r.counters.get(name) for r in records]) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _latencies(record: RunRecord) -> np.ndarray:
    """In the order of the send times, so that neighbours saw the same state of the service."""
    samples = record.samples
    chosen = samples.filter(pc.equal(samples["name"].cast("string"), "latency_s"))
    ends, values = chosen["time_s"].to_numpy(), chosen["value"].to_numpy()
    ordered: np.ndarray = values[np.argsort(ends - values, kind="stable")]
    return ordered


def _cdf(latencies: np.ndarray, points: int = 120) -> tuple[tuple[float, float], ...]:
    if not len(latencies):
        return ()
    left = np.logspace(0, -np.log10(max(len(latencies), 2)), points)
    shares = 1 - left
    values = np.quantile(latencies, shares)
    return tuple(zip(shares.tolist(), values.tolist(), strict=True))


def _replicas(record: RunRecord) -> dict[str, Curve]:
    found = replicas_over_time(record)
    return {n: Curve(tuple(t for t, _ in steps), tuple(float(c) for _, c in steps)) for n, steps in found.items() if steps}


def _queues(record: RunRecord) -> dict[str, Curve]:
    """Calls waiting before each deployment: samples of the simulated world; of a real record all its waits, counted."""
    names = [d["name"] for d in record.workload_spec["serving"]["deployments"]]
    curves = {name: sampled(record, f"queue:{name}") for name in names}
    if not any(c.times_s for c in curves.values()):
        curves = {name: _waiting(record, name) for name in names}
    return {name: curve for name, curve in curves.items() if curve.times_s}


def _waiting(record: RunRecord, name: str) -> Curve:
    spans = record.spans
    kinds, operators = spans["kind"].cast("string"), spans["operator"].cast("string")
    chosen = spans.filter(pc.and_(pc.equal(kinds, "queue"), pc.equal(operators, name)))
    if not chosen.num_rows or not record.makespan_s:
        return Curve((), ())
    times = np.linspace(0.0, record.makespan_s, 120)
    begun = np.searchsorted(np.sort(chosen["start_s"].to_numpy()), times, side="right")
    ended = np.searchsorted(np.sort(chosen["end_s"].to_numpy()), times, side="right")
    return Curve(tuple(times.tolist()), tuple((begun - ended).astype(float).tolist()))


# -- loads ----------------------------------------------------------------------------------------------------------------


def _curves(points: Iterable[Point], objective: float | None) -> Iterator[Curves]:
    arms: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if point.mean_s is not None and point.offered is not None:
            arms.setdefault((point.label, point.clock), []).append(point)
    for (label, clock), part in arms.items():
        ordered = sorted(part, key=lambda p: p.offered or 0.0)
        yield Curves(label=label, clock=clock, points=tuple(ordered), knee=_knee(ordered), highest=_highest(ordered, objective))


def _knee(points: Sequence[Point]) -> float | None:
    """Only where there is something on both sides of it."""
    if len(points) < 3:
        return None
    power = [(p.answered_per_s or 0.0) / p.mean_s if p.mean_s else 0.0 for p in points]
    best = int(np.argmax(power))
    return points[best].offered


def _highest(points: Sequence[Point], objective: float | None) -> float | None:
    """Between the last load that keeps it and the first that does not, by the straight line through log latencies."""
    if objective is None:
        return None
    last: Point | None = None
    for point in points:
        here = point.percentiles["p99"].value
        if here > objective:
            if last is None or last.offered is None or point.offered is None:
                return None
            below = last.percentiles["p99"].value
            part = np.log(objective / below) / np.log(here / below)
            return float(last.offered + part * (point.offered - last.offered))
        last = point
    return None if last is None else last.offered


# -- two worlds -----------------------------------------------------------------------------------------------------------


def _matches(points: Sequence[Point]) -> Iterator[Match]:
    real = {(p.label, p.load): p for p in points if p.clock == "wall" and p.mean_s is not None}
    for point in points:
        other = real.get((point.label, point.load))
        if point.clock == "wall" or other is None or point.mean_s is None:
            continue
        pairs = {name: (other.percentiles[name].value, point.percentiles[name].value) for name in ("p50", "p99")}
        pairs["throughput"] = (other.answered_per_s or 0.0, point.answered_per_s or 0.0)
        for quantity, (measured, simulated) in pairs.items():
            if measured > 0:
                yield Match(title=point.load, label=point.label, quantity=quantity, real=measured, simulated=simulated)


def _verdict(points: Sequence[Point], curves: Sequence[Curves], matches: Sequence[Match], objective: float | None) -> str:
    """What a reader should know first."""
    parts = []
    for found in (c for c in curves if not is_aa(c.label)):
        world = "" if found.clock == "wall" else ", simulated,"
        unit = " clients" if found.points[0].closed else "/s"
        if objective is not None:
            kept = found.highest
            told = "does not keep" if kept is None else f"keeps up to {kept:.4g}{unit}"
            parts.append(f"{found.label}{world} {told} a p99 of {format_seconds(objective)}")
        elif found.knee is not None:
            parts.append(f"{found.label}{world} has its knee at {found.knee:.4g}{unit}")
    if not parts:
        best = min((p for p in points if p.mean_s is not None), key=lambda p: p.percentiles["p99"].value, default=None)
        parts.append(
            "no run ended well" if best is None else f"lowest p99: {best.percentiles['p99'].value * 1e3:.3g} ms, {best.label}"
        )
    if matches:
        errors = [abs(m.error) for m in matches]
        parts.append(f"simulated against real: median error {np.median(errors):.1%}, worst {max(errors):.1%}")
    return "; ".join(parts)
