"""Daft: lazy data frames on its streaming engine inside one process, kernels as batch UDFs over Arrow arrays.

Relational operators are Daft's own. A kernel of kind ``map`` gives one struct a row; one that changes the number of rows puts its
whole answer as a list into its batch's first row, which is exploded. A ``group_map`` gathers each group in lists (``list_agg``),
so that a batch holds whole groups. Kernels run in processes of their own, one a CPU: threads would share the interpreter lock.

Quirks of 0.7: one runner a process, whose number of threads is fixed by its first use; ORC is read through Arrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.adapters.common import DECLARED, ForeignSession, output_columns, output_is_files
from windtunnel.engines.adapters.daft_workers import watched
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, as_dataset, call, call_groups
from windtunnel.errors import InputError
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import Expr, fold
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Measure, Operator, Project, Scan, Sort
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    import daft

_ONE = "__one"  # a column of ones: what an aggregate that only counts reads
_OUT = "__out"
_QUIET = {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1", "SCARF_NO_ANALYTICS": "1", "DAFT_PROGRESS_BAR": "0"}


_threads: int | None = None  # of this process's runner


def _claim_threads(cpus: int) -> None:
    """Fix the threads of this process's only runner. Raises InputError when an earlier session fixed another number."""
    global _threads
    if _threads is None:
        os.environ.update(_QUIET)  # read when Daft is imported
        import daft

        daft.set_runner_native(num_threads=cpus)
        _threads = cpus
    if _threads != cpus:
        raise InputError(f"daft runs with {_threads} threads in this process and cannot change to {cpus}; use a new process")


class DaftSession(ForeignSession):
    """Daft's native runner with the cluster's CPUs as its threads."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        _claim_threads(cluster.cpus)
        super().__init__("daft", cluster, options, DaftEngine.capabilities)

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        frame = self._query(workload)
        with watched():
            if output_is_files(workload):
                frame.write_parquet(str(output / "part-0.parquet"), single_file=True)
                return None
            table: pa.Table = frame.to_arrow()
        return table

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        frame = self._query(workload)
        with watched():
            for batch in frame.to_arrow_iter(results_buffer_size=2):
                yield pa.Table.from_batches([batch])

    def _query(self, workload: BoundWorkload) -> daft.DataFrame:
        """The whole pipeline, its sink aside."""
        frames: dict[str, daft.DataFrame] = {}
        for op in workload.pipeline.operators:
            if op.kind == "sink":
                return frames[op.inputs[0]]
            frames[op.name] = self._frame(op, frames, workload)
        return frames[workload.pipeline.output.name]

    def _frame(self, op: Operator, frames: Mapping[str, daft.DataFrame], workload: BoundWorkload) -> daft.DataFrame:
        """One operator on the data frames of its inputs."""
        kernel = op.kernel
        if isinstance(kernel, Scan):
            source = scan(workload.table(kernel.table))
            kept = source if kernel.predicate is None else source.where(expression(kernel.predicate))
            return kept.select(*kernel.columns)
        source = frames[op.inputs[0]]
        if isinstance(kernel, Filter):
            return source.where(expression(kernel.predicate))
        if isinstance(kernel, Project):
            return source.select(*(expression(e).alias(n) for n, e in kernel.columns))
        if isinstance(kernel, (MapBatches, GroupMap)):
            return self._kernel(op, source, output_columns(workload, op.inputs[0]))
        if isinstance(kernel, Aggregate):
            return _aggregate(kernel, source)
        if isinstance(kernel, Join):
            return _join(kernel, source, frames[op.inputs[1]])
        if isinstance(kernel, Sort):
            return source.sort([k.column for k in kernel.keys], desc=[k.descending for k in kernel.keys])
        if isinstance(kernel, Limit):
            return source.limit(kernel.count)
        raise InputError(f"daft has no data frame operation for operator {op.name!r} of kind {op.kind!r}")

    def _kernel(self, op: Operator, source: daft.DataFrame, columns: tuple[str, ...]) -> daft.DataFrame:
        import daft

        pool, processes = op.concurrency, self._options["processes"]
        workers = pool.maximum if pool is not None and pool.maximum else self._cluster.cpus
        decorate = daft.cls(use_process=processes, max_concurrency=workers, max_retries=0)
        assert isinstance(op.kernel, (MapBatches, GroupMap))
        struct = daft.DataType.from_arrow_type(pa.struct(list(arrow_schema(op.kernel.schema))))
        if op.kind == "map":
            kernel = decorate(_declared(RowKernel, struct, op.batch_rows))(op, columns)
            return source.select(kernel(*map(daft.col, columns)).alias(_OUT)).select(daft.col(_OUT).unnest())
        many, batch_rows = BatchKernel, op.batch_rows
        if isinstance(op.kernel, GroupMap):
            keys = op.kernel.keys
            many, batch_rows = GroupKernel, 0
            columns = (*keys, *(c for c in columns if c not in keys))
            source = source.groupby(*keys).agg(*(daft.col(c).list_agg().alias(c) for c in columns[len(keys) :]))
        kernel = decorate(_declared(many, daft.DataType.list(struct), batch_rows))(op, columns)
        listed = source.select(kernel(*map(daft.col, columns)).alias(_OUT))
        return listed.explode(_OUT, ignore_empty_and_null=True).select(daft.col(_OUT).unnest())


# -- kernels ----------------------------------------------------------------------------------------------------------


class RowKernel:
    """A kernel that keeps the number of rows: a struct a row. It is bound where it runs."""

    def __init__(self, op: Operator, columns: tuple[str, ...]) -> None:
        self.op, self.columns = op, columns
        self._apply: Any = None

    def answer(self, series: tuple[Any, ...]) -> pa.StructArray:
        """The kernel's rows for one batch."""
        if self._apply is None:
            self._apply = call(self.op) if isinstance(self.op.kernel, MapBatches) else call_groups(self.op)
        assert isinstance(self.op.kernel, (MapBatches, GroupMap))
        outputs = list(self._apply(self.batch([s.to_arrow() for s in series])))
        table = pa.Table.from_batches(outputs, schema=arrow_schema(self.op.kernel.schema)).combine_chunks()
        chunks = table.to_struct_array().chunks
        return chunks[0] if chunks else pa.array([], pa.struct(list(table.schema)))

    def batch(self, arrays: list[pa.Array]) -> pa.RecordBatch:
        """The kernel's input."""
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))

    def run(self, *series: Any) -> Any:
        """One batch. Raises ValueError when the kernel changes the number of rows."""
        found = self.answer(series)
        if len(found) != len(series[0]):
            raise ValueError(f"{self.op.name}: a map must return {len(series[0])} rows, not {len(found)}; declare a flat_map")
        return found


