"""Wall records of the embedded engines → a `Calibration`: costs of every phase, the co-run law, overheads, residuals.

Costs are fitted by non-negative least squares on relative errors, with outliers set aside once, then stretched to what whole
runs add up to. Times of tasks that ran beside others are first divided by the co-run law, as much of it as the phase feels;
law and sensitivities are fitted in turn, and a few rounds settle all. Runs that a busy neighbour disturbed are left out. What
the world itself costs is told by `overheads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.sim.calibration.actors import FirstCall, first_call, load_costs
from windtunnel.sim.calibration.collect import Key, Samples, collect
from windtunnel.sim.calibration.fits import (
    FLOOR_S,
    Array,
    is_constant,
    non_negative_fit,
    rows_law,
    run_ratios,
    spread,
    weighted_median,
)
from windtunnel.sim.calibration.observe import ObservedRun, observe
from windtunnel.sim.calibration.overheads import engine_cost
from windtunnel.sim.calibration.quiet import quiet, settled
from windtunnel.sim.costs.curves import at_zero, task_weights
from windtunnel.sim.costs.measured import Calibration, OperatorCost, Residual
from windtunnel.sim.hardware.cpu import slowdown_at
from windtunnel.spec.plan import Scan
from windtunnel.spec.workload import Workload

_ROUNDS = 4
_FELT = 1.02  # a co-run law below this is too weak to tell who feels it
_MOST_FELT = 8.0
_LEAST = 1 / 3  # of the runs of a workload on so many workers stay in, the quietest, however busy the machine was


@dataclass(frozen=True, slots=True)
class Law:
    """What slows tasks of every kind down: the co-run law as (busy workers, duration multiplier), and a worker's first task."""

    points: tuple[tuple[float, float], ...] = ()
    cold: float = 1.0


def calibrate(
    records: Sequence[RunRecord], *, provenance: Mapping[str, Any], workloads: Mapping[str, Workload] | None = None
) -> Calibration:
    """Fit everything that the records tell. Raises InputError when none of them is a verified wall run of an embedded engine."""
    usable = [r for r in records if r.clock == "wall" and r.status == "ok" and not r.warmup and r.engine in ("bulk", "streaming")]
    if not usable:
        raise InputError(
            f"none of {len(records)} records is a measured, successful wall run of bulk or streaming; "
            f"make some with `windtunnel run` and pass their store"
        )
    calm = settled(quiet(usable, lambda r: (r.workload, _workers(r)), keep=_LEAST))
    runs = [observe(r, workloads) for r in calm]
    samples, firsts = collect(runs)
    law = Law()
    for _ in range(_ROUNDS):
        fitted = {key: _fit(s, law) for key, s in samples.items()}
        law = Law(_co_run_law(samples, fitted, law), _cold_law(samples, fitted, law))
        for key, s in samples.items():
            s.sensitivity = _sensitivity(s, fitted[key], law)
    fitted = {key: _mean_kept(samples[key], cost, law) for key, cost in fitted.items()}
    operators = tuple(_operator(key, samples[key], fitted[key], law) for key in sorted(samples))
    operators += tuple(load_costs(runs, _first_calls(firsts, samples, fitted, law)))
    engines = tuple(
        engine_cost(name, [r for r in runs if r.record.engine == name], law.points, law.cold)
        for name in sorted({r.record.engine for r in runs})
    )
    return Calibration(
        operators=operators, engines=engines, residuals=_residuals(runs, samples, fitted, law),
        provenance={**provenance, "records": len(calm), "left_out": len(usable) - len(calm), "environment": usable[0].environment},
    )  # fmt: skip


def _workers(record: RunRecord) -> int:
    return sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])


# -- fits -------------------------------------------------------------------------------------------------------------


def _fit(samples: Samples, law: Law) -> Array:
    """(fixed, per row, per byte), or the values of a curve, by non-negative least squares on relative errors; outliers are set aside
    once."""
    y = samples.array("seconds") / _multipliers(samples, law)
    columns = _columns(samples)
    if samples.knots:
        return _curve(samples.knots, columns, y)
    if _redundant(columns[:, 1], columns[:, 2]):
        columns[:, 2] = 0.0
    if is_constant(columns[:, 1]):
        # Fixed and per-row costs cannot be told apart. Rows that do not follow the data cost a fixed time; where there is one
        # scale alone, nobody knows whether they do, and rows carry the cost.
        columns[:, 0 if is_constant(samples.array("scale")) else 1] = 0.0
    return _robust(columns, y)


