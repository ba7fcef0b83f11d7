"""What a task of a stage does: seconds of work and rows and bytes out, for given rows and bytes in. Pure arithmetic.

Declared operators (`Synthetic`) bring their cost in the plan; real kernels take theirs from a `Calibration`. Rows flow through
the steps of a stage as fractions; they become integers where blocks are cut (`cut`), so that nothing is lost on the way.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from windtunnel.engines.physical import (
    BroadcastJoin,
    FinalAggregate,
    PartialAggregate,
    RangeBounds,
    RecordedTasks,
    SampleKeys,
    Step,
    Told,
    TopN,
    program,
)
from windtunnel.model import Job, Stage
from windtunnel.sim.costs.curves import Curve, task_seconds
from windtunnel.sim.costs.measured import Calibration
from windtunnel.spec.devices import REFERENCE_GMACS, emulated, is_emulated
from windtunnel.spec.plan import Cost, GroupMap, Join, Limit, MapBatches, Scan, Sink, Sort, Synthetic
from windtunnel.spec.workload import BoundWorkload, TableData

WorkClass = Literal["cpu", "sleep", "device"]
EXCHANGE = "Exchange"  # the phase name of cutting a stage's output into partitions
LOAD = "Load"  # and of what a stateful operator's worker pays before its first row is as fast as the later ones
EMULATED = "@emulated"  # ends the names of phases on emulated devices
SCAN_BATCH_ROWS = 131_072
SINK = "Sink"  # the phase name of writing a stage's output to files
_ONE_CALL = 1 << 62
_AT_END = (PartialAggregate, FinalAggregate, TopN, SampleKeys, RangeBounds, BroadcastJoin, Sort, GroupMap, Join)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """One step. ``batch_rows`` 0 = one call a block. ``at_end``: emits nothing before it has seen all of the task's input."""

    operator: str
    cost: Cost
    rows_factor: float = 1.0
    rows_exponent: float = 1.0
    max_rows: float = math.inf
    row_bytes_out: float | None = None
    batch_rows: int = 0
    flow_rows: int = 0  # rows of an output batch where that is not a call's
    curve: Curve = ()  # seconds of a call by its rows, in place of the cost
    work_class: WorkClass = "cpu"
    at_end: bool = False
    sensitivity: float = 1.0  # share of the co-run slowdown that it feels
    python: bool = False  # runs in a Python process, whatever the engine is written in

    def calls(self, rows: float, blocks: int) -> int:
        """How often the kernel is called on ``rows`` rows that come in ``blocks`` blocks."""
        if rows <= 0:
            return 0
        return max(math.ceil(rows / self.batch_rows - 1e-9), 1) if self.batch_rows else max(blocks, 1)

    def rows_out(self, rows: float) -> float:
        """Rows emitted for ``rows`` rows in."""
        if rows <= 0:
            return 0.0
        out = rows * self.rows_factor if self.rows_exponent == 1.0 else self.rows_factor * rows**self.rows_exponent
        return min(out, self.max_rows)