class BatchKernel(RowKernel):
    """A kernel that may change the number of rows: all of them as a list in the first row of the batch."""

    def run(self, *series: Any) -> Any:
        """One batch."""
        found, rows = self.answer(series), len(series[0])
        return pa.ListArray.from_arrays(pa.array([0, *[len(found)] * rows], pa.int32()), found)


class GroupKernel(BatchKernel):
    """A kernel over groups, whose rows come as lists beside their keys."""

    def batch(self, arrays: list[pa.Array]) -> pa.RecordBatch:
        """The groups' rows, ordered by keys and what the operator asks for."""
        kernel = self.op.kernel
        assert isinstance(kernel, GroupMap)
        keys, lists = arrays[: len(kernel.keys)], arrays[len(kernel.keys) :]
        parents = lists[0].value_parent_indices() if lists else pa.array(range(len(keys[0])))
        flat = [*(k.take(parents) for k in keys), *(column.flatten() for column in lists)]
        table = pa.table(flat, names=list(self.columns)).sort_by([(c, "ascending") for c in (*kernel.keys, *kernel.order_by)])
        batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_arrays([a.slice(0, 0) for a in flat], names=list(self.columns))


def _declared(kind: type[RowKernel], returns: Any, batch_rows: int) -> type:
    """The class with its method declared to Daft: what it returns, and rows a call."""
    import daft

    class Declared(kind):  # type: ignore[valid-type,misc]
        @daft.method.batch(return_dtype=returns, batch_size=batch_rows or None)
        def __call__(self, *series: Any) -> Any:
            return self.run(*series)

    Declared.__name__ = kind.__name__
    return Declared


