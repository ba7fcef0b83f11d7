"""Raw spans of a real run → its tasks: which stage each was, what every step took, read and emitted. Fits nothing.

A worker reports a task's spans together: one `compute` span a step first, then `fetch`, `serialize`, `emit` and `spill` as they
happened. The stage is found by the operators of the steps in the job that the planner makes of the record's workload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from windtunnel.engines.physical import compile_job, program
from windtunnel.model import Job, Stage
from windtunnel.records.record import RunRecord
from windtunnel.registry import load_workload
from windtunnel.spec.plan import Operator, Pipeline, Scan, Sink
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, TableData, Workload

_TASK_KINDS = frozenset({"queue", "compute", "fetch", "serialize", "emit", "spill"})


@dataclass(slots=True)
class Piece:
    """One span: seconds, rows and bytes."""

    operator: str
    start_s: float
    end_s: float
    rows: int
    bytes: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(slots=True)
class ObservedTask:
    """The spans of one task. ``stage`` is None when no stage of the job fits; ``overlap`` = busy workers while it ran, itself too."""

    partition: int
    worker: int
    attempt: int
    queue: Piece | None = None
    compute: list[Piece] = field(default_factory=list)
    fetch: list[Piece] = field(default_factory=list)
    serialize: list[Piece] = field(default_factory=list)
    emit: list[Piece] = field(default_factory=list)
    spill: list[Piece] = field(default_factory=list)
    stage: Stage | None = None
    overlap: float = 1.0

    @property
    def pieces(self) -> list[Piece]:
        """All but waiting."""
        return [*self.compute, *self.fetch, *self.serialize, *self.emit, *self.spill]

    @property
    def start_s(self) -> float:
        """When its first span began."""
        return min(p.start_s for p in self.pieces)

    @property
    def begin_s(self) -> float:
        """When its worker turned to it: inputs may be mapped beside the task before."""
        own = self.compute or [*self.serialize, *self.emit, *self.spill]
        return min((p.start_s for p in own), default=self.start_s)

    @property
    def end_s(self) -> float:
        """When its last span ended."""
        return max(p.end_s for p in self.pieces)

    @property
    def rows_out(self) -> int:
        """Rows that left its last step."""
        return sum(p.rows for p in (self.serialize or [*self.emit, *self.spill]))

    @property
    def bytes_out(self) -> int:
        """Bytes of those rows in memory."""
        return sum(p.bytes for p in (self.serialize or [*self.emit, *self.spill]))


@dataclass(slots=True)
class ObservedRun:
    """A record with its job and tasks."""

    record: RunRecord
    job: Job
    tasks: list[ObservedTask]
    loads: list[Piece]
    cpus: int


def observe(record: RunRecord, workloads: Mapping[str, Workload] | None = None) -> ObservedRun:
    """Read a record of an embedded engine. ``workloads`` gives those that no registry knows."""
    cpus = sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])
    job = compile_job(
        _stand_in(workload_of(record, workloads)), partitions=int(record.options.get("partitions") or cpus),
        fuse=bool(record.options.get("fuse", True)),
    )  # fmt: skip
    rows = record.spans.to_pylist()
    tasks = [t for t in _tasks(rows) if t.pieces]
    _match(tasks, job)
    _overlaps(tasks)
    return ObservedRun(record, job, tasks, [_piece(r) for r in rows if r["kind"] == "load"], cpus)


def workload_of(record: RunRecord, workloads: Mapping[str, Workload] | None = None) -> Workload:
    """The workload of a record: its plan by name, its data set, rows a call and devices as recorded."""
    known = dict(workloads or {})
    workload = known.get(record.workload) or load_workload(record.workload)
    plain = {k: v for k, v in record.workload_spec["dataset"].items() if k != "type"}
    told = {op["name"]: op for op in (record.workload_spec.get("pipeline") or {}).get("operators") or ()}
    pipeline = workload.pipeline and Pipeline(
        tuple(_as_recorded(op, told.get(op.name, {})) for op in workload.pipeline.operators)
    )
    return replace(workload, dataset=DatasetSpec(**plain), pipeline=pipeline)


def _as_recorded(op: Operator, told: Mapping[str, Any]) -> Operator:
    """An operator with the parameters of its workload that a record tells."""
    resources = told.get("resources")
    asked = op.resources if resources is None else replace(op.resources, cpus=resources["cpus"], gpus=resources["gpus"])
    return replace(op, batch_rows=int(told.get("batch_rows", op.batch_rows)), resources=asked)


def _stand_in(workload: Workload) -> BoundWorkload:
    """A bound workload without data: enough for the planner."""
    from pathlib import Path

    names = [op.kernel.table for op in workload.pipeline.operators if isinstance(op.kernel, Scan)]
    tables = [
        TableData(name=n, format="parquet", paths=("-",), rows=1, bytes=1, schema=(), partition_rows=(1,))
        for n in dict.fromkeys(names)
    ]
    return BoundWorkload(workload=workload, tables=tuple(tables), folder=Path())


def _piece(row: Mapping[str, Any]) -> Piece:
    return Piece(row["operator"], row["start_s"], row["end_s"], row["rows"], row["bytes"])


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Iterator[ObservedTask]:
    """Cut the spans, which come task by task, where the next one must begin."""
    task: ObservedTask | None = None
    for row in rows:
        kind = row["kind"]
        if kind not in _TASK_KINDS:
            continue
        if task is None or _begins(task, row):
            if task is not None:
                yield task
            task = ObservedTask(row["partition"], row["worker"], row["attempt"])
        if kind == "queue":
            task.queue = _piece(row)
        else:
            getattr(task, kind).append(_piece(row))
    if task is not None:
        yield task


def _begins(task: ObservedTask, row: Mapping[str, Any]) -> bool:
    """Whether ``row`` cannot be of the task at hand."""
    if (row["partition"], row["worker"], row["attempt"]) != (task.partition, task.worker, task.attempt) or row["kind"] == "queue":
        return True
    tail = task.fetch or task.serialize or task.emit or task.spill
    return bool(tail) and (row["kind"] == "compute" or row["operator"] != tail[-1].operator)


def _match(tasks: list[ObservedTask], job: Job) -> None:
    """Give each task its stage; those that look alike follow each other in the order of the stages."""
    alike: dict[tuple[object, ...], list[Stage]] = {}
    for stage in job.stages:
        alike.setdefault(_signature(stage), []).append(stage)
    groups: dict[tuple[object, ...], list[ObservedTask]] = {}
    for task in tasks:
        operators = tuple(p.operator for p in task.compute) or (task.pieces[0].operator,)
        groups.setdefault((operators, bool(task.serialize), bool(task.fetch)), []).append(task)
    for key, members in groups.items():
        stages = alike.get(key, [])
        members.sort(key=lambda t: t.start_s)
        for position, stage in enumerate(stages):
            last = position == len(stages) - 1
            count = len(members) if last or stage.partitions is None else stage.partitions
            for task in members[:count]:
                task.stage = stage
            members = members[count:]


def _signature(stage: Stage) -> tuple[object, ...]:
    steps = program(stage).steps
    operators = tuple(s.operator for s in steps if not isinstance(s.phase, Sink)) or stage.operators[-1:]
    return operators, program(stage).partitioner is not None, any(i.mode != "broadcast" for i in stage.inputs)


def _overlaps(tasks: list[ObservedTask]) -> None:
    """Average number of busy workers during each task, itself among them."""
    on_cpus = [t for t in tasks if t.stage is None or t.stage.resources.cpus > 0 or not t.stage.resources.gpus]
    edges = sorted([(t.begin_s, 1) for t in on_cpus] + [(t.end_s, -1) for t in on_cpus])
    times: list[float] = []
    area: list[float] = []  # integral of the number of busy workers up to that time
    busy, total, before = 0, 0.0, 0.0
    for at, change in edges:
        total += busy * (at - before)
        before, busy = at, busy + change
        times.append(at)
        area.append(total)
    import numpy as np

    for task in on_cpus:
        length = task.end_s - task.begin_s
        if length > 0:
            begin, end = np.interp([task.begin_s, task.end_s], times, area)
            task.overlap = max(1.0, float(end - begin) / length)
