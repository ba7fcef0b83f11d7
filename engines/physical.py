"""Logical pipeline → physical job: fuse narrow operators into stages, split wide ones around an exchange.

Both worlds run the jobs made here, so that a simulated stage is the stage that runs for real. The module owns the phases
(`PartialAggregate`, `TopN`, ...) and how blocks are partitioned; it knows no engine and executes nothing.

* aggregate → partial aggregate (fused upstream) · hash exchange · final aggregate
* join → hash exchange of both sides · join; or the right side broadcast, and the join fused onto the left side's stage
* sort → sample · bounds (gathered) · range exchange · sort; a sort of an aggregate's few rows is gathered instead
* sort + limit → partial top-n (fused upstream) · gather · top-n
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from windtunnel.errors import InputError, Unsupported
from windtunnel.model import Job, Stage, StageInput
from windtunnel.spec.plan import (
    Aggregate,
    Concurrency,
    GroupMap,
    Join,
    Kernel,
    Limit,
    Operator,
    Resources,
    Scan,
    Sort,
    State,
    Synthetic,
)
from windtunnel.spec.workload import BoundWorkload, TableData


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialAggregate:
    """Map-side half of an aggregate: sums, counts, minima and maxima of one task's rows; a mean travels as sum and count."""

    spec: Aggregate


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalAggregate:
    """Reduce-side half: merges partial results."""

    spec: Aggregate


@dataclass(frozen=True, slots=True, kw_only=True)
class TopN:
    """The first ``count`` rows of the sort order, of one task's rows."""

    spec: Sort
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKeys:
    """At most ``rows`` evenly spaced values of the first sort key of one task's rows."""

    spec: Sort
    rows: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeBounds:
    """``partitions`` - 1 quantiles of all samples."""

    spec: Sort
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastJoin:
    """Join of a stream of left batches with the stage's side input (the whole right side)."""

    spec: Join
    side: int  # which of the stage's broadcast inputs


@dataclass(frozen=True, slots=True)
class Told:
    """A task of known duration: seconds that it waits (for disk or network) and computes, then the bytes that it leaves."""

    wait_s: float
    cpu_s: float
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTasks:
    """The tasks of a recorded stage, by number; each leaves one row."""

    told: tuple[Told, ...]


Phase = Kernel | PartialAggregate | FinalAggregate | TopN | SampleKeys | RangeBounds | BroadcastJoin | RecordedTasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One phase of operator ``operator`` inside a task; ``table`` only with a scan. ``memory_bytes``: declared working memory."""

    operator: str
    phase: Phase
    batch_rows: int = 0
    memory_bytes: int = 0
    table: TableData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioner:
    """How a stage cuts its output: by hash of ``keys``, by ``range`` of a sort key (bounds are side input), or ``round_robin``."""

    kind: str  # hash | range | round_robin
    partitions: int
    keys: tuple[str, ...] = ()
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the tasks of a stage execute: the payload of `Stage`."""

    steps: tuple[Step, ...]
    partitioner: Partitioner | None = None


@dataclass(slots=True)
class _Draft:
    """A stage under construction."""

    steps: list[Step]
    inputs: list[StageInput]
    partitions: int | None
    resources: Resources
    state: State
    concurrency: Concurrency | None
    partitioner: Partitioner | None = None
    ordered: bool = False
    small: bool = False  # few rows: the output of an aggregate


