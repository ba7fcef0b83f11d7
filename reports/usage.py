"""What a run used of its resources over time, as steps: simulated runs recorded it, real ones show CPU, memory and devices.

A value holds from its time to the next one, the last to the end of the run. Shares are of the cluster's capacity, 0 … 1. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from windtunnel.records.columns import chosen, numbers, texts
from windtunnel.records.record import RunRecord
from windtunnel.reports.metrics import Curve

_BUCKETS = 100  # of devices of real runs, which are read off spans
_PREFIXES = ("use:", "hot:", "lost:", "queue_bytes:", "spill_bytes_per_s")


@dataclass(frozen=True, slots=True)
class Usage:
    """``use``: shares by resource; ``hot``: of the busiest node; ``lost``: spent on work that was lost; ``amounts``: by sample name."""

    end_s: float
    use: dict[str, Curve]
    hot: dict[str, Curve]
    lost: dict[str, Curve]
    amounts: dict[str, Curve]


def usage(record: RunRecord) -> Usage:
    """Of a run that ended well, or as far as it came."""
    found = _recorded(record)
    end = record.makespan_s or max((c.times_s[-1] for c in found.values() if c.times_s), default=0.0)
    if record.clock == "wall":
        found |= {f"use:{name}": curve for name, curve in _measured(record, end).items() if curve.times_s}

    def named(prefix: str) -> dict[str, Curve]:
        return {name.removeprefix(prefix): curve for name, curve in found.items() if name.startswith(prefix)}

    amounts = {name: curve for name, curve in found.items() if not name.startswith(_PREFIXES[:3])}
    return Usage(end, named("use:"), named("hot:"), named("lost:"), amounts)


def _recorded(record: RunRecord) -> dict[str, Curve]:
    """All samples of a simulated run that are averages from their time on."""
    samples = record.samples
    found: dict[str, tuple[list[float], list[float]]] = {}
    values_of = (numbers(samples, "time_s").tolist(), numbers(samples, "value").tolist())
    for name, time, value in zip(texts(samples, "name"), *values_of, strict=True):
        if name.startswith(_PREFIXES):
            times, values = found.setdefault(name, ([], []))
            times.append(time)
            values.append(value)
    return {name: Curve(tuple(times), tuple(values)) for name, (times, values) in found.items()}


def _measured(record: RunRecord, end: float) -> Mapping[str, Curve]:
    nodes = record.cluster_spec["nodes"]
    cpus = sum(n["count"] * n["cpus"] for n in nodes)
    memory = sum(n["count"] * (n.get("memory_limit_bytes") or n["memory_bytes"]) for n in nodes)
    return {
        "cpu": _until(record, "cpu_cores", cpus),
        "memory": _until(record, "memory_bytes", memory),
        "device": _devices(record, end, sum(n["count"] * n["gpus"]["count"] for n in nodes)),
    }


def _until(record: RunRecord, name: str, capacity: float) -> Curve:
    """A sampler tells what was since its last look: the value holds before its time."""
    samples = chosen(record.samples, "name", (name,))
    if not samples.num_rows or not capacity:
        return Curve((), ())
    times, values = numbers(samples, "time_s"), numbers(samples, "value")
    order = np.argsort(times, kind="stable")
    return Curve((0.0, *times[order][:-1].tolist()), tuple(np.clip(values[order] / capacity, 0.0, 1.0).tolist()))


def _devices(record: RunRecord, end: float, count: int) -> Curve:
    """Share of the devices that ran something, by the spans of operators that need one."""
    needs = {
        op["name"]: min(float(op["resources"].get("gpus", 0.0)), 1.0) for op in record.workload_spec["pipeline"]["operators"]
    }
    if not count or end <= 0 or not any(needs.values()):
        return Curve((), ())
    edges = np.linspace(0.0, end, _BUCKETS + 1)
    busy = np.zeros(_BUCKETS)
    spans = chosen(record.spans, "kind", ("compute",))
    for name, start, stop in zip(*(spans[c].to_pylist() for c in ("operator", "start_s", "end_s")), strict=True):
        if needs.get(name):
            busy += needs[name] * np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0.0, None)
    return Curve(tuple(edges[:-1].tolist()), tuple(np.minimum(busy / (count * end / _BUCKETS), 1.0).tolist()))
