"""Wall records of the embedded engines → a `Calibration`: costs of every phase, overheads, the co-run law, residuals.

Costs are fitted by non-negative least squares on relative errors, with outliers set aside once. Times of tasks that ran beside
others are first divided by the co-run law, which is fitted in turn: three rounds settle both. What cannot be told from the
records (the driver's own service times) keeps its default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from windtunnel.engines.physical import program
from windtunnel.sim.costs import Calibration, EngineCost, OperatorCost, Residual
from windtunnel.sim.hardware.cpu import slowdown_at
from windtunnel.sim.laws import EXCHANGE, SINK
from windtunnel.sim.observe import ObservedRun, ObservedTask, observe
from windtunnel.sim.quiet import quiet

from windtunnel.errors import InputError
from windtunnel.model import Stage
from windtunnel.plan import Join, Scan, Sink
from windtunnel.record import RunRecord
from windtunnel.workload import Workload

Array = np.ndarray[Any, np.dtype[np.float64]]
Key = tuple[str, str, str]  # workload, operator, phase
_FLOOR_S = 50e-6  # residuals of spans shorter than this are not relative
_ROUNDS = 3
_LEAST = 1 / 3  # of the runs of a workload on so many workers stay in, the quietest, however busy the machine was


@dataclass(slots=True)
class Samples:
    """What was seen of one phase, a task each. For a scan ``rows`` and ``bytes`` are its output; ``scale`` of the data set."""

    rows: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    rows_out: list[float] = field(default_factory=list)
    bytes_out: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    run: list[int] = field(default_factory=list)

    def add(
        self, rows: float, size: float, seconds: float, overlap: float, rows_out: float, bytes_out: float, scale: float, run: int
    ) -> None:
        """One task."""
        values = (rows, size, seconds, overlap, rows_out, bytes_out, scale, run)
        for column, value in zip(self.__slots__, values, strict=True):
            getattr(self, column).append(value)

    def array(self, name: str) -> Array:
        """A column."""
        return np.array(getattr(self, name), dtype=float)


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
    calm = quiet(usable, lambda r: (r.workload, _workers(r)), keep=_LEAST)
    runs = [observe(r, workloads) for r in calm]
    samples = _collect(runs)
    law: tuple[tuple[float, float], ...] = ()
    for _ in range(_ROUNDS):
        fitted = {key: _fit(s, law) for key, s in samples.items()}
        law = _co_run_law(samples, fitted)
    operators = tuple(_operator(key, samples[key], fitted[key], law) for key in sorted(samples))
    engines = tuple(
        _engine(name, [r for r in runs if r.record.engine == name], law) for name in sorted({r.record.engine for r in runs})
    )
    return Calibration(
        operators=operators, engines=engines, residuals=_residuals(runs, samples, fitted, law),
        provenance={**provenance, "records": len(calm), "disturbed": len(usable) - len(calm), "environment": usable[0].environment},
    )  # fmt: skip


def _workers(record: RunRecord) -> int:
    return sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])


# -- samples ----------------------------------------------------------------------------------------------------------


def _collect(runs: Iterable[ObservedRun]) -> dict[Key, Samples]:
    samples: dict[Key, Samples] = {}
    for number, run in enumerate(runs):
        for task in run.tasks:
            if task.stage is not None and task.attempt == 0:
                _collect_task(samples, run, task, task.stage, number)
    return samples


def _collect_task(samples: dict[Key, Samples], run: ObservedRun, task: ObservedTask, stage: Stage, number: int) -> None:
    workload, scale = run.record.workload, run.record.scale
    all_steps = program(stage).steps
    steps = [s for s in all_steps if not isinstance(s.phase, Sink)]
    sink = next((s for s in all_steps if isinstance(s.phase, Sink)), None)
    last = _output(run, task, sink is not None)

    def add(operator: str, phase: str, rows: float, size: float, seconds: float, out: tuple[float, float]) -> None:
        samples.setdefault((workload, operator, phase), Samples()).add(rows, size, seconds, task.overlap, *out, scale, number)

    for i, (step, span) in enumerate(zip(steps, task.compute, strict=False)):
        out = (task.compute[i + 1].rows, task.compute[i + 1].bytes) if i + 1 < len(task.compute) else last
        rows, size = float(span.rows), float(span.bytes)
        if i == 0 and isinstance(step.phase, Join):  # its span counts left rows alone
            rows, size = float(sum(p.rows for p in task.fetch)), float(sum(p.bytes for p in task.fetch))
        add(step.operator, type(step.phase).__name__, rows, size, span.seconds, out)
    if task.serialize and stage.output_partitions > 1:
        rows, size = sum(p.rows for p in task.serialize), sum(p.bytes for p in task.serialize)
        add(stage.operators[-1], EXCHANGE, rows, size, sum(p.seconds for p in task.serialize), (rows, size))
    if sink is not None:
        add(sink.operator, SINK, *last, sum(p.seconds for p in [*task.emit, *task.spill]), last)


def _output(run: ObservedRun, task: ObservedTask, has_sink: bool) -> tuple[float, float]:
    """Rows and bytes that left the last step; before a sink, which emits file names, they follow from the run's total."""
    if not has_sink:
        return float(task.rows_out), float(task.bytes_out)
    if not task.compute:
        return float(sum(p.rows for p in task.fetch)), float(sum(p.bytes for p in task.fetch))
    entered = sum(t.compute[-1].rows for t in run.tasks if t.stage is task.stage and t.compute)
    kept = (run.record.rows_out or 0) / entered if entered else 1.0
    return task.compute[-1].rows * kept, task.compute[-1].bytes * kept