def _curve(knots: tuple[float, ...], columns: Array, y: Array) -> Array:
    """Values of a curve. Calls smaller than the smallest are seen at the ends of tasks alone, too few to tell a value at 0 rows: it lies
    on the line through the first two calls."""
    zero, values = 0.0, np.zeros(len(knots))
    for _ in range(_ROUNDS):
        left = np.maximum(y - zero * columns[:, 0], FLOOR_S)
        values = np.concatenate([[zero], _robust(columns[:, 1:], left)])
        zero = at_zero(knots, values)
    return np.array([zero, *values[1:]])


def _columns(samples: Samples) -> Array:
    if samples.knots:
        calls = zip(samples.rows, samples.batch, strict=True)
        return np.stack([task_weights(samples.knots, rows, batch) for rows, batch in calls])
    return np.stack([np.ones(len(samples.rows)), samples.array("rows"), samples.array("bytes")], axis=1)


def _robust(columns: Array, y: Array) -> Array:
    cost = non_negative_fit(columns, y)
    residual = np.abs(y - columns @ cost) / np.maximum(y, FLOOR_S)
    keep = residual <= max(3 * float(np.median(residual)), 0.05)
    return non_negative_fit(columns[keep], y[keep])


def _redundant(rows: Array, size: Array) -> bool:
    """Whether bytes say no more than rows: every row is about as wide."""
    width = size[rows > 0] / rows[rows > 0]
    return len(width) == 0 or float(np.std(width)) <= 0.05 * float(np.mean(width))


def _multipliers(samples: Samples, law: Law) -> Array:
    """What neighbours and cold memory make of each task's time."""
    return _beside(samples, law) * _colds(samples, law)


def _beside(samples: Samples, law: Law) -> Array:
    felt: Array = 1.0 + samples.sensitivity * (_law_at(samples, law) - 1.0)
    return felt


def _colds(samples: Samples, law: Law) -> Array:
    return np.where(samples.array("cold") > 0, law.cold, 1.0)


def _law_at(samples: Samples, law: Law) -> Array:
    return np.array([slowdown_at(law.points, o) for o in samples.overlap])


def _predicted(samples: Samples, cost: Array) -> Array:
    predicted: Array = _columns(samples) @ cost
    return predicted


def _mean_kept(samples: Samples, cost: Array, law: Law) -> Array:
    """The fit stretched so that half of the runs spend more in the phase than it says, half less.

    Times are skewed: a fit through the many usual ones, with outliers set aside, falls short of what a run adds up to.
    """
    expected = _predicted(samples, cost) * _multipliers(samples, law)
    ratios = run_ratios(samples.array("run"), samples.array("seconds"), expected)
    return cost * float(np.median([r for r, _ in ratios.values()])) if ratios else cost


def _co_run_law(samples: Mapping[Key, Samples], fitted: Mapping[Key, Array], law: Law) -> tuple[tuple[float, float], ...]:
    """Measured over fitted time at each whole number of busy workers: the median of the runs' sums, long runs counting for more."""
    sums: dict[int, dict[int, tuple[float, float]]] = {}
    for key in sorted(samples):
        s = samples[key]
        predicted = _predicted(s, fitted[key]) * _colds(s, law)
        for overlap, run, expected, measured in zip(s.overlap, s.run, predicted.tolist(), s.seconds, strict=True):
            if expected > 10 * FLOOR_S:
                level = sums.setdefault(round(overlap), {})
                before = level.get(run, (0.0, 0.0))
                level[run] = before[0] + measured, before[1] + expected
    levels = {k: weighted_median([(m / e, m) for m, e in runs.values()]) for k, runs in sorted(sums.items())}
    if 1 not in levels:
        return ()
    points, highest = [], 1.0
    for busy, ratio in levels.items():
        highest = max(highest, ratio / levels[1])  # more neighbours never make it faster
        points.append((float(busy), highest))
    return tuple(points)


def _cold_law(samples: Mapping[Key, Samples], fitted: Mapping[Key, Array], law: Law) -> float:
    """How much longer a worker's first task takes than its later ones of equal size: the median of the runs that have both."""
    sums: dict[int, list[float]] = {}
    for key in sorted(samples):
        s = samples[key]
        predicted = _predicted(s, fitted[key]) * _beside(s, law)
        for cold, run, expected, measured in zip(s.cold, s.run, predicted.tolist(), s.seconds, strict=True):
            of = sums.setdefault(run, [0.0] * 4)
            of[2 * cold] += measured
            of[2 * cold + 1] += expected
    ratios = [(of[2] / of[3]) / (of[0] / of[1]) for of in sums.values() if min(of) > 10 * FLOOR_S]
    return float(np.clip(np.median(ratios), 1.0, 2.0)) if ratios else 1.0


