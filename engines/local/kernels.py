"""Phases of a stage on Arrow record batches: push a batch in, get batches out. Pure computation; no files but what a scan reads.

`build` turns a `Step` into a `Phase` object with ``push(batch)`` and ``finish()``. All of Arrow's kernels run on one thread: a
worker is one slot. The module knows nothing of blocks, workers or scheduling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windtunnel.engines import physical
from windtunnel.engines.arrow import arrow_schema, as_batches, bind, empty_batch, file_format, sliced
from windtunnel.engines.declared import Declared, generated, occupy, payload_row
from windtunnel.errors import InputError
from windtunnel.spec.expr import Expr, Scalar, fold
from windtunnel.spec.plan import (
    Aggregate,
    Filter,
    GroupMap,
    Join,
    Limit,
    MapBatches,
    Project,
    Scan,
    Sort,
    Synthetic,
)

SCAN_BATCH_ROWS = 131_072
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": pc.add, "subtract": pc.subtract, "multiply": pc.multiply,
    "divide": lambda a, b: pc.divide(pc.cast(a, pa.float64()), b),
    "equal": pc.equal, "not_equal": pc.not_equal, "less": pc.less, "less_equal": pc.less_equal,
    "greater": pc.greater, "greater_equal": pc.greater_equal, "and": pc.and_kleene, "or": pc.or_kleene, "not": pc.invert,
    "is_in": lambda a, *values: pc.is_in(a, value_set=pa.array([v.as_py() for v in values])),
    "if_else": pc.if_else, "year": pc.year, "starts_with": lambda a, b: pc.starts_with(a, pattern=b.as_py()),
    "length": lambda a: pc.cast(pc.utf8_length(a), pa.int64()),
    "cast_float": lambda a: pc.cast(a, pa.float64()), "cast_int": lambda a: pc.cast(a, pa.int64()),
    "is_null": pc.is_null,
}  # fmt: skip


def evaluate(expr: Expr, batch: pa.RecordBatch) -> Any:
    """``expr`` over the rows of ``batch``: an array, or a scalar when it names no column."""
    return fold(expr, batch.column, _scalar, _FUNCTIONS)


def _scalar(value: Scalar) -> pa.Scalar:
    return pa.scalar(value)


# -- sources ----------------------------------------------------------------------------------------------------------


def scan(step: physical.Step, partition: int) -> Iterator[pa.RecordBatch]:
    """Batches of one partition of a table; at least one, so that the schema is known."""
    table, spec = step.table, step.phase
    assert table is not None and isinstance(spec, Scan)
    if table.format == "generated":
        yield generated(table, partition)
        return
    import pyarrow.dataset as ds

    schema = arrow_schema(table.schema)
    source = ds.dataset(table.paths[partition], schema=schema, format=file_format(table, schema))
    predicate = None if spec.predicate is None else scan_predicate(spec.predicate)
    columns, rows = list(spec.columns), step.batch_rows or SCAN_BATCH_ROWS
    empty = True
    for part in _one_by_one(source, predicate):
        scanner = part.scanner(schema=schema, columns=columns, filter=predicate, use_threads=False, batch_size=rows)
        for batch in scanner.to_batches():
            if batch.num_rows:
                empty = False
                yield batch
    if empty:
        yield empty_batch(source.scanner(columns=columns).projected_schema)


def _one_by_one(source: Any, predicate: Any) -> Iterator[Any]:
    """The row groups of a Parquet file that may hold rows of the predicate, other files whole.

    A scanner reads up to 16 batches ahead, and with them a whole file of wide rows.
    """
    import pyarrow.dataset as ds

    for fragment in source.get_fragments(predicate):
        if isinstance(fragment, ds.ParquetFileFragment):
            yield from fragment.split_by_row_group(predicate, source.schema)
        else:
            yield fragment


def scan_predicate(expr: Expr) -> Any:
    """``expr`` as a filter of a `pyarrow.dataset` scan."""
    import pyarrow.dataset as ds

    return fold(expr, ds.field, _scalar, _FUNCTIONS | _SCAN_FUNCTIONS)


#: where a dataset expression is built in another way than an array is computed
_SCAN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "divide": lambda a, b: a.cast(pa.float64()) / b,
    "is_in": lambda a, *values: a.isin([v.as_py() for v in values]),
    "length": lambda a: pc.utf8_length(a).cast(pa.int64()),
    "cast_float": lambda a: a.cast(pa.float64()), "cast_int": lambda a: a.cast(pa.int64()), "is_null": lambda a: a.is_null(),
}  # fmt: skip


# -- phases -----------------------------------------------------------------------------------------------------------


class Phase:
    """Push batches in, take batches out. The base collects everything and works in `whole` at the end."""

    def __init__(self) -> None:
        self._collected: list[pa.RecordBatch] = []

    def push(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        """Take one batch."""
        self._collected.append(batch)
        return ()

    def finish(self) -> Iterable[pa.RecordBatch]:
        """The input is complete."""
        if not self._collected:
            return ()
        table = pa.Table.from_batches(self._collected)
        self._collected = []
        return _batches(self.whole(table))

    def whole(self, table: pa.Table) -> pa.Table:
        """The phase's result for the whole input of the task."""
        raise NotImplementedError(type(self).__name__)