# -- fits -------------------------------------------------------------------------------------------------------------


def _fit(samples: Samples, law: tuple[tuple[float, float], ...]) -> Array:
    """(fixed, per row, per byte) by non-negative least squares on relative errors; outliers are set aside once."""
    y = samples.array("seconds") / _multipliers(samples, law)
    columns = np.stack([np.ones_like(y), samples.array("rows"), samples.array("bytes")], axis=1)
    if _redundant(columns[:, 1], columns[:, 2]):
        columns[:, 2] = 0.0
    if _constant(columns[:, 1]):
        # Fixed and per-row costs cannot be told apart. Rows that do not follow the data cost a fixed time; where there is one
        # scale alone, nobody knows whether they do, and rows carry the cost.
        columns[:, 0 if _constant(samples.array("scale")) else 1] = 0.0
    cost = non_negative_fit(columns, y)
    residual = np.abs(y - columns @ cost) / np.maximum(y, _FLOOR_S)
    keep = residual <= max(3 * float(np.median(residual)), 0.05)
    return non_negative_fit(columns[keep], y[keep])


def non_negative_fit(columns: Array, y: Array) -> Array:
    """Coefficients ≥ 0 that minimise the squared relative error of ``columns @ coefficients`` to ``y``."""
    from scipy.optimize import nnls

    scale = np.max(columns, axis=0)
    scale[scale == 0] = 1.0
    weights = 1.0 / np.maximum(y, _FLOOR_S)
    solution, _ = nnls(columns / scale * weights[:, None], y * weights)
    return np.asarray(solution / scale, dtype=float)


def _redundant(rows: Array, size: Array) -> bool:
    """Whether bytes say no more than rows: every row is about as wide."""
    width = size[rows > 0] / rows[rows > 0]
    return len(width) == 0 or float(np.std(width)) <= 0.05 * float(np.mean(width))


def _constant(values: Array) -> bool:
    """Whether all are about equal, and above 0."""
    return float(np.min(values)) > 0 and float(np.std(values)) <= 0.1 * float(np.mean(values))


def _multipliers(samples: Samples, law: tuple[tuple[float, float], ...]) -> Array:
    return np.array([slowdown_at(law, o) for o in samples.overlap])


def _predicted(samples: Samples, cost: Array) -> Array:
    predicted: Array = cost[0] + cost[1] * samples.array("rows") + cost[2] * samples.array("bytes")
    return predicted


def _co_run_law(samples: Mapping[Key, Samples], fitted: Mapping[Key, Array]) -> tuple[tuple[float, float], ...]:
    """Median of measured over fitted time at each whole number of busy workers, long spans counting for more."""
    ratios: dict[int, list[tuple[float, float]]] = {}
    for key in sorted(samples):
        predicted, seconds = _predicted(samples[key], fitted[key]), samples[key].array("seconds")
        for overlap, expected, measured in zip(samples[key].overlap, predicted, seconds, strict=True):
            if expected > 10 * _FLOOR_S:
                ratios.setdefault(round(overlap), []).append((measured / expected, measured))
    levels = {k: weighted_median(v) for k, v in sorted(ratios.items()) if sum(w for _, w in v) > 0}
    if 1 not in levels:
        return ()
    points, highest = [], 1.0
    for busy, ratio in levels.items():
        highest = max(highest, ratio / levels[1])  # more neighbours never make it faster
        points.append((float(busy), highest))
    return tuple(points)


