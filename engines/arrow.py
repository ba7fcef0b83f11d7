"""The Arrow door that all engines share: schemas from plans, tables from files, kernels called on record batches.

Every engine calls a kernel through `call` (or `call_groups`), so that a kernel sees the same batches and a failing one is told
in the same words. A stateful kernel is loaded once a process, and each load is told to whom it concerns. The module knows no engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.engines import declared, notes
from windtunnel.engines.failures import kernel_failure
from windtunnel.spec.plan import GroupMap, MapBatches, Operator, Synthetic
from windtunnel.spec.workload import TableData, resolve

BatchFunction = Callable[[pa.RecordBatch], Iterable[pa.RecordBatch]]


def arrow_schema(fields: Iterable[tuple[str, str]]) -> pa.Schema:
    """Arrow schema from (name, type name) pairs; timestamps and dates by their Arrow names."""
    return pa.schema([(name, _arrow_type(kind)) for name, kind in fields])


def _arrow_type(kind: str) -> pa.DataType:
    special = {"timestamp[us]": pa.timestamp("us"), "timestamp[ms]": pa.timestamp("ms"), "date32[day]": pa.date32(),
               "double": pa.float64(), "float": pa.float32(), "list<float>": pa.list_(pa.float32())}  # fmt: skip
    return special.get(kind) or pa.type_for_alias(kind)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of ``schema``."""
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def file_format(table: TableData, schema: pa.Schema) -> Any:
    """What `pyarrow.dataset.dataset` takes as the format of the table's files."""
    import pyarrow.dataset as ds

    if table.format == "csv":
        from pyarrow import csv

        return ds.CsvFileFormat(convert_options=csv.ConvertOptions(column_types=schema, strings_can_be_null=False))
    if table.format == "parquet":  # local files: a row group at a time instead of the whole file ahead takes less memory, as fast
        return ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False))
    return table.format


def as_dataset(table: TableData) -> Any:
    """All files of a table as a `pyarrow.dataset.Dataset`."""
    import pyarrow.dataset as ds

    schema = arrow_schema(table.schema)
    return ds.dataset(list(table.paths), schema=schema, format=file_format(table, schema))


# -- kernels ----------------------------------------------------------------------------------------------------------


def bind(spec: MapBatches | GroupMap) -> Callable[..., Any]:
    """The kernel with its parameters; a class is built (its load) and called."""
    function, params = resolve(spec.function), dict(spec.params)
    if isinstance(function, type):
        actor: Callable[..., Any] = function(**params)
        return actor
    return (lambda batch: function(batch, **params)) if params else function


_actors: dict[MapBatches | GroupMap | Operator, Callable[..., Any]] = {}
_loading = threading.Lock()


def _actor(op: Operator, spec: MapBatches | GroupMap | Synthetic) -> Callable[..., Any]:
    """The stateful kernel of this process: loaded at its first use, then kept, whatever task or query asks for it."""
    key = op if isinstance(spec, Synthetic) else spec
    with _loading:
        if key not in _actors:
            with notes.load(op.name):
                _actors[key] = declared.kernel(op) if isinstance(spec, Synthetic) else bind(spec)
        return _actors[key]


def forget_actors() -> None:
    """Drop the stateful kernels of this process, as the end of a session does."""
    with _loading:
        _actors.clear()


def as_batches(result: Any) -> Iterable[pa.RecordBatch]:
    """A kernel's answer: one batch, or several."""
    return (result,) if isinstance(result, pa.RecordBatch) else result


def call(op: Operator, partition: int | None = None) -> BatchFunction:
    """The kernel of a map: takes a batch, calls the kernel on slices of ``batch_rows``, gives batches of the declared schema.

    Raises KernelFailed with operator, partition and the user's own line.
    """
    spec = op.kernel
    assert isinstance(spec, MapBatches)
    function, schema = _bound(op, spec, partition), arrow_schema(spec.schema)

    def apply(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        parts = list(sliced(_plain(batch), op.batch_rows))
        yield from notes.kernel_calls(op.name, lambda: (out for part in parts for out in outputs(part)))

    def outputs(part: pa.RecordBatch) -> list[pa.RecordBatch]:
        with kernel_failure(op.name, partition):
            return [_cast(b, schema) for b in as_batches(function(part))]

    return apply


def call_declared(op: Operator, partition: int | None = None) -> BatchFunction:
    """The kernel of an operator declared by cost: as `call`, and failures told in the same way."""
    assert isinstance(op.kernel, Synthetic)
    with kernel_failure(op.name, partition):
        kernel = _actor(op, op.kernel) if op.state.kind == "actor" else declared.kernel(op)

    def apply(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        with kernel_failure(op.name, partition):
            yield from notes.kernel_calls(op.name, lambda: kernel(batch))

    return apply


def through(
    task: Iterable[Operator], batches: Iterator[pa.RecordBatch], partition: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches through the declared operators of one task, each at its turn, so that the task holds the rows of few calls."""
    for op in task:
        batches = _flow(call_declared(op, partition), batches)
    return batches


def _flow(apply: BatchFunction, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from apply(batch)


def call_groups(op: Operator, partition: int | None = None) -> BatchFunction:
    """The kernel of a group_map: takes batches of whole groups in order."""
    spec = op.kernel
    assert isinstance(spec, GroupMap)
    function, schema = _bound(op, spec, partition), arrow_schema(spec.schema)

    def outputs(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        with kernel_failure(op.name, partition):
            return [_cast(b, schema) for b in as_batches(function(_plain(batch)))]

    return lambda batch: notes.kernel_calls(op.name, lambda: outputs(batch))


def _bound(op: Operator, spec: MapBatches | GroupMap, partition: int | None) -> Callable[..., Any]:
    with kernel_failure(op.name, partition):
        return _actor(op, spec) if op.state.kind == "actor" else bind(spec)


def sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Slices of at most ``rows`` rows; the batch as it is for 0 or when it is no longer."""
    if not rows or batch.num_rows <= rows:
        yield batch
        return
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def whole_groups(batches: Iterable[pa.RecordBatch], keys: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Batches cut anew, so that no group of ``keys`` is split; the input is ordered by the keys."""
    carry: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows == 0:
            continue
        joined = _joined([*carry, batch])
        cut = _last_group(joined, keys)
        if cut > 0:
            yield joined.slice(0, cut)
        carry = [joined.slice(cut)]
    yield from carry


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def _last_group(batch: pa.RecordBatch, keys: tuple[str, ...]) -> int:
    """Row where the last group of the batch begins."""
    if batch.num_rows == 0:
        return 0
    changed = np.zeros(batch.num_rows, dtype=bool)
    for key in keys:
        values = batch.column(key).to_numpy(zero_copy_only=False)
        changed[1:] |= values[1:] != values[:-1]
    positions = np.flatnonzero(changed)
    return int(positions[-1]) if len(positions) else 0


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Strings as `string`, whatever wide or view layout the engine uses: a kernel sees one layout."""
    fields = [pa.field(f.name, _plain_type(f.type)) for f in batch.schema]
    if all(f.type == g.type for f, g in zip(fields, batch.schema, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(
        [c if c.type == f.type else c.cast(f.type) for c, f in zip(batch.columns, fields, strict=True)], schema=pa.schema(fields)
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The kernel's batch in the declared schema (nullability and metadata aside). Raises ValueError naming the difference."""
    if batch.schema.names != schema.names:
        raise ValueError(
            f"the kernel returned columns {', '.join(batch.schema.names)}; its operator declares {', '.join(schema.names)}"
        )
    return batch if batch.schema.equals(schema) else batch.cast(schema)