class RecordedTask(Phase):
    """A task of known duration: when its input is there it waits, computes, and leaves one row of its bytes."""

    def __init__(self, told: physical.Told) -> None:
        super().__init__()
        self._told = told

    def push(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        return ()

    def finish(self) -> Iterable[pa.RecordBatch]:
        occupy(self._told.wait_s, spin=False)
        occupy(self._told.cpu_s, spin=True)
        return [payload_row(self._told.bytes_out)]


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    return table.combine_chunks().to_batches() or [empty_batch(table.schema)]


class _PerBatch(Phase):
    """A stateless function of each batch, called with at most ``batch_rows`` rows."""

    def __init__(self, function: Callable[[pa.RecordBatch], Any], batch_rows: int = 0) -> None:
        super().__init__()
        self._function, self._batch_rows = function, batch_rows

    def push(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for part in sliced(batch, self._batch_rows):
            yield from as_batches(self._function(part))

    def finish(self) -> Iterable[pa.RecordBatch]:
        return ()


def project(spec: Project, batch: pa.RecordBatch) -> pa.RecordBatch:
    arrays = []
    for _, expr in spec.columns:
        value = evaluate(expr, batch)
        if isinstance(value, pa.Scalar):
            value = pa.repeat(value, batch.num_rows)
        arrays.append(value)
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in spec.columns])


