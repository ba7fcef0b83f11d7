"""Simulated against real: the error of every simulated number that has a measurement, and whether the order of engines holds.

A simulated configuration ``sim:X`` belongs to the real ``X`` when workload, data, cluster and shared options are equal. The
error is the simulated median over the real one, minus 1. Pure; it knows records only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from windtunnel.reports import stats

from windtunnel.canonical import canonical_json
from windtunnel.record import RunRecord

_SIM = "sim:"
_WORLD_ONLY = ("calibration", "seed", "spans", "spill_dir")  # options that say nothing of what runs

Key = tuple[str, float, str, str]


@dataclass(frozen=True, slots=True)
class Point:
    """A simulated configuration beside its measurement: medians of the makespan, and the error as a fraction."""

    workload: str
    scale: float
    cpus: int
    partitions: int
    engine: str
    label: str
    real_s: float
    simulated_s: float
    error: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """All points; ``orders_agree`` of ``orders`` pairs of engines whose real difference passes the noise come in the same order."""

    points: tuple[Point, ...]
    median_error: float | None
    worst_error: float | None
    orders: int
    orders_agree: int
    unmeasured: tuple[str, ...]
    keys: dict[str, float]

    def error_of(self, record: RunRecord) -> float | None:
        """The error of a simulated record's configuration."""
        return self.keys.get(_name(_key(record), record.label)) if record.clock == "virtual" else None


def fidelity(records: Sequence[RunRecord]) -> Fidelity:
    """Every simulated configuration with its error."""
    simulated, real = _by_configuration(records, "virtual"), _by_configuration(records, "wall")
    points: list[Point] = []
    keys: dict[str, float] = {}
    unmeasured: list[str] = []
    pairs: dict[Key, list[tuple[list[float], list[float]]]] = {}
    for (key, label), runs in simulated.items():
        match = _measured(key, runs[0], real)
        if match is None:
            unmeasured.append(f"{label} on {key[0]} at scale {key[1]:g}")
            continue
        made, took = [_makespan(r) for r in runs], [_makespan(r) for r in match]
        error = float(np.median(made) / np.median(took) - 1)
        points.append(_point(runs[0], float(np.median(took)), float(np.median(made)), error))
        keys[_name(key, label)] = error
        pairs.setdefault(key, []).append((took, made))
    errors = [abs(p.error) for p in points]
    agree, of = _orders(pairs)
    return Fidelity(
        points=tuple(points),
        median_error=float(np.median(errors)) if errors else None,
        worst_error=max(errors) if errors else None,
        orders=of,
        orders_agree=agree,
        unmeasured=tuple(unmeasured),
        keys=keys,
    )


def _point(record: RunRecord, real_s: float, simulated_s: float, error: float) -> Point:
    cpus = sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])
    partitions = int(record.workload_spec["dataset"]["partitions"])
    return Point(record.workload, record.scale, cpus, partitions, record.engine, record.label, real_s, simulated_s, error)


def _by_configuration(records: Sequence[RunRecord], clock: str) -> dict[tuple[Key, str], list[RunRecord]]:
    found: dict[tuple[Key, str], list[RunRecord]] = {}
    for r in records:
        if r.clock == clock and r.status == "ok" and r.makespan_s:
            found.setdefault((_key(r), r.label), []).append(r)
    return found


def _key(record: RunRecord) -> Key:
    return (record.workload, record.scale, canonical_json(record.cluster_spec), canonical_json(record.workload_spec))


def _name(key: Key, label: str) -> str:
    return canonical_json([*key, label])


def _makespan(record: RunRecord) -> float:
    assert record.makespan_s is not None
    return record.makespan_s


def _measured(key: Key, simulated: RunRecord, real: dict[tuple[Key, str], list[RunRecord]]) -> list[RunRecord] | None:
    """All real runs of the same configuration, its A/A arm too."""
    engine = simulated.engine.removeprefix(_SIM)
    runs = [
        r
        for (other, _), part in real.items()
        if other == key and part[0].engine == engine and _same_options(simulated.options, part[0].options)
        for r in part
    ]
    return runs or None


def _same_options(a: dict[str, Any], b: dict[str, Any]) -> bool:
    shared = [k for k in a if k in b and k not in _WORLD_ONLY]
    return all(a[k] == b[k] for k in shared)


def _orders(pairs: dict[Key, list[tuple[list[float], list[float]]]]) -> tuple[int, int]:
    """(pairs in the same order, pairs whose real difference is shown)."""
    agree = of = 0
    for configurations in pairs.values():
        for (real_a, made_a), (real_b, made_b) in combinations(configurations, 2):
            shown = stats.verdict(stats.ratio(real_a, real_b), None)
            if shown in ("faster", "slower"):
                of += 1
                agree += (np.median(made_a) < np.median(made_b)) == (shown == "faster")
    return agree, of