def _sensitivity(samples: Samples, cost: Array, law: Law) -> float:
    """How much of the co-run law the phase feels: what bounds it by memory bandwidth (decoding, copying) more than arithmetic."""
    expected, measured, run = _predicted(samples, cost) * _colds(samples, law), samples.array("seconds"), samples.array("run")
    beside = samples.array("overlap") >= 1.5
    at = _law_at(samples, law)
    if not beside.any() or beside.all() or float(np.mean(at[beside])) < _FELT:
        return 1.0
    alone, together = (
        float(np.median([r for r, _ in run_ratios(run[part], measured[part], expected[part]).values()] or [1.0]))
        for part in (~beside, beside)
    )
    felt = together / alone - 1.0 if alone > 0 else 0.0
    return float(np.clip(felt / (float(np.mean(at[beside])) - 1.0), 0.0, _MOST_FELT))


def _first_calls(
    firsts: Mapping[Key, tuple[str, Samples]], samples: Mapping[Key, Samples], fitted: Mapping[Key, Array], law: Law
) -> dict[tuple[str, str], FirstCall]:
    """What an actor's first task takes longer than its later ones, by workload and first operator of its stage."""
    extra: dict[tuple[str, str], FirstCall] = {}
    for key, (operator, first) in sorted(firsts.items()):
        first.sensitivity, first.knots = samples[key].sensitivity, samples[key].knots
        longer = first.array("seconds") - _predicted(first, fitted[key]) * _beside(first, law)
        calls = np.minimum(first.array("batch"), first.array("rows"))
        before = extra.get((key[0], operator), FirstCall())
        extra[key[0], operator] = before + first_call(longer, calls)
    return extra


def _operator(key: Key, samples: Samples, cost: Array, law: Law) -> OperatorCost:
    workload, operator, phase = key
    predicted = _predicted(samples, cost) * _multipliers(samples, law)
    error = np.abs(samples.array("seconds") - predicted) / np.maximum(samples.array("seconds"), FLOOR_S)
    factor, exponent = (
        _scan_rows(samples) if phase == Scan.__name__ else rows_law(samples.array("rows"), samples.array("rows_out"))
    )
    curve = tuple(zip(samples.knots, map(float, cost), strict=True)) if samples.knots else ()
    fixed, row, byte = map(float, (0.0, cost[-1] / samples.knots[-1], 0.0) if curve else cost)
    total = sum(samples.rows_out)
    seconds = samples.array("seconds")
    return OperatorCost(
        workload=workload, operator=operator, phase=phase, fixed_s=fixed, per_row_s=row, per_byte_s=byte, curve=curve,
        cv=spread(samples.array("run"), seconds, predicted), rows_factor=factor,
        rows_exponent=exponent, row_bytes_out=sum(samples.bytes_out) / total if total else 0.0, samples=len(seconds),
        error=float(np.median(error)), sensitivity=samples.sensitivity,
    )  # fmt: skip


def _scan_rows(samples: Samples) -> tuple[float, float]:
    """Total rows of the table after its filter, as a power of the data set's scale."""
    totals: dict[int, float] = {}
    scales: dict[int, float] = {}
    for run, rows, scale in zip(samples.run, samples.rows, samples.scale, strict=True):
        totals[run] = totals.get(run, 0.0) + rows
        scales[run] = scale
    return rows_law(np.array(list(scales.values())), np.array(list(totals.values())))


def _residuals(
    runs: Sequence[ObservedRun], samples: Mapping[Key, Samples], fitted: Mapping[Key, Array], law: Law
) -> tuple[Residual, ...]:
    measured, expected = np.zeros(len(runs)), np.zeros(len(runs))
    for key, s in samples.items():
        np.add.at(measured, s.run, s.array("seconds"))
        np.add.at(expected, s.run, _predicted(s, fitted[key]) * _multipliers(s, law))
    return tuple(
        Residual(
            cell=run.record.run_id,
            engine=run.record.engine,
            measured_s=float(m),
            fitted_s=float(e),
            error=float(abs(e - m) / m) if m else 0.0,
        )
        for run, m, e in zip(runs, measured, expected, strict=True)
    )
