"""Kernels as Flink's Python workers call them: pandas series in and out, Arrow in between. They are bound where they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from windtunnel.engines.arrow import arrow_schema, call, call_groups
from windtunnel.spec.plan import GroupMap, MapBatches, Operator

PACKED = "__packed"  # the column of answers as Arrow bytes


class RowKernel:
    """A kernel that keeps the number of rows: a pandas frame in, a pandas frame out. It is bound where it runs."""

    def __init__(self, op: Operator, fields: list[tuple[str, str]]) -> None:
        self.op, self.fields = op, fields
        self._apply: Any = None
        self.__name__ = op.name

    def answer(self, columns: list[Any]) -> pa.Table:
        """The kernel's rows for columns of pandas series."""
        assert isinstance(self.op.kernel, (MapBatches, GroupMap))
        if self._apply is None:
            self._apply = call(self.op) if isinstance(self.op.kernel, MapBatches) else call_groups(self.op)
        schema = arrow_schema(self.fields)
        arrays = [pa.array(c, type=f.type, from_pandas=True) for c, f in zip(columns, schema, strict=True)]
        table = self.ordered(pa.Table.from_arrays(arrays, schema=schema)).combine_chunks()
        outputs = [out for batch in table.to_batches() for out in self._apply(batch)]
        return pa.Table.from_batches(outputs, schema=arrow_schema(self.op.kernel.schema))

    def ordered(self, table: pa.Table) -> pa.Table:
        """The input as the kernel wants it."""
        return table

    def __call__(self, frame: Any) -> Any:
        """One batch. Raises ValueError when the kernel changes the number of rows."""
        found = self.answer([column for _, column in frame.items()])
        if found.num_rows != len(frame):
            raise ValueError(f"{self.op.name}: a map must return {len(frame)} rows, not {found.num_rows}; declare a flat_map")
        return found.to_pandas()


class PackKernel(RowKernel):
    """A kernel that may change the number of rows: its answer as Arrow bytes in the first row of the batch."""

    def __call__(self, frame: Any) -> Any:
        """One batch."""
        import pandas as pd

        packed = _packed(self.answer([column for _, column in frame.items()]))
        return pd.DataFrame({PACKED: [packed, *[None] * (len(frame) - 1)]})


class GroupKernel(RowKernel):
    """A kernel over whole groups, as an aggregate whose value is its answer as Arrow bytes."""

    def ordered(self, table: pa.Table) -> pa.Table:
        """By keys and what the operator asks for."""
        assert isinstance(self.op.kernel, GroupMap)
        return table.sort_by([(c, "ascending") for c in (*self.op.kernel.keys, *self.op.kernel.order_by)])

    def __call__(self, *columns: Any) -> bytes:
        """All rows of a bucket."""
        return _packed(self.answer(list(columns)))


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(row: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of packed bytes."""
    if row[0] is not None:
        for batch in pa.ipc.open_stream(row[0]):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