@dataclass(slots=True)
class _Planner:
    bound: BoundWorkload
    partitions: int
    fuse: bool
    groups: Mapping[str, int]
    drafts: list[_Draft] = field(default_factory=list)
    home: dict[str, int] = field(default_factory=dict)  # operator → stage holding its output

    def plan(self) -> Job:
        operators = self.bound.pipeline.topological()
        skip: set[str] = set()
        for position, op in enumerate(operators):
            if op.name in skip:
                continue
            follower = operators[position + 1] if position + 1 < len(operators) else None
            if isinstance(op.kernel, Sort) and follower and isinstance(follower.kernel, Limit) and follower.inputs == (op.name,):
                self._top_n(op, follower)
                skip.add(follower.name)
            else:
                self._place(op)
        return Job(stages=tuple(self._stage(i, d) for i, d in enumerate(self.drafts)))

    # -- one operator ------------------------------------------------------------------------------------------------

    def _place(self, op: Operator) -> None:
        kernel = op.kernel
        if isinstance(kernel, Scan):
            self._scan(op, kernel)
        elif isinstance(kernel, Aggregate):
            self._aggregate(op, kernel)
        elif isinstance(kernel, GroupMap):
            self._exchange(op.inputs[0], Partitioner(kind="hash", partitions=self.partitions, keys=kernel.keys))
            self._wide(op, (self._last(op.inputs[0]),), kernel)
        elif isinstance(kernel, Join):
            self._join(op, kernel)
        elif isinstance(kernel, Sort):
            self._sort(op, kernel)
        elif isinstance(kernel, Limit):
            self._narrow(op, kernel)
            self._exchange(op.name, Partitioner(kind="round_robin", partitions=1))
            self._wide(op, (self._last(op.name),), kernel, partitions=1)
        elif isinstance(kernel, Synthetic) and op.kind in ("aggregate", "sort", "join"):
            self._synthetic_wide(op, kernel)
        else:
            self._narrow(op, kernel)

    def _scan(self, op: Operator, kernel: Scan) -> None:
        table = self.bound.table(kernel.table)
        count = len(table.paths) or len(table.partition_rows)
        if count == 0:
            raise InputError(f"operator {op.name!r}: table {table.name!r} has no partition")
        self._new(op, [], count, Step(operator=op.name, phase=kernel, batch_rows=op.batch_rows, table=table))

    def _narrow(self, op: Operator, phase: Phase) -> None:
        """Fuse onto the input's stage where resources and state agree; else begin a forward stage."""
        draft = self.drafts[self._last(op.inputs[0])]
        if self._fusible(op, draft):
            self._append(op, phase)
        else:
            self._new(op, [StageInput(stage=self._last(op.inputs[0]), mode="forward")], None, self._step(op, phase))

    def _fusible(self, op: Operator, draft: _Draft) -> bool:
        generated_source = (
            len(draft.steps) == 1 and draft.steps[0].table is not None and draft.steps[0].table.format == "generated"
        )
        plain = op.state.kind == "stateless" and draft.state.kind == "stateless"
        if not plain or draft.partitioner is not None or self._readers(op.inputs[0]) > 1:
            return False
        if generated_source:  # making rows costs nothing: the first real operator decides the stage's resources
            draft.resources, draft.concurrency = op.resources, op.concurrency
            return True
        if self.groups.get(op.name) != self.groups.get(draft.steps[-1].operator):
            return False
        return self.fuse and op.resources == draft.resources and op.concurrency is None and draft.concurrency is None

    def _aggregate(self, op: Operator, kernel: Aggregate) -> None:
        partitions = self.partitions if kernel.keys else 1
        self._narrow(op, PartialAggregate(spec=kernel))
        kind = "hash" if kernel.keys else "round_robin"
        self._exchange(op.name, Partitioner(kind=kind, partitions=partitions, keys=kernel.keys))
        self._wide(op, (self._last(op.name),), FinalAggregate(spec=kernel), partitions=partitions)
        self.drafts[-1].small = True

    def _join(self, op: Operator, kernel: Join) -> None:
        left, right = op.inputs
        if kernel.broadcast:
            self._broadcast_join(op, kernel)
            return
        self._exchange(left, Partitioner(kind="hash", partitions=self.partitions, keys=kernel.left_keys))
        self._exchange(right, Partitioner(kind="hash", partitions=self.partitions, keys=kernel.right_keys))
        self._wide(op, (self._last(left), self._last(right)), kernel)

    def _broadcast_join(self, op: Operator, kernel: Join) -> None:
        left, right = (self._last(name) for name in op.inputs)
        draft = self.drafts[left]
        # Fusing adds a dependency to an existing stage, which must stay after what it reads.
        if not (self._fusible(op, draft) and right < left):
            self._new(op, [StageInput(stage=left, mode="forward")], None)
            draft = self.drafts[-1]
        side = sum(1 for i in draft.inputs if i.mode == "broadcast")
        draft.inputs.append(StageInput(stage=right, mode="broadcast"))
        draft.steps.append(self._step(op, BroadcastJoin(spec=kernel, side=side)))
        self.home[op.name] = self.drafts.index(draft)

    def _sort(self, op: Operator, kernel: Sort) -> None:
        source = self._last(op.inputs[0])
        if self.drafts[source].small or self.partitions == 1:
            self._exchange(op.inputs[0], Partitioner(kind="round_robin", partitions=1))
            self._wide(op, (self._last(op.inputs[0]),), kernel, partitions=1)
            self.drafts[-1].ordered = True
            return
        key = kernel.keys[0]
        self._new(op, [StageInput(stage=source, mode="forward")], None, self._step(op, SampleKeys(spec=kernel)))
        self.drafts[-1].partitioner = Partitioner(kind="round_robin", partitions=1)
        samples = len(self.drafts) - 1
        self._wide(op, (samples,), RangeBounds(spec=kernel, partitions=self.partitions), partitions=1)
        bounds = len(self.drafts) - 1
        self._new(op, [StageInput(stage=source, mode="forward"), StageInput(stage=bounds, mode="broadcast")], None)
        self.drafts[-1].partitioner = Partitioner(
            kind="range", partitions=self.partitions, keys=(key.column,), descending=key.descending
        )
        self._wide(op, (len(self.drafts) - 1,), kernel)
        self.drafts[-1].ordered = True

    def _top_n(self, op: Operator, limit: Operator) -> None:
        assert isinstance(op.kernel, Sort) and isinstance(limit.kernel, Limit)
        phase = TopN(spec=op.kernel, count=limit.kernel.count)
        self._narrow(op, phase)
        self._exchange(op.name, Partitioner(kind="round_robin", partitions=1))
        self._wide(op, (self._last(op.name),), phase, partitions=1)
        self.drafts[-1].ordered = self.drafts[-1].small = True
        self.home[limit.name] = self.home[op.name]

    def _synthetic_wide(self, op: Operator, kernel: Synthetic) -> None:
        stages = []
        for name in op.inputs:
            self._exchange(name, Partitioner(kind="round_robin", partitions=self.partitions))
            stages.append(self._last(name))
        self._wide(op, tuple(stages), kernel)

    # -- drafts ------------------------------------------------------------------------------------------------------

    def _new(self, op: Operator, inputs: list[StageInput], partitions: int | None, *steps: Step) -> None:
        self.drafts.append(
            _Draft(
                steps=list(steps), inputs=inputs, partitions=partitions,
                resources=op.resources, state=op.state, concurrency=op.concurrency,
            )
        )  # fmt: skip
        self.home[op.name] = len(self.drafts) - 1

    def _wide(self, op: Operator, stages: tuple[int, ...], phase: Phase, partitions: int | None = None) -> None:
        inputs = [StageInput(stage=s, mode="partition") for s in stages]
        self._new(op, inputs, partitions or self.partitions, self._step(op, phase))

    def _append(self, op: Operator, phase: Phase) -> None:
        stage = self._last(op.inputs[0])
        self.drafts[stage].steps.append(self._step(op, phase))
        self.home[op.name] = stage

    def _exchange(self, name: str, partitioner: Partitioner) -> None:
        """Partition the output of operator ``name``; behind a pass-through stage when others read it differently."""
        draft = self.drafts[self._last(name)]
        if draft.partitioner is None and self._readers(name) <= 1:
            draft.partitioner = partitioner
        elif draft.partitioner != partitioner:
            source = self._last(name)
            self.drafts.append(
                replace(
                    draft, steps=[], inputs=[StageInput(stage=source, mode="forward")], partitions=None, partitioner=partitioner
                )
            )
            self.home[name] = len(self.drafts) - 1

    def _step(self, op: Operator, phase: Phase) -> Step:
        memory = op.resources.memory_bytes if isinstance(phase, Synthetic) else 0
        return Step(operator=op.name, phase=phase, batch_rows=op.batch_rows, memory_bytes=memory)

    def _last(self, name: str) -> int:
        return self.home[name]

    def _readers(self, name: str) -> int:
        return sum(op.inputs.count(name) for op in self.bound.pipeline.operators)

    def _stage(self, index: int, draft: _Draft) -> Stage:
        names = tuple(dict.fromkeys(s.operator for s in draft.steps)) or ("exchange",)
        return Stage(
            index=index, name="+".join(names), operators=names, inputs=tuple(draft.inputs), partitions=draft.partitions,
            output_partitions=draft.partitioner.partitions if draft.partitioner else 0,
            resources=draft.resources, state=draft.state, concurrency=draft.concurrency, ordered=draft.ordered,
            payload=(Program(steps=tuple(draft.steps), partitioner=draft.partitioner),),
        )  # fmt: skip


def compile_job(bound: BoundWorkload, *, partitions: int, fuse: bool = True, groups: Mapping[str, int] | None = None) -> Job:
    """The physical job of a workload; ``partitions`` = tasks after an exchange. ``fuse`` False keeps one operator a stage.

    ``groups``: of the operators named here, only those with equal numbers may share a stage.
    """
    if bound.workload.graph is not None:
        raise InputError(f"{bound.workload.name!r} is a recorded job: its stages are those of its job graph")
    if partitions < 1:
        raise InputError(f"partitions must be at least 1, not {partitions}")
    if bound.workload.clients is not None:
        raise Unsupported(
            f"engines such as streaming run pipelines; {bound.workload.name!r} is clients' work on a system that keeps data"
        )
    return _Planner(bound, partitions, fuse, groups or {}).plan()


def program(stage: Stage) -> Program:
    """The program in a stage's payload."""
    (payload,) = stage.payload
    assert isinstance(payload, Program)
    return payload