@dataclass(frozen=True, slots=True)
class StepWork:
    """A step's share of a task: nominal seconds, their variation, rows and bytes in."""

    operator: str
    work_class: WorkClass
    seconds: float
    cv: float
    rows: int
    bytes: int
    sensitivity: float = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """A task: its steps, what comes out (fractional rows), in how many output batches, and the bytes over the device's link.

    ``bridge_rows`` and ``bridge_bytes`` cross between the engine's language and Python, both ways together.
    """

    steps: tuple[StepWork, ...]
    rows_out: float
    row_bytes: float
    batches: int
    seconds: float
    moved_bytes: float
    bridge_rows: float = 0.0
    bridge_bytes: float = 0.0
    cvs: tuple[float, ...] = field(init=False, compare=False)  # of its steps; empty when no duration is drawn

    def __post_init__(self) -> None:
        cvs = tuple(s.cv for s in self.steps)
        object.__setattr__(self, "cvs", cvs if any(cv > 0 for cv in cvs) else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLaw:
    """All tasks of a stage. ``source``: rows and bytes of each source partition; ``shares``: of each output partition.

    ``told``: the tasks of a recorded stage, by number; then nothing else says what they do.
    """

    steps: tuple[StepLaw, ...]
    source: tuple[tuple[int, int], ...] = ()
    shares: tuple[float, ...] = ()
    exchange: StepLaw | None = None
    cpus: float = 0.0  # that its real kernels keep busy, whatever the engine lets their tasks claim; 0: what they claim
    first_s: float = 0.0  # how much longer the first task of a stateful stage's worker takes
    turns: bool = False  # tasks begin with another partition each (hash), not all with the first (round robin)
    told: tuple[Told, ...] = ()

    def work(self, rows: float, size: float, blocks: int = 1) -> Work:
        """The work of a task with ``rows`` rows, ``size`` bytes in ``blocks`` blocks as input."""
        steps: list[StepWork] = []
        width = size / rows if rows else 0.0
        batches, moved, total = max(blocks, 1), 0.0, 0.0
        crossed_rows, crossed_bytes, python = 0.0, 0.0, False
        for law in self.steps:
            if law.python is not python:
                crossed_rows, crossed_bytes, python = crossed_rows + rows, crossed_bytes + rows * width, law.python
            calls = law.calls(rows, blocks)
            seconds = calls * law.cost.per_batch_s + rows * law.cost.per_row_s + rows * width * law.cost.per_byte_s
            if law.curve:
                seconds = task_seconds(law.curve, rows, law.flow_rows)
            cv = law.cost.cv / math.sqrt(calls) if calls else 0.0
            steps.append(StepWork(law.operator, law.work_class, seconds, cv, round(rows), round(rows * width), law.sensitivity))
            out = law.rows_out(rows)
            width_out = width if law.row_bytes_out is None else law.row_bytes_out
            if law.work_class == "device":
                moved += rows * width + out * width_out
            flow = math.ceil(rows / law.flow_rows) if law.flow_rows else calls
            batches = 1 if law.at_end else max(batches, flow)
            rows, width, total = out, width_out, total + seconds
        if python:
            crossed_rows, crossed_bytes = crossed_rows + rows, crossed_bytes + rows * width
        if self.exchange is not None:
            law = self.exchange
            seconds = (law.cost.per_batch_s + rows * law.cost.per_row_s + rows * width * law.cost.per_byte_s) if rows else 0.0
            steps.append(StepWork(law.operator, "cpu", seconds, law.cost.cv, round(rows), round(rows * width), law.sensitivity))
            total += seconds
        return Work(tuple(steps), rows, width, batches, total, moved, crossed_rows, crossed_bytes)


# -- cutting output into blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Emission:
    """Blocks that leave a task together when ``fraction`` of its work is done: (partition, rows, bytes) each."""

    fraction: float
    blocks: tuple[tuple[int, int, int], ...]


def cut(
    rows: int, row_bytes: float, batches: int, block_bytes: int, shares: Sequence[float], first: int = 0
) -> tuple[Emission, ...]:
    """How a task's output leaves it, as the embedded workers do it.

    Output batches gather in a buffer until the next one would pass ``block_bytes``; a batch beyond the limit is sliced. A
    buffer becomes one block, or one a partition (``shares`` of each; row i of equal shares goes to partition ``first`` + i).
    It leaves when the next batch arrives, the last one with the task's end.
    """
    fills = _fills(rows, row_bytes, batches, block_bytes)
    emissions: list[Emission] = []
    sent, gone = [0] * max(len(shares), 1), 0
    for fraction, upto in fills:
        blocks = _pieces(upto - gone, upto, sent, row_bytes, shares, first)
        gone = upto
        if emissions and emissions[-1].fraction == fraction:
            emissions[-1] = Emission(fraction, emissions[-1].blocks + blocks)
        else:
            emissions.append(Emission(fraction, blocks))
    return tuple(emissions)


def _fills(rows: int, row_bytes: float, batches: int, block_bytes: int) -> list[tuple[float, int]]:
    """(fraction of work done, rows emitted up to then) of each buffer; the last is (1, rows)."""
    per_batch = rows / batches
    size = per_batch * row_bytes
    if size <= 0 or rows * row_bytes <= block_bytes:
        return [(1.0, rows)]
    if size > block_bytes:
        slice_rows = max(1, int(block_bytes / row_bytes))
        marks = range(slice_rows, rows, slice_rows)
        return [(min(1.0, math.ceil((m + 1) / per_batch - 1e-9) / batches), m) for m in marks] + [(1.0, rows)]
    together = max(1, int(block_bytes / size + 1e-9))
    full = range(together, batches, together)
    return [((b + 1) / batches, round(b * per_batch)) for b in full] + [(1.0, rows)]


def _pieces(
    count: int, upto: int, sent: list[int], row_bytes: float, shares: Sequence[float], first: int
) -> tuple[tuple[int, int, int], ...]:
    """Blocks of ``count`` rows. The first partition's first block exists even when empty: it carries the schema."""
    if not shares:
        begins = sent[0] == 0
        sent[0] = upto
        return ((0, count, round(count * row_bytes)),) if count or begins else ()
    begins = not any(sent)
    pieces = []
    for p, due in enumerate(_due(upto, shares, first)):
        mine = due - sent[p]
        sent[p] = due
        if mine > 0 or (p == 0 and begins):
            pieces.append((p, mine, round(mine * row_bytes)))
    return tuple(pieces)


def _due(rows: int, shares: Sequence[float], first: int) -> list[int]:
    """Rows of each partition once ``rows`` went out; they add up to ``rows``."""
    count = len(shares)
    if min(shares) == max(shares):
        return [(rows - (p - first) % count + count - 1) // count for p in range(count)]
    due, total, before = [], 0.0, 0
    for share in shares:
        total += share
        now = min(rows, math.floor(rows * total + 0.5))
        due.append(now - before)
        before = now
    due[-1] += rows - before
    return due


# -- from plans and calibrations --------------------------------------------------------------------------------------


def stage_laws(job: Job, bound: BoundWorkload, calibration: Calibration) -> tuple[StageLaw, ...]:
    """The law of every stage of a job. Raises InputError when a real kernel was never measured."""
    return tuple(_stage_law(stage, bound, calibration) for stage in job.stages)


def _stage_law(stage: Stage, bound: BoundWorkload, calibration: Calibration) -> StageLaw:
    steps = list(program(stage).steps)
    if isinstance(steps[0].phase if steps else None, RecordedTasks):
        return recorded_law(stage)
    source: tuple[tuple[int, int], ...] = ()
    laws: list[StepLaw] = []
    real = False
    for step in steps:
        if isinstance(step.phase, Sink):
            if calibration.has(bound.workload.name, step.operator, SINK):
                laws.append(_measured(step, stage, bound.workload.name, calibration))
            continue
        if isinstance(step.phase, Scan):
            scan, source = _scan(step, bound, calibration)
            laws += scan
        elif isinstance(step.phase, Synthetic):
            laws.append(_declared(step, step.phase, stage, bound.pipeline[step.operator].language == "python"))
        else:
            python = bound.pipeline[step.operator].language == "python"
            laws.append(replace(_measured(step, stage, bound.workload.name, calibration), python=python))
        real = real or not isinstance(step.phase, (Synthetic, Scan)) or bool(source and step.table and step.table.paths)
    count = stage.output_partitions
    shares = (1.0 / count,) * count if count else ()
    exchange = None
    if (
        stage.output_partitions > 1
        and (real or not steps)
        and calibration.has(bound.workload.name, stage.operators[-1], EXCHANGE)
    ):
        cost = calibration.operator(bound.workload.name, stage.operators[-1], EXCHANGE)
        exchange = StepLaw(
            operator=stage.operators[-1],
            cost=Cost(per_batch_s=cost.fixed_s, per_row_s=cost.per_row_s, per_byte_s=cost.per_byte_s, cv=cost.cv),
            sensitivity=cost.sensitivity,
        )
    partitioner = program(stage).partitioner
    turns = partitioner is not None and partitioner.kind == "hash"
    first_s = _first_s(stage, bound.workload.name, calibration)
    cpus = max((bound.pipeline[s.operator].resources.cpus for s in steps if isinstance(s.phase, MapBatches)), default=0.0)
    return StageLaw(
        steps=tuple(laws), source=source, shares=shares, exchange=exchange, cpus=cpus, first_s=first_s, turns=turns
    )  # fmt: skip


def recorded_law(stage: Stage) -> StageLaw:
    """The law of a recorded stage: what its tasks are told to do."""
    phase = program(stage).steps[0].phase
    assert isinstance(phase, RecordedTasks)
    return StageLaw(steps=(), told=phase.told)


def _first_s(stage: Stage, workload: str, calibration: Calibration) -> float:
    if stage.state.kind != "actor" or stage.resources.gpus > 0 or not calibration.has(workload, stage.operators[0], LOAD):
        return 0.0
    cost = calibration.operator(workload, stage.operators[0], LOAD)
    return cost.first_s + cost.first_row_s * program(stage).steps[0].batch_rows


def _work_class(stage: Stage, sleeps: bool = False) -> WorkClass:
    if sleeps:
        return "sleep"
    return "device" if stage.resources.gpus > 0 else "cpu"


def _declared(step: Step, kernel: Synthetic, stage: Stage, python: bool) -> StepLaw:
    return StepLaw(
        operator=step.operator, cost=kernel.cost, rows_factor=kernel.rows_out, row_bytes_out=kernel.row_bytes_out,
        batch_rows=step.batch_rows, work_class=_work_class(stage, kernel.fixed_work == "sleep" and stage.resources.gpus == 0),
        python=python,
    )  # fmt: skip


def _measured(step: Step, stage: Stage, workload: str, calibration: Calibration) -> StepLaw:
    name, published = type(step.phase).__name__, _published(step)
    if published is not None and calibration.has(workload, step.operator, name + EMULATED):
        name += EMULATED
        cost = calibration.operator(workload, step.operator, name)
        published = replace(published, per_row_s=published.per_row_s + cost.per_row_s)
    cost = calibration.operator(workload, step.operator, name)
    if published is not None:
        return StepLaw(
            operator=step.operator, cost=published, rows_factor=cost.rows_factor, rows_exponent=cost.rows_exponent,
            row_bytes_out=cost.row_bytes_out, batch_rows=step.batch_rows, work_class=_work_class(stage, not stage.resources.gpus),
        )  # fmt: skip
    return StepLaw(
        operator=step.operator, cost=Cost(per_row_s=cost.per_row_s, per_byte_s=cost.per_byte_s, per_batch_s=cost.fixed_s, cv=cost.cv),
        rows_factor=cost.rows_factor, rows_exponent=cost.rows_exponent, row_bytes_out=cost.row_bytes_out,
        max_rows=_most_rows(step), batch_rows=_ONE_CALL, flow_rows=step.batch_rows or _ONE_CALL, curve=cost.curve,
        work_class=_work_class(stage),
        at_end=isinstance(step.phase, _AT_END), sensitivity=cost.sensitivity,
    )  # fmt: skip


def _published(step: Step) -> Cost | None:
    """What the plan itself says of a call: a training step's time, or the curve of the emulated device that it was placed on.

    The real loop and the real emulation follow the same.
    """
    parameters = dict(step.phase.params) if isinstance(step.phase, MapBatches) else {}
    if "step_s" in parameters:
        return Cost(per_row_s=float(parameters["step_s"]) / float(parameters["batch_rows"]))
    kind = str(parameters.get("device", ""))
    if not is_emulated(kind):
        return None
    figures = emulated(kind)
    relative = float(parameters.get("gmacs", REFERENCE_GMACS)) / REFERENCE_GMACS
    return Cost(per_batch_s=figures.fixed_s, per_row_s=figures.row_s * relative)


def _most_rows(step: Step) -> float:
    phase = step.phase
    if isinstance(phase, (Limit, TopN)):
        return phase.count
    if isinstance(phase, SampleKeys):
        return 2 * phase.rows
    return max(phase.partitions - 1, 0) if isinstance(phase, RangeBounds) else math.inf


def _scan(step: Step, bound: BoundWorkload, calibration: Calibration) -> tuple[list[StepLaw], tuple[tuple[int, int], ...]]:
    """A generated table costs nothing; a real one costs by what it emits, which the calibration tells from the scale."""
    table = step.table
    assert table is not None
    if table.format == "generated":
        size = max(1, table.bytes // max(1, table.rows))
        pairs = {rows: (rows, rows * size) for rows in set(table.partition_rows)}
        return [], tuple(map(pairs.__getitem__, table.partition_rows))
    cost = calibration.operator(bound.workload.name, step.operator, "Scan")
    total = cost.rows_factor * bound.workload.dataset.scale**cost.rows_exponent
    width = cost.row_bytes_out or 0.0
    rows = [round(total * share) for share in _file_shares(table)]
    law = StepLaw(
        operator=step.operator, batch_rows=_ONE_CALL, flow_rows=step.batch_rows or SCAN_BATCH_ROWS, sensitivity=cost.sensitivity,
        cost=Cost(per_batch_s=cost.fixed_s, per_row_s=cost.per_row_s, per_byte_s=cost.per_byte_s, cv=cost.cv),
    )  # fmt: skip
    return [law], tuple((n, round(n * width)) for n in rows)


def _file_shares(table: TableData) -> list[float]:
    """Share of each file in the table's bytes; equal ones when a file is not here."""
    sizes = [os.path.getsize(p) if os.path.isfile(p) else 0 for p in table.paths]
    if not all(sizes):
        return [1.0 / len(table.paths)] * len(table.paths)
    return [s / sum(sizes) for s in sizes]
