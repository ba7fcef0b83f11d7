"""Operators declared by cost, for real: they take their time and make rows of their declared width. One kernel for all engines.

The rows are all the same, but bytes they are: every engine writes, copies, pickles or sends them as it does any others. Working
memory and state that an operator declares is held while it works. What is declared of devices, of variance (``cv``) and of where
data lie stays with the simulated world: a real run of a declared cost is exact. The module knows no engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa

from windtunnel.spec.plan import Operator, Pipeline, Scan, Synthetic
from windtunnel.spec.workload import BoundWorkload, TableData

_TIMER_SLACK_S = 0.0003  # sleeps end up to this late on a virtual machine
MOST_BYTES = 32 * 2**20
SCHEMA = pa.schema([("payload", pa.binary())])  # for engines that know no column of fixed width


class Declared:
    """The kernel of an operator: called with a batch, it takes the declared time a call and yields batches of the declared rows.

    Fractional rows carry over between calls. ``memory_bytes`` are held from the first call on, within its time.
    """

    def __init__(self, spec: Synthetic, *, batch_rows: int = 0, memory_bytes: int = 0) -> None:
        self._spec, self._batch_rows, self._memory = spec, batch_rows, memory_bytes
        self._carry = 0.0
        self._held: bytes | None = None
        self._payload = pa.RecordBatch.from_arrays([pa.array([], pa.binary(1))], names=["payload"])

    def __call__(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Each slice of ``batch_rows`` rows is a call; its rows leave in batches of at most `MOST_BYTES`, so that few are held."""
        size = self._batch_rows or max(1, batch.num_rows)
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            self._work(part.num_rows, part.nbytes)
            rows = part.num_rows * self._spec.rows_out + self._carry
            self._carry = rows - int(rows + 1e-9)
            yield from self._output(
                int(rows + 1e-9), _width(part) if self._spec.row_bytes_out is None else self._spec.row_bytes_out
            )

    def _work(self, rows: int, size: int) -> None:
        began = time.perf_counter()
        if self._held is None:
            self._held = held(self._memory)
        cost = self._spec.cost
        seconds = cost.per_batch_s + cost.per_row_s * rows + cost.per_byte_s * size
        occupy(seconds - (time.perf_counter() - began if self._memory else 0.0), spin=self._spec.fixed_work == "spin")

    def _output(self, rows: int, width: int) -> Iterator[pa.RecordBatch]:
        width = max(1, width)
        most = min(rows, max(1, MOST_BYTES // width))
        if self._payload.num_rows < most or self._payload.schema.field(0).type.byte_width != width:
            self._payload = _rows(held(most * width), width)
        yield self._payload.slice(0, most)
        for start in range(most, rows, max(1, most)):
            yield self._payload.slice(0, min(most, rows - start))


def _width(batch: pa.RecordBatch) -> int:
    """Bytes of a row of the input."""
    column = batch.column(0)
    if pa.types.is_fixed_size_binary(column.type):
        return int(column.type.byte_width)
    return len(column[0].as_buffer()) if batch.num_rows else 1


class Loaded(Declared):
    """A stateful operator: it takes its declared time to load, and holds its state as long as it lives (device memory aside)."""

    def __init__(self, op: Operator) -> None:
        assert isinstance(op.kernel, Synthetic)
        super().__init__(op.kernel, batch_rows=op.batch_rows, memory_bytes=op.resources.memory_bytes)
        began = time.perf_counter()
        self._state = held(0 if op.resources.gpus else op.state.memory_bytes)
        occupy(op.state.load_s - (time.perf_counter() - began), spin=False)


def kernel(op: Operator) -> Declared:
    """The kernel of an operator declared by cost."""
    assert isinstance(op.kernel, Synthetic)
    if op.state.kind == "actor":
        return Loaded(op)
    return Declared(op.kernel, batch_rows=op.batch_rows, memory_bytes=op.resources.memory_bytes)


def held(size: int) -> bytes:
    """``size`` bytes of memory that is really there: pages nobody wrote to would take none."""
    return b"\1" * size


def occupy(seconds: float, *, spin: bool) -> None:
    """Take ``seconds``: sleeping (its last fraction of a millisecond spun, so that it ends on time), or burning CPU time.

    CPU time, not wall time: a spinning task slows down where CPUs are oversubscribed.
    """
    if spin:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            sum(range(200))
        return
    end = time.perf_counter() + seconds
    if seconds > _TIMER_SLACK_S:
        time.sleep(seconds - _TIMER_SLACK_S)
    while time.perf_counter() < end:
        pass


def payload_row(size: int) -> pa.RecordBatch:
    """One row of ``size`` bytes."""
    return pa.RecordBatch.from_arrays([pa.array([held(size)], pa.binary())], schema=SCHEMA)


# -- sources ----------------------------------------------------------------------------------------------------------


def generated(table: TableData, partition: int) -> pa.RecordBatch:
    """The rows of one partition of a table that lies nowhere."""
    return payload_batch(table.partition_rows[partition], max(1, table.bytes // max(1, table.rows)))


def payload_batch(rows: int, width: int) -> pa.RecordBatch:
    """``rows`` rows of ``width`` zero bytes."""
    return _rows(bytes(rows * width), width)


def _rows(data: bytes, width: int) -> pa.RecordBatch:
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data) // width, [None, pa.py_buffer(data)])
    return pa.RecordBatch.from_arrays([values], names=["payload"])


# -- pipelines --------------------------------------------------------------------------------------------------------


def is_declared(pipeline: Pipeline) -> bool:
    """Whether operators are declared by cost; such a pipeline reads generated rows and holds no other kind of operator."""
    return any(isinstance(op.kernel, Synthetic) for op in pipeline.operators)


def is_wide(op: Operator) -> bool:
    """Whether the operator reads its input through an exchange."""
    return op.kind in ("aggregate", "sort", "join")


def tasks(pipeline: Pipeline) -> tuple[tuple[Operator, ...], ...]:
    """Operators that engines with narrow fusion run as one task: neighbours that ask for the same, without an exchange between.

    Making the generated rows is part of the task that first reads them.
    """
    found: list[list[Operator]] = []
    for before, op in pairwise((None, *pipeline.operators)):
        assert op is not None
        if before is not None and _one_task(before, op, pipeline):
            found[-1].append(op)
        else:
            found.append([op])
    return tuple(tuple(part) for part in found)


def _one_task(before: Operator, op: Operator, pipeline: Pipeline) -> bool:
    if op.inputs != (before.name,) or is_wide(op) or sum(o.inputs.count(before.name) for o in pipeline.operators) > 1:
        return False
    if isinstance(before.kernel, Scan):
        return True
    stateless = before.state.kind == op.state.kind == "stateless"
    return stateless and before.resources == op.resources and before.concurrency is None and op.concurrency is None


def rows_a_batch(workload: BoundWorkload, most: int) -> int:
    """Rows of the widest declared rows that fit into `MOST_BYTES`, at most ``most``: for engines that count a batch in rows."""
    spec = workload.workload.dataset
    widths = [op.kernel.row_bytes_out or 0 for op in workload.pipeline.operators if isinstance(op.kernel, Synthetic)]
    return max(1, min(most, MOST_BYTES // max(1, spec.row_bytes or 0, *widths)))


def needs(task: Sequence[Operator]) -> Operator:
    """The operator whose resources, state and concurrency the task has: the first that does something."""
    return next((op for op in task if not isinstance(op.kernel, Scan)), task[0])
