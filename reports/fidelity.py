"""Simulated against real: the error of every simulated number that has a measurement, and whether the order of engines holds.

A simulated configuration ``sim:X`` belongs to the real ``X`` when workload, data, cluster and shared options are equal. The
error is the simulated median over the real one, minus 1; the real median is over all equal runs, the A/A arm's too. Pure; it
knows records only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from windtunnel.records.record import RunRecord
from windtunnel.reports import stats
from windtunnel.reports.arms import by_group, by_label, good, makespans, noise_floors, titles

_SIM = "sim:"
_WORLD_ONLY = ("calibration", "seed", "spans", "spill_dir")  # options that say nothing of what runs


@dataclass(frozen=True, slots=True)
class Point:
    """A simulated configuration beside its measurement: medians of the makespan, the error as a fraction, its group's title."""

    workload: str
    scale: float
    cpus: int
    partitions: int
    engine: str
    label: str
    real_s: float
    simulated_s: float
    error: float
    title: str


@dataclass(frozen=True, slots=True)
class Fidelity:
    """All points; ``orders_agree`` of ``orders`` pairs of engines whose real difference passes the noise come in the same order.

    ``unmeasured`` names simulated configurations without a measurement; ``errors`` holds the error of each simulated cell.
    """

    points: tuple[Point, ...]
    median_error: float | None
    worst_error: float | None
    orders: int
    orders_agree: int
    unmeasured: tuple[str, ...]
    errors: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Runs of one configuration in both worlds; ``title`` is their group's."""

    title: str
    simulated: list[RunRecord]
    real: list[RunRecord]

    @property
    def point(self) -> Point:
        record = self.simulated[0]
        made, took = float(np.median(makespans(self.simulated))), float(np.median(makespans(self.real)))
        cpus = sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])
        partitions = int(record.workload_spec["dataset"]["partitions"])
        return Point(
            workload=record.workload,
            scale=record.scale,
            cpus=cpus,
            partitions=partitions,
            engine=record.engine,
            label=record.label,
            real_s=took,
            simulated_s=made,
            error=made / took - 1,
            title=self.title,
        )


def fidelity(records: Sequence[RunRecord]) -> Fidelity:
    """Every simulated configuration with its error; warm-ups and bad runs are no measurement."""
    groups = by_group(r for r in records if not r.warmup)
    names, floors = titles(groups), noise_floors(groups)
    pairs: list[_Pair] = []
    unmeasured: list[str] = []
    agree = of = 0
    for key, part in groups.items():
        found, missing = _pairs(names[key], part)
        pairs += found
        unmeasured += [f"{label} on {names[key]}" for label in missing]
        same, shown = _orders(found, floors[key])
        agree, of = agree + same, of + shown
    sizes = [abs(p.point.error) for p in pairs]
    return Fidelity(
        points=tuple(p.point for p in pairs),
        median_error=float(np.median(sizes)) if sizes else None,
        worst_error=max(sizes, default=None),
        orders=of,
        orders_agree=agree,
        unmeasured=tuple(unmeasured),
        errors={r.cell: p.point.error for p in pairs for r in p.simulated},
    )


def _pairs(title: str, records: Sequence[RunRecord]) -> tuple[list[_Pair], list[str]]:
    """Pairs of a group, and labels of simulated configurations without a measurement."""
    fine = [r for r in good(records) if r.makespan_s]
    found: list[_Pair] = []
    missing: list[str] = []
    for (clock, label), simulated in by_label(fine).items():
        if clock == "virtual":
            real = [r for r in fine if r.clock == "wall" and _same(simulated[0], r)]
            found += [_Pair(title, simulated, real)] if real else []
            missing += [] if real else [label]
    return found, missing


def _same(simulated: RunRecord, real: RunRecord) -> bool:
    """Whether a real run is of the simulated engine, with equal options as far as both have them."""
    return real.engine == simulated.engine.removeprefix(_SIM) and _same_options(simulated.options, real.options)


def _same_options(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[name] == b[name] for name in a.keys() & b.keys() - set(_WORLD_ONLY))


def _orders(pairs: Sequence[_Pair], noise: float | None) -> tuple[int, int]:
    """(pairs of engines in the same order, pairs whose real difference is shown)."""
    agree = of = 0
    for a, b in combinations(pairs, 2):
        found = stats.ratio_of(makespans(a.real), makespans(b.real))
        shown = stats.verdict(found, noise) if found else ""
        if shown in ("faster", "slower"):
            of += 1
            agree += (a.point.simulated_s < b.point.simulated_s) == (shown == "faster")
    return agree, of