# -- relations --------------------------------------------------------------------------------------------------------


def scan(table: TableData) -> daft.DataFrame:
    """A lazy scan of the table's files with their declared types."""
    import daft

    paths, fields = list(table.paths), arrow_schema(table.schema)
    schema = {f.name: daft.DataType.from_arrow_type(f.type) for f in fields}
    if table.format == "parquet":
        return daft.read_parquet(paths)
    if table.format == "csv":
        return daft.read_csv(paths, schema=schema, infer_schema=False)
    if table.format == "json":
        return daft.read_json(paths, schema=schema, infer_schema=False)
    return daft.from_arrow(as_dataset(table).to_table())


def _aggregate(kernel: Aggregate, source: daft.DataFrame) -> daft.DataFrame:
    import daft

    measures = [_measure(m) for m in kernel.measures]
    if any(m.column is None for m in kernel.measures):
        source = source.with_column(_ONE, daft.lit(1))
    found = source.groupby(*kernel.keys).agg(*measures) if kernel.keys else source.agg(*measures)
    return found.select(*kernel.keys, *(m.name for m in kernel.measures))


def _measure(m: Measure) -> daft.Expression:
    import daft

    if m.column is None:
        return daft.col(_ONE).count().cast(daft.DataType.int64()).alias(m.name)
    measured: daft.Expression = getattr(daft.col(m.column), m.function)()
    return measured.alias(m.name)


def _join(kernel: Join, left: daft.DataFrame, right: daft.DataFrame) -> daft.DataFrame:
    keys: dict[str, Any] = {"left_on": list(kernel.left_keys), "right_on": list(kernel.right_keys)}
    joined = left.join(right, how=kernel.how, **keys)
    if kernel.how == "semi":
        return joined
    return joined.select(*left.column_names, *(c for c in right.column_names if c not in kernel.right_keys))


def expression(expr: Expr) -> daft.Expression:
    """An expression in Daft's words."""
    import daft
    from daft.functions import when

    integer, real = daft.DataType.int64(), daft.DataType.float64()
    functions: dict[str, Any] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a.cast(real) / b,
        "equal": lambda a, b: a == b, "not_equal": lambda a, b: a != b, "less": lambda a, b: a < b,
        "less_equal": lambda a, b: a <= b, "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
        "and": lambda a, b: a & b, "or": lambda a, b: a | b, "not": lambda a: ~a,
        "is_in": lambda a, *values: a.is_in(list(values)), "if_else": lambda c, a, b: when(c, a).otherwise(b),
        "year": lambda a: a.year().cast(integer), "starts_with": lambda a, b: a.startswith(b),
        "length": lambda a: a.length().cast(integer), "cast_float": lambda a: a.cast(real),
        "cast_int": lambda a: a.cast(integer), "is_null": lambda a: a.is_null(),
    }  # fmt: skip
    result: daft.Expression = fold(expr, daft.col, daft.lit, functions)
    return result


class DaftEngine:
    """Daft in this process."""

    name = "daft"
    options = (
        Option(
            name="processes", default=True, choices=(True, False, None),
            doc="kernels in processes of their own, one a CPU; in threads, which share one interpreter lock; or (None) as Daft chooses",
        ),
    )  # fmt: skip
    capabilities = Capabilities(
        gaps={
            "declared": DECLARED,
            "remote": "its distributed runner needs Ray below 2.60; here it runs inside one process",
        },
        features={
            "batches": "as they come (to_arrow_iter), two ahead",
            "threads": "one pool of threads inside one process; it takes no memory limit",
            "actors": "class UDFs in processes, one a CPU or as many as the plan says; a killed one fails the query",
            "state": "the run fails: the process of a class UDF is not replaced",
            "devices": "it counts none here: kernels claim a device themselves and take turns on it",
            "backpressure": "operators are streams with bounded queues between them",
            "kernels": "batch UDFs on Arrow arrays, through a pipe and shared memory",
            "orc": "read by Arrow before the query starts",
        },
    )

    def version(self) -> str:
        """Daft's version."""
        import daft

        return str(daft.__version__)

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> DaftSession:
        """Start Daft's native runner."""
        return DaftSession(cluster, resolve_options(self.name, self.options, options))
