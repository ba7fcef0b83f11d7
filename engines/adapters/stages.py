"""A stage's program on Arrow tables, for adapters that plan with our physical stages and have their engine run the tasks.

`blocks` gives a task's output in tables of about a block, `pieces` cuts it by partition. Kernels go through the door that all engines
share. The module knows no engine, process or queue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines import physical
from windtunnel.engines.arrow import call, call_groups, empty_batch
from windtunnel.engines.failures import kernel_failure
from windtunnel.engines.local import kernels
from windtunnel.spec.plan import GroupMap, Join, MapBatches, Operator, Sink


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


def run(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> Iterator[pa.RecordBatch]:
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


def blocks(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> Iterator[pa.Table]:
    """The output in tables of about ``block_bytes``; a sink's are written and counted."""
    files = any(isinstance(s.phase, Sink) for s in work.program.steps)
    for number, table in enumerate(_cut(run(work, place, inputs, sides), work.block_bytes)):
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
    import pyarrow.parquet as pq

    path = Path(output) / f"part-{'-'.join(f'{n:06d}' for n in place)}.parquet"
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table, scratch)
    scratch.rename(path)
    return pa.table({"file": [path.name], "rows": [table.num_rows]})


def pieces(work: Work, place: tuple[int, ...], inputs: list[pa.Table], sides: list[pa.Table]) -> list[pa.Table]:
    """The output cut by the program's partitioner: a table a partition."""
    return cut_by_partition(work, _cut(run(work, place, inputs, sides), work.block_bytes), sides)


def cut_by_partition(work: Work, tables: Iterator[pa.Table], sides: list[pa.Table]) -> list[pa.Table]:
    """A table a partition; one without rows has the columns."""
    partitioner = work.program.partitioner
    assert partitioner is not None
    found: list[list[pa.RecordBatch]] = [[] for _ in range(partitioner.partitions)]
    rows, bounds, empty = 0, sides[-1] if partitioner.kind == "range" else None, pa.table({})
    for table in tables:
        batch = table.combine_chunks().to_batches()[0] if table.num_rows else empty_batch(table.schema)
        for p, piece in kernels.split(batch, partitioner, bounds, rows):
            found[p].append(piece)
        rows, empty = rows + batch.num_rows, table.slice(0, 0)
    return [pa.Table.from_batches(parts) if parts else empty for parts in found]
