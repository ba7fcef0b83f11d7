"""The hand-written Ray engine's tasks and actors: a stage's program on Arrow tables. What runs on the workers, and handles of it.

A task either streams blocks to the driver one by one (the next stage takes them as they come), or cuts its output into one object a
partition after a first small one that says that it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from windtunnel.engines import physical
from windtunnel.engines.arrow import call, call_groups, empty_batch
from windtunnel.engines.failures import kernel_failure
from windtunnel.engines.local import kernels

from windtunnel.model import Stage
from windtunnel.plan import GroupMap, Join, MapBatches, Operator, Sink

RETRIES = 3  # Ray's own default for tasks


@dataclass(slots=True)
class Work:
    """What the tasks of a stage need to know; ``split``: how many of a join's inputs are its left side's."""

    program: physical.Program
    operators: Mapping[str, Operator]
    output: str
    block_bytes: int
    split: int = 0


# -- on a worker ------------------------------------------------------------------------------------------------------


class _Kernel(kernels.Phase):
    """A user's kernel through the door that all engines share."""

    def __init__(self, op: Operator, partition: int) -> None:
        super().__init__()
        self._apply = call(op, partition)

    def push(self, batch: pa.RecordBatch) -> Any:
        return self._apply(batch)

    def finish(self) -> Any:
        return ()


class _Groups(kernels.Phase):
    """A kernel over whole groups, of which the task holds all."""

    def __init__(self, op: Operator, partition: int) -> None:
        super().__init__()
        assert isinstance(op.kernel, GroupMap)
        self._kernel, self._apply = op.kernel, call_groups(op, partition)

    def finish(self) -> Any:
        if not self._collected:
            return ()
        table = pa.Table.from_batches(self._collected)
        ordered = table.sort_by([(c, "ascending") for c in (*self._kernel.keys, *self._kernel.order_by)]).combine_chunks()
        return self._apply(ordered.to_batches()[0] if ordered.num_rows else empty_batch(ordered.schema))


