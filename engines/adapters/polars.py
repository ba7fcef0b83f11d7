"""Polars: what a single-machine user picks for data frames. One lazy query; kernels through ``map_batches``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.adapters.common import DECLARED, ForeignSession, output_is_files
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, as_dataset, call, call_groups, empty_batch
from windtunnel.errors import InputError
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import Expr, fold
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Measure, Operator, Project, Scan, Sort
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    import polars as pl


class PolarsSession(ForeignSession):
    """Builds the lazy query anew for every run, since a lazy scan may remember what it saw."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("POLARS_MAX_THREADS", str(cluster.cpus))  # read once, when Polars is first imported
        import polars  # noqa: F401

        super().__init__("polars", cluster, options, PolarsEngine.capabilities)

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        engine = self._options["engine"]
        if output_is_files(workload):
            query(workload).sink_parquet(output / "part-0.parquet", engine=engine)
            return None
        table: pa.Table = query(workload).collect(engine=engine).to_arrow()
        return table

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        for frame in query(workload).collect_batches(engine=self._options["engine"], maintain_order=False):
            yield frame.to_arrow()


def query(workload: BoundWorkload) -> pl.LazyFrame:
    """The whole pipeline, its sink aside."""
    frames: dict[str, pl.LazyFrame] = {}
    for op in workload.pipeline.operators:
        if op.kind == "sink":
            return frames[op.inputs[0]]
        frames[op.name] = lazy(op, frames, workload)
    return frames[workload.pipeline.output.name]


def lazy(op: Operator, frames: Mapping[str, pl.LazyFrame], workload: BoundWorkload) -> pl.LazyFrame:
    """One operator on the lazy frames of its inputs."""
    kernel = op.kernel
    if isinstance(kernel, Scan):
        frame = scan(workload.table(kernel.table)).select(kernel.columns)
        return frame if kernel.predicate is None else frame.filter(expression(kernel.predicate))
    source = frames[op.inputs[0]]
    if isinstance(kernel, Filter):
        return source.filter(expression(kernel.predicate))
    if isinstance(kernel, Project):
        return source.select(expression(e).alias(n) for n, e in kernel.columns)
    if isinstance(kernel, MapBatches):
        return _map(op, kernel.schema, source, streamable=True)
    if isinstance(kernel, GroupMap):
        return _map(op, kernel.schema, source.sort([*kernel.keys, *kernel.order_by]), streamable=False)
    if isinstance(kernel, Aggregate):
        measures = [_measure(m) for m in kernel.measures]
        return source.group_by(kernel.keys).agg(measures) if kernel.keys else source.select(measures)
    if isinstance(kernel, Join):
        keys = {"left_on": list(kernel.left_keys), "right_on": list(kernel.right_keys)}
        return source.join(frames[op.inputs[1]], how=kernel.how, coalesce=True if kernel.how == "inner" else None, **keys)
    if isinstance(kernel, Sort):
        return source.sort([k.column for k in kernel.keys], descending=[k.descending for k in kernel.keys])
    if isinstance(kernel, Limit):
        return source.head(kernel.count)
    raise InputError(f"polars has no expression for operator {op.name!r} of kind {op.kind!r}")


def _map(op: Operator, fields: tuple[tuple[str, str], ...], source: pl.LazyFrame, *, streamable: bool) -> pl.LazyFrame:
    """The kernel on Arrow batches of a frame. A morsel without rows is a legal batch too."""
    import polars as pl

    schema = arrow_schema(fields)
    apply = call(op) if isinstance(op.kernel, MapBatches) else call_groups(op)

    def mapped(frame: pl.DataFrame) -> pl.DataFrame:
        batches: Iterable[pa.RecordBatch] = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks().to_batches()
        outputs = [out for batch in batches for out in apply(batch)] or [empty_batch(schema)]
        answer = pl.from_arrow(pa.Table.from_batches(outputs, schema=schema))
        assert isinstance(answer, pl.DataFrame)
        return answer

    kinds = pl.from_arrow(schema.empty_table())
    assert isinstance(kinds, pl.DataFrame)
    return source.map_batches(mapped, schema=kinds.schema, streamable=streamable)


def scan(table: TableData) -> pl.LazyFrame:
    """A lazy scan of the table's files, in order."""
    import polars as pl

    paths, schema = list(table.paths), _schema(table)
    if table.format == "parquet":
        return pl.scan_parquet(paths)
    if table.format == "csv":
        return pl.scan_csv(paths, schema=schema, empty_string_is_null=False)
    if table.format == "json":
        return pl.scan_ndjson(paths, schema=schema)
    return pl.defer(lambda: _frame(as_dataset(table).to_table()), schema=schema)  # Polars has no ORC reader: Arrow reads


def _frame(table: pa.Table) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _schema(table: TableData) -> pl.Schema:
    return _frame(arrow_schema(table.schema).empty_table()).schema


def _measure(m: Measure) -> pl.Expr:
    import polars as pl

    if m.column is None:
        return pl.len().cast(pl.Int64).alias(m.name)
    column: pl.Expr = getattr(pl.col(m.column), m.function)()
    return column.alias(m.name)


def expression(expr: Expr) -> pl.Expr:
    """An expression in Polars' words."""
    import polars as pl

    functions: dict[str, Any] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a.cast(pl.Float64) / b,
        "equal": lambda a, b: a == b, "not_equal": lambda a, b: a != b, "less": lambda a, b: a < b,
        "less_equal": lambda a, b: a <= b, "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
        "and": lambda a, b: a & b, "or": lambda a, b: a | b, "not": lambda a: ~a,
        "is_in": lambda a, *values: pl.any_horizontal([a == v for v in values]),
        "if_else": lambda c, a, b: pl.when(c).then(a).otherwise(b),
        "year": lambda a: a.dt.year().cast(pl.Int64), "starts_with": lambda a, b: a.str.starts_with(b),
        "length": lambda a: a.str.len_chars().cast(pl.Int64), "cast_float": lambda a: a.cast(pl.Float64),
        "cast_int": lambda a: a.cast(pl.Int64), "is_null": lambda a: a.is_null(),
    }  # fmt: skip
    result: pl.Expr = fold(expr, pl.col, pl.lit, functions)
    return result


class PolarsEngine:
    """Polars in this process."""

    name = "polars"
    options = (
        Option(name="engine", default="streaming", doc="which of Polars' engines collects", choices=("streaming", "in-memory")),
    )
    capabilities = Capabilities(
        gaps={"declared": DECLARED, "remote": "Polars is a library inside one process"},
        features={
            "state": "dies with the engine: kernels run in its one process",
            "devices": "kernels run in its one process, which claims a device itself",
            "threads": "one pool of threads inside one process; it takes no memory limit",
            "kernels": "map_batches, on one thread",
            "batches": "as they come (collect_batches)",
            "orc": "read by Arrow before the query starts",
        },
    )

    def version(self) -> str:
        """Polars' version."""
        import polars

        return str(polars.__version__)

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> PolarsSession:
        """Import Polars with the cluster's CPUs as its threads."""
        return PolarsSession(cluster, resolve_options(self.name, self.options, options))