class _PartialAggregate(Phase):
    """Aggregates every ``fold_rows`` rows, then merges, so that memory stays bounded by groups."""

    fold_rows = 1_000_000

    def __init__(self, spec: Aggregate) -> None:
        super().__init__()
        self._spec, self._rows, self._partials = spec, 0, list[pa.Table]()

    def push(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        self._collected.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self.fold_rows:
            self._fold()
        return ()

    def _fold(self) -> None:
        self._partials.append(_partial(self._spec, pa.Table.from_batches(self._collected)))
        self._collected, self._rows = [], 0

    def finish(self) -> Iterable[pa.RecordBatch]:
        if self._collected:
            self._fold()
        if not self._partials:
            return ()
        table = self._partials[0] if len(self._partials) == 1 else _merge(self._spec, pa.concat_tables(self._partials))
        return _batches(table)


def _partial_names(spec: Aggregate) -> list[tuple[str, str, str | None]]:
    """(partial column, Arrow function, source column) of each measure; a mean travels as sum and count of non-nulls."""
    names: list[tuple[str, str, str | None]] = []
    for m in spec.measures:
        if m.function == "mean":
            names += [(f"{m.name}__sum", "sum", m.column), (f"{m.name}__count", "count", m.column)]
        else:
            names.append((m.name, "count_all" if m.function == "count" else m.function, m.column))
    return names


def _partial(spec: Aggregate, table: pa.Table) -> pa.Table:
    calls = [([] if c is None else c, f) for _, f, c in _partial_names(spec)]
    result = table.group_by(list(spec.keys), use_threads=False).aggregate(calls)
    return _renamed(result, spec)


def _renamed(result: pa.Table, spec: Aggregate) -> pa.Table:
    """Arrow puts keys first, then aggregates in the order asked for."""
    return result.rename_columns([*spec.keys, *(n for n, _, _ in _partial_names(spec))])


def _merge(spec: Aggregate, table: pa.Table) -> pa.Table:
    merged = {"sum": "sum", "count": "sum", "count_all": "sum", "min": "min", "max": "max"}
    calls = [(name, merged[f]) for name, f, _ in _partial_names(spec)]
    return _renamed(table.group_by(list(spec.keys), use_threads=False).aggregate(calls), spec)


def _final(spec: Aggregate, table: pa.Table) -> pa.Table:
    merged = _merge(spec, table)
    columns: dict[str, Any] = {k: merged[k] for k in spec.keys}
    for m in spec.measures:
        if m.function == "mean":
            columns[m.name] = pc.divide(pc.cast(merged[f"{m.name}__sum"], pa.float64()), merged[f"{m.name}__count"])
        else:
            columns[m.name] = merged[m.name]
    return pa.table(columns)


def _sorted(spec: Sort, table: pa.Table) -> pa.Table:
    return table.sort_by([(k.column, "descending" if k.descending else "ascending") for k in spec.keys])


def join(spec: Join, left: pa.Table, right: pa.Table) -> pa.Table:
    """Equi-join on one thread; the right side is the build side."""
    how = {"inner": "inner", "semi": "left semi"}[spec.how]
    return left.join(right, list(spec.left_keys), list(spec.right_keys), join_type=how, use_threads=False)


class _Whole(Phase):
    """A function of the task's whole input."""

    def __init__(self, function: Callable[[pa.Table], pa.Table]) -> None:
        super().__init__()
        self._function = function

    def whole(self, table: pa.Table) -> pa.Table:
        return self._function(table)


class _Limit(Phase):
    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def push(self, batch: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
        taken = batch.slice(0, self._left)
        self._left -= taken.num_rows
        return (taken,)

    def finish(self) -> Iterable[pa.RecordBatch]:
        return ()


# -- building ---------------------------------------------------------------------------------------------------------


def build(step: physical.Step, sides: list[pa.Table], actor: Callable[..., Any] | None, right: pa.Table | None) -> Phase:
    """The phase of ``step``. ``sides``: broadcast inputs; ``actor``: the loaded state; ``right``: right input of a hash join."""
    phase = step.phase
    if isinstance(phase, Filter):
        return _PerBatch(lambda b: b.filter(evaluate(phase.predicate, b)))
    if isinstance(phase, Project):
        return _PerBatch(lambda b: project(phase, b))
    if isinstance(phase, MapBatches):
        return _PerBatch(actor or bind(phase), step.batch_rows)
    if isinstance(phase, Synthetic):
        return _PerBatch(actor or Declared(phase, batch_rows=step.batch_rows, memory_bytes=step.memory_bytes))
    if isinstance(phase, physical.PartialAggregate):
        return _PartialAggregate(phase.spec)
    if isinstance(phase, Limit):
        return _Limit(phase.count)
    return _Whole(_whole_function(phase, sides, right))


def _whole_function(phase: Any, sides: list[pa.Table], right: pa.Table | None) -> Callable[[pa.Table], pa.Table]:
    if isinstance(phase, physical.FinalAggregate):
        return lambda t: _final(phase.spec, t)
    if isinstance(phase, Join) and right is not None:
        return lambda t: join(phase, t, right)
    if isinstance(phase, physical.BroadcastJoin):
        return lambda t: join(phase.spec, t, sides[phase.side])
    if isinstance(phase, Sort):
        return lambda t: _sorted(phase, t)
    if isinstance(phase, physical.TopN):
        return lambda t: _sorted(phase.spec, t).slice(0, phase.count)
    if isinstance(phase, physical.SampleKeys):
        return lambda t: _sample(phase, t)
    if isinstance(phase, physical.RangeBounds):
        return lambda t: _bounds(phase, t)
    if isinstance(phase, GroupMap):
        return lambda t: _group_map(phase, t)
    raise InputError(f"the embedded engines have no phase for {type(phase).__name__}")


def _group_map(spec: GroupMap, table: pa.Table) -> pa.Table:
    ordered = table.sort_by([(c, "ascending") for c in (*spec.keys, *spec.order_by)]).combine_chunks()
    batch = ordered.to_batches()[0] if ordered.num_rows else empty_batch(ordered.schema)
    return pa.Table.from_batches(list(as_batches(bind(spec)(batch))))


def _sample(spec: physical.SampleKeys, table: pa.Table) -> pa.Table:
    keys = table.select([spec.spec.keys[0].column])
    step = max(1, keys.num_rows // spec.rows)
    return keys.take(pa.array(np.arange(step // 2, keys.num_rows, step)))


def _bounds(spec: physical.RangeBounds, table: pa.Table) -> pa.Table:
    name = spec.spec.keys[0].column
    values = table.sort_by([(name, "ascending")])
    at = [min(values.num_rows - 1, i * values.num_rows // spec.partitions) for i in range(1, spec.partitions)]
    return values.take(pa.array([i for i in at if i >= 0], pa.int64()))


# -- partitioning -----------------------------------------------------------------------------------------------------


def split(
    batch: pa.RecordBatch, spec: physical.Partitioner, bounds: pa.Table | None, offset: int
) -> list[tuple[int, pa.RecordBatch]]:
    """(partition, rows) pieces of a batch. ``offset``: rows partitioned before (round robin). Empty pieces are left out."""
    if spec.partitions == 1:
        return [(0, batch)]
    if spec.kind == "round_robin":
        ids = (np.arange(batch.num_rows) + offset) % spec.partitions
    elif spec.kind == "hash":
        ids = hash_rows(batch, spec.keys) % np.uint64(spec.partitions)
    else:
        assert bounds is not None
        ids = _range_ids(batch, spec, bounds)
    if spec.partitions <= 2**16:
        ids = ids.astype(np.uint16)  # NumPy sorts 16-bit integers by radix, ten times faster
    order = np.argsort(ids, kind="stable")
    counts = np.bincount(ids.astype(np.int64), minlength=spec.partitions)
    ordered = batch.take(pa.array(order))
    ends = np.cumsum(counts)
    return [(p, ordered.slice(ends[p] - n, n)) for p, n in enumerate(counts) if n]


def hash_rows(batch: pa.RecordBatch, keys: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """64-bit hash of the key columns, equal in every process of this version (Polars' row hash with a fixed seed)."""
    import polars as pl

    frame = pl.from_arrow(pa.table({k: batch.column(k) for k in keys}))
    assert isinstance(frame, pl.DataFrame)
    hashes: np.ndarray[Any, np.dtype[np.uint64]] = frame.hash_rows(seed=7).to_numpy()
    return hashes


def _range_ids(batch: pa.RecordBatch, spec: physical.Partitioner, bounds: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    column = batch.column(spec.keys[0])
    ids = np.searchsorted(_sortable(bounds.column(0)), _sortable(column), side="right").astype(np.int64)
    if column.null_count:
        ids[np.asarray(pc.is_null(column))] = 0 if spec.descending else spec.partitions - 1
    return spec.partitions - 1 - ids if spec.descending else ids


def _sortable(column: Any) -> np.ndarray[Any, Any]:
    kind = column.type
    if pa.types.is_temporal(kind):
        column = pc.cast(column, pa.int32() if kind.bit_width == 32 else pa.int64())
    values: np.ndarray[Any, Any] = (
        column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    )
    return values