def weighted_median(pairs: Sequence[tuple[float, float]]) -> float:
    """The value at half of the total weight of (value, weight) pairs."""
    ordered = sorted(pairs)
    half, run = sum(w for _, w in ordered) / 2, 0.0
    for value, weight in ordered:
        run += weight
        if run >= half:
            return value
    return ordered[-1][0]


def rows_law(rows_in: Array, rows_out: Array) -> tuple[float, float]:
    """(factor, exponent) of rows_out = factor × rows_in ** exponent, exponent between 0 (constant) and 1 (proportional)."""
    keep = (rows_in > 0) & (rows_out > 0)
    if not keep.any():
        return (0.0, 1.0) if len(rows_in) and rows_in.max() > 0 else (1.0, 1.0)
    x, y = np.log(rows_in[keep]), np.log(rows_out[keep])
    if float(np.ptp(x)) < 0.1:
        exponent = 1.0 if float(np.ptp(y)) > 1e-3 or float(np.ptp(x)) == 0.0 else 0.0
    else:
        exponent = float(np.clip(np.polyfit(x, y, 1)[0], 0.0, 1.0))
    exponent = 1.0 if exponent > 0.9 else 0.0 if exponent < 0.1 else exponent
    if exponent == 1.0:
        return float(rows_out.sum() / rows_in.sum()), 1.0
    return float(np.exp(np.median(y - exponent * x))), exponent


def _operator(key: Key, samples: Samples, cost: Array, law: tuple[tuple[float, float], ...]) -> OperatorCost:
    workload, operator, phase = key
    predicted = _predicted(samples, cost) * _multipliers(samples, law)
    error = np.abs(samples.array("seconds") - predicted) / np.maximum(samples.array("seconds"), _FLOOR_S)
    factor, exponent = (
        _scan_rows(samples) if phase == Scan.__name__ else rows_law(samples.array("rows"), samples.array("rows_out"))
    )
    total = sum(samples.rows_out)
    return OperatorCost(
        workload=workload, operator=operator, phase=phase, fixed_s=float(cost[0]), per_row_s=float(cost[1]),
        per_byte_s=float(cost[2]), cv=_spread(samples.array("seconds"), predicted), rows_factor=factor, rows_exponent=exponent,
        row_bytes_out=sum(samples.bytes_out) / total if total else 0.0, samples=len(samples.rows), error=float(np.median(error)),
    )  # fmt: skip


def _scan_rows(samples: Samples) -> tuple[float, float]:
    """Total rows of the table after its filter, as a power of the data set's scale."""
    totals: dict[int, float] = {}
    scales: dict[int, float] = {}
    for run, rows, scale in zip(samples.run, samples.rows, samples.scale, strict=True):
        totals[run] = totals.get(run, 0.0) + rows
        scales[run] = scale
    return rows_law(np.array(list(scales.values())), np.array(list(totals.values())))


def _spread(measured: Array, predicted: Array) -> float:
    """Coefficient of variation around the fit, by the median deviation (one hiccup of the machine is not the rule)."""
    ratio = measured / np.maximum(predicted, _FLOOR_S)
    return float(min(1.4826 * np.median(np.abs(ratio - np.median(ratio))), 1.0))


# -- overheads --------------------------------------------------------------------------------------------------------


def _engine(name: str, runs: Sequence[ObservedRun], law: tuple[tuple[float, float], ...]) -> EngineCost:
    default = EngineCost(engine=name)
    moved = [t for r in runs for t in r.tasks if t.stage is not None]
    emit = [p for t in moved if not _has_sink(t) for p in t.emit]
    emit_block, emit_rate = _path([(p.bytes, p.seconds) for p in emit], default.emit_block_s, default.emit_bytes_per_s)
    fetch_block, fetch_rate = _path([(p.bytes, p.seconds) for t in moved for p in t.fetch], default.fetch_block_s, 0.0)
    idle = _median((t.start_s for r in runs if (t := min(r.tasks, key=lambda t: t.start_s, default=None))), 0.0)
    gap = _median((g for r in runs for g in _gaps(r.tasks)), default.task_s + default.done_s + default.launch_s)
    return EngineCost(
        engine=name, startup_s=max(idle - default.launch_s, 0.0), finish_s=_median(map(_tail, runs), 0.0),
        actor_start_s=_median((p.start_s - _ready_before(r, p) for r in runs for p in r.loads), 0.0),
        task_s=max(gap - default.done_s - default.launch_s, 0.0) + _median(map(_untold, moved), 0.0),
        emit_block_s=emit_block, emit_bytes_per_s=emit_rate, fetch_block_s=fetch_block, fetch_bytes_per_s=fetch_rate, slowdown=law,
    )  # fmt: skip


