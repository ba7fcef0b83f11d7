"""What observed runs tell of each phase: a sample a task, those of an actor's first task apart. Fits nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from windtunnel.engines.physical import program
from windtunnel.model import Stage
from windtunnel.sim.calibration.actors import device_kind, first_tasks, phase_of, published_s
from windtunnel.sim.calibration.fits import Array
from windtunnel.sim.calibration.observe import ObservedRun, ObservedTask
from windtunnel.sim.costs.curves import knots_of
from windtunnel.sim.costs.laws import EMULATED, EXCHANGE, SINK
from windtunnel.spec.plan import Join, Sink

Key = tuple[str, str, str]  # workload, operator, phase


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
    cold: list[bool] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)  # rows a call at most; 0 where they come as they are
    sensitivity: float = 1.0  # to the co-run law; found on the way
    knots: tuple[float, ...] = ()  # of the curve of a call, where calls of several sizes were seen

    def add(
        self,
        rows: float,
        size: float,
        seconds: float,
        overlap: float,
        rows_out: float,
        bytes_out: float,
        scale: float,
        run: int,
        cold: bool,
        batch: int = 0,
    ) -> None:
        """One task."""
        values = (rows, size, seconds, overlap, rows_out, bytes_out, scale, run, cold, batch)
        for column, value in zip(self.__slots__, values, strict=False):
            getattr(self, column).append(value)

    def array(self, name: str) -> Array:
        """A column."""
        return np.array(getattr(self, name), dtype=float)


def collect(runs: Iterable[ObservedRun]) -> tuple[dict[Key, Samples], dict[Key, tuple[str, Samples]]]:
    """Samples of all phases; beside them, with the stage's first operator, those of tasks that were the first of an actor."""
    samples: dict[Key, Samples] = {}
    firsts: dict[Key, tuple[str, Samples]] = {}
    for number, run in enumerate(runs):
        warm: set[int] = set()
        first = first_tasks(run)
        for position in sorted(range(len(run.tasks)), key=lambda i: run.tasks[i].begin_s):
            task = run.tasks[position]
            if task.stage is not None and task.attempt == 0:
                for key, values in _told(run, task, task.stage):
                    if position in first:
                        operator = task.stage.operators[0]
                        firsts.setdefault(key, (operator, Samples()))[1].add(*values[:-1], number, False, values[-1])
                    else:
                        samples.setdefault(key, Samples()).add(*values[:-1], number, task.worker not in warm, values[-1])
            warm.add(task.worker)
    for key in [k for k in firsts if k not in samples]:  # nothing to compare them with
        samples[key] = firsts.pop(key)[1]
    for found in samples.values():
        calls = {batch: min(batch, rows) for batch, rows in sorted(zip(found.batch, found.rows, strict=True)) if batch}
        found.knots = knots_of(calls.values())
    return samples, firsts


#: rows, bytes, seconds, overlap, rows and bytes out, scale, rows a call
Told = tuple[float, float, float, float, float, float, float, int]


def _told(run: ObservedRun, task: ObservedTask, stage: Stage) -> Iterator[tuple[Key, Told]]:
    """What a task tells of its phases."""
    workload, scale, kind = run.record.workload, run.record.scale, device_kind(run, stage)
    all_steps = program(stage).steps
    steps = [s for s in all_steps if not isinstance(s.phase, Sink)]
    sink = next((s for s in all_steps if isinstance(s.phase, Sink)), None)
    last = _output(run, task, sink is not None)
    for i, (step, span) in enumerate(zip(steps, task.compute, strict=False)):
        out = (task.compute[i + 1].rows, task.compute[i + 1].bytes) if i + 1 < len(task.compute) else last
        rows, size, seconds = float(span.rows), float(span.bytes), span.seconds
        if i == 0 and isinstance(step.phase, Join):  # its span counts left rows alone
            rows, size = float(sum(p.rows for p in task.fetch)), float(sum(p.bytes for p in task.fetch))
        batch, phase = step.batch_rows, phase_of(run, stage, step.phase)
        if phase.endswith(EMULATED):
            calls = math.ceil(rows / batch) if batch else 1
            batch, seconds = 0, max(0.0, seconds - published_s(run, step.operator, kind, rows, calls, size + out[1]))
        yield (workload, step.operator, phase), (rows, size, seconds, task.overlap, *out, scale, batch)
    if task.serialize and stage.output_partitions > 1:
        rows, size = float(sum(p.rows for p in task.serialize)), float(sum(p.bytes for p in task.serialize))
        seconds = sum(p.seconds for p in task.serialize)
        yield (workload, stage.operators[-1], EXCHANGE), (rows, size, seconds, task.overlap, rows, size, scale, 0)
    if sink is not None:
        seconds = sum(p.seconds for p in [*task.emit, *task.spill])
        yield (workload, sink.operator, SINK), (*last, seconds, task.overlap, *last, scale, 0)


def _output(run: ObservedRun, task: ObservedTask, has_sink: bool) -> tuple[float, float]:
    """Rows and bytes that left the last step; before a sink, which emits file names, they follow from the run's total."""
    if not has_sink:
        return float(task.rows_out), float(task.bytes_out)
    if not task.compute:
        return float(sum(p.rows for p in task.fetch)), float(sum(p.bytes for p in task.fetch))
    entered = sum(t.compute[-1].rows for t in run.tasks if t.stage is task.stage and t.compute)
    kept = (run.record.rows_out or 0) / entered if entered else 1.0
    return task.compute[-1].rows * kept, task.compute[-1].bytes * kept