def _run(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Batches that the stage's phases make of the input."""
    steps = [s for s in work.program.steps if not isinstance(s.phase, Sink)]
    left, right = (inputs[: work.split], inputs[work.split :]) if work.split else (inputs, [])
    source = _batches(left)
    if steps and steps[0].table is not None:
        source = _scan(steps.pop(0), place[0])
    phases = [_phase(step, work, place[0], sides, right) for step in steps]
    for batch in source:
        yield from _push(phases, steps, batch)
    for i, phase in enumerate(phases):
        with kernel_failure(steps[i].operator, place[0]):
            outputs = list(phase.finish())
        for out in outputs:
            yield from _push(phases[i + 1 :], steps[i + 1 :], out)


def _scan(step: physical.Step, partition: int) -> Iterator[pa.RecordBatch]:
    with kernel_failure(step.operator, partition):
        yield from kernels.scan(step, partition)


def _batches(tables: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    for table in tables:
        if table.num_columns:
            yield from table.to_batches() or [empty_batch(table.schema)]


def _phase(step: physical.Step, work: Work, partition: int, sides: list[pa.Table], right: list[pa.Table]) -> kernels.Phase:
    op = work.operators[step.operator]
    if isinstance(step.phase, MapBatches):
        return _Kernel(op, partition)
    if isinstance(step.phase, GroupMap):
        return _Groups(op, partition)
    joined = pa.Table.from_batches(list(_batches(right))) if isinstance(step.phase, Join) else None
    return kernels.build(step, sides, None, joined)


def _push(phases: list[kernels.Phase], steps: list[physical.Step], batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if not phases:
        yield batch
        return
    outputs = iter(phases[0].push(batch))
    while True:
        with kernel_failure(steps[0].operator):
            out = next(outputs, None)
        if out is None:
            return
        yield from _push(phases[1:], steps[1:], out)


def _blocks(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> Iterator[pa.Table]:
    """The output in tables of about ``block_bytes``; a sink's are written and counted."""
    files = any(isinstance(s.phase, Sink) for s in work.program.steps)
    for number, table in enumerate(_cut(_run(work, place, inputs, sides), work.block_bytes)):
        yield _written(table, work.output, (*place, number)) if files else table


def _cut(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        rows = max(1, int(batch.num_rows * limit / batch.nbytes)) if batch.nbytes > limit else max(1, batch.num_rows)
        for start in range(0, max(1, batch.num_rows), rows):
            part = batch.slice(start, rows)
            if held and size + part.nbytes > limit:
                yield pa.Table.from_batches(held)
                held, size = [], 0
            held.append(part)
            size += part.nbytes
    if held:
        yield pa.Table.from_batches(held)


def _written(table: pa.Table, output: str, place: tuple[int, ...]) -> pa.Table:
    """A Parquet file whose name keeps the order; a repeated task writes the same one."""
    import os

    import pyarrow.parquet as pq

    path = Path(output) / f"part-{'-'.join(f'{n:06d}' for n in place)}.parquet"
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table, scratch)
    scratch.rename(path)
    return pa.table({"file": [path.name], "rows": [table.num_rows]})


def _pieces(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> list[Any]:
    """A first object that says "done", then a table a partition."""
    partitioner = work.program.partitioner
    assert partitioner is not None
    found: list[list[pa.RecordBatch]] = [[] for _ in range(partitioner.partitions)]
    rows, bounds, empty = 0, sides[-1] if partitioner.kind == "range" else None, pa.table({})
    for table in _cut(_run(work, place, inputs, sides), work.block_bytes):
        batch = table.combine_chunks().to_batches()[0] if table.num_rows else empty_batch(table.schema)
        for p, piece in kernels.split(batch, partitioner, bounds, rows):
            found[p].append(piece)
        rows, empty = rows + batch.num_rows, table.slice(0, 0)
    return [rows, *(pa.Table.from_batches(parts) if parts else empty for parts in found)]


def _sides(tables: tuple[pa.Table, ...], counts: list[int]) -> tuple[list[pa.Table], list[pa.Table]]:
    """(inputs, broadcast sides) from the one row of arguments that Ray resolves; ``counts`` blocks make up each side."""
    total, sides = sum(counts), []
    rest = list(tables[len(tables) - total :])
    for count in counts:
        whole = [t for t in rest[:count] if t.num_columns]
        sides.append(pa.concat_tables(whole) if whole else pa.table({}))
        rest = rest[count:]
    return list(tables[: len(tables) - total]), sides


def stream(work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Iterator[pa.Table]:
    """A task that streams its blocks."""
    pa.set_cpu_count(1)
    inputs, sides = _sides(tables, counts)
    yield from _blocks(work, place, inputs, sides)


def exchange(work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Any:
    """A task that cuts its output by partition."""
    pa.set_cpu_count(1)
    inputs, sides = _sides(tables, counts)
    return _pieces(work, place, inputs, sides)


class Actor:
    """A process that keeps a stage's stateful kernels: they are loaded when it starts."""

    def __init__(self, work: Work) -> None:
        for step in work.program.steps:
            if isinstance(step.phase, MapBatches):
                call(work.operators[step.operator])

    def stream(self, work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Iterator[pa.Table]:
        """See `stream`."""
        yield from stream(work, place, counts, *tables)

    def exchange(self, work: Work, place: tuple[int, ...], counts: list[int], *tables: pa.Table) -> Any:
        """See `exchange`."""
        return exchange(work, place, counts, *tables)


# -- in the driver ----------------------------------------------------------------------------------------------------


class Pool:
    """Actors of one stateful stage. They claim no CPU from Ray: the driver's budget counts their calls instead."""

    def __init__(self, stage: Stage, work: Work, size: int) -> None:
        import ray

        needs = stage.resources
        kind = ray.remote(num_cpus=0, num_gpus=needs.gpus, resources=dict(needs.custom), max_restarts=RETRIES)(Actor)
        self.idle = [kind.options(max_task_retries=RETRIES).remote(work) for _ in range(size)]


@dataclass(slots=True)
class Task:
    """A task under way. ``handle`` is what `ray.wait` waits for: a stream of blocks, or the first object of an exchange."""

    handle: Any
    place: tuple[int, ...]
    actor: Any = None
    pieces: list[Any] = field(default_factory=list)
    taken: int = -1  # number of the newest block of the stream

    @classmethod
    def start(
        cls, stage: Stage, work: Work, place: tuple[int, ...], inputs: list[Any], sides: list[list[Any]], actor: Any
    ) -> Task:
        """Hand it to Ray."""
        import ray

        partitioner, needs = work.program.partitioner, stage.resources
        arguments = (work, place, [len(s) for s in sides], *inputs, *(b for side in sides for b in side))
        function = exchange if partitioner is not None else stream
        returns: Any = "streaming" if partitioner is None else 1 + partitioner.partitions
        if actor is not None:
            found = getattr(actor, function.__name__).options(num_returns=returns).remote(*arguments)
        else:
            task = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, resources=dict(needs.custom), max_retries=RETRIES)(
                function
            )
            found = task.options(num_returns=returns).remote(*arguments)
        if partitioner is None:
            return cls(found, place, actor)
        return cls(found[0], place, actor, list(found[1:]))

    def block(self) -> Any:
        """The next block of a stream that has one, None at its end. Raises what the task raised."""
        import ray

        if self.pieces:
            ray.get(self.handle)
            return None
        try:
            reference = next(self.handle)
        except StopIteration:
            ray.get(self.handle.completed())
            return None
        self.taken += 1
        return reference

    def cancel(self) -> None:
        """Let it run no further where Ray can stop it: a task; an actor's call is waited for."""
        import contextlib

        import ray

        with contextlib.suppress(Exception):
            if self.actor is None:
                ray.cancel(self.handle)
            else:
                ray.wait([self.handle], timeout=30)