def _has_sink(task: ObservedTask) -> bool:
    return task.stage is not None and any(isinstance(s.phase, Sink) for s in program(task.stage).steps)


def _path(moves: Sequence[tuple[float, float]], block_s: float, bytes_per_s: float) -> tuple[float, float]:
    """(seconds a block, bytes per second; 0 = bytes are free) of a serialization path."""
    if len(moves) < 3:
        return block_s, bytes_per_s
    size, seconds = np.array([m[0] for m in moves], dtype=float), np.array([m[1] for m in moves], dtype=float)
    fixed, per_byte = non_negative_fit(np.stack([np.ones_like(size), size], axis=1), seconds)
    return float(fixed), (float(1.0 / per_byte) if per_byte > 0 else 0.0)


def _median(values: Iterable[float], default: float) -> float:
    found = list(values)
    return float(np.median(found)) if found else default


def _tail(run: ObservedRun) -> float:
    """From the last span to the end of the run."""
    end = max((t.end_s for t in run.tasks), default=0.0)
    return max((run.record.makespan_s or end) - end, 0.0)


def _untold(task: ObservedTask) -> float:
    """Time inside a task that no span tells of."""
    return max(task.end_s - task.start_s - sum(p.seconds for p in task.pieces), 0.0)


def _gaps(tasks: Sequence[ObservedTask]) -> list[float]:
    """Pauses of workers between two tasks that followed each other without waiting."""
    gaps, last = [], dict[int, float]()
    for task in sorted(tasks, key=lambda t: t.start_s):
        if task.worker in last and task.queue is None:
            gap = task.start_s - last[task.worker]
            if 0 <= gap < 2e-3:
                gaps.append(gap)
        last[task.worker] = task.end_s
    return gaps


def _ready_before(run: ObservedRun, load: Any) -> float:
    """When an actor was asked for: at the start, or when the last task before its load ended (a barrier)."""
    if run.record.engine == "streaming":
        return 0.0
    return max((t.end_s for t in run.tasks if t.end_s <= load.start_s), default=0.0)


def _residuals(
    runs: Sequence[ObservedRun], samples: Mapping[Key, Samples], fitted: Mapping[Key, Array], law: tuple[tuple[float, float], ...]
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


# -- measuring --------------------------------------------------------------------------------------------------------


def calibrate_workloads(
    choices: Sequence[Any], cluster: Any, store: Any, out: Path, progress: Callable[[Any], None] | None = None, *,
    date: str = "", repetitions: int = 3, data_root: Path | None = None,
) -> Calibration:  # fmt: skip
    """Run each workload small, on one worker and on all, write the fitted calibration to ``out``.

    ``choices`` are `WorkloadChoice`s, ``store`` a `Store`; the runs go through `Experiment`, one process a cell. One worker
    alone tells what a kernel costs undisturbed, all of them how much they disturb each other.
    """
    from dataclasses import replace

    from windtunnel.cellspec import default_data_root
    from windtunnel.experiment import Experiment
    from windtunnel.scenario_tables import EngineChoice

    engines = (EngineChoice(name="bulk", label="bulk", options={}), EngineChoice(name="streaming", label="streaming", options={}))
    node = cluster.nodes[0]
    records: list[RunRecord] = []
    for cpus in sorted({1, node.cpus}):
        experiment = Experiment(
            name=f"calibrate-{cpus}", workloads=tuple(choices), engines=engines, aa=False, repetitions=repetitions,
            cluster=replace(cluster, nodes=(replace(node, cpus=cpus),)), data_root=data_root or default_data_root(),
        )  # fmt: skip
        records += experiment.run(store, resume=True, progress=progress)
    result = calibrate(
        records, provenance={"date": date, "workloads": [c.name for c in choices]}, workloads={c.name: c.load() for c in choices}
    )
    result.save(out)
    return result
