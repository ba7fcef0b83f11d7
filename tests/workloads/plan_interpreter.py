"""A naive interpreter of plans for tests: one process, one thread of thought, Arrow tables, nothing optimised.

It follows the words of `windtunnel.spec.plan` alone and shares no code with any engine, so that pipelines can be judged by
their oracles without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv, json

from windtunnel.spec.expr import Expr, fold
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Operator, Project, Scan, Sink, Sort
from windtunnel.spec.workload import BoundWorkload, TableData, resolve

FUNCTIONS: dict[str, Any] = {
    "add": pc.add, "subtract": pc.subtract, "multiply": pc.multiply, "equal": pc.equal, "less": pc.less,
    "less_equal": pc.less_equal, "greater": pc.greater, "greater_equal": pc.greater_equal, "and": pc.and_, "or": pc.or_,
    "is_in": lambda a, *values: pc.is_in(a, pa.array([v.as_py() for v in values])), "if_else": pc.if_else,
}  # fmt: skip


def run(bound: BoundWorkload) -> pa.Table:
    """The output of the workload's pipeline."""
    results: dict[str, pa.Table] = {}
    for op in bound.pipeline.topological():
        results[op.name] = _run(bound, op, [results[name] for name in op.inputs])
    return results[bound.pipeline.output.name]


def _run(bound: BoundWorkload, op: Operator, inputs: list[pa.Table]) -> pa.Table:
    kernel = op.kernel
    if isinstance(kernel, Scan):
        table = read(bound.table(kernel.table)).select(list(kernel.columns))
        return table if kernel.predicate is None else table.filter(_evaluate(kernel.predicate, table))
    source = inputs[0]
    if isinstance(kernel, Filter):
        return source.filter(_evaluate(kernel.predicate, source))
    if isinstance(kernel, Project):
        return pa.table({name: _evaluate(expr, source) for name, expr in kernel.columns})
    if isinstance(kernel, Join):
        how = "inner" if kernel.how == "inner" else "left semi"
        return source.join(inputs[1], list(kernel.left_keys), list(kernel.right_keys), join_type=how)
    if isinstance(kernel, Sort):
        return source.sort_by([(k.column, "descending" if k.descending else "ascending") for k in kernel.keys])
    if isinstance(kernel, (MapBatches, GroupMap)):
        return pa.Table.from_batches(list(_kernel_batches(op, kernel, source)))
    if isinstance(kernel, Aggregate):
        return _aggregate(kernel, source)
    if isinstance(kernel, Limit):
        return source.slice(0, kernel.count)
    assert isinstance(kernel, Sink), kernel
    return source


def _evaluate(expr: Expr, table: pa.Table) -> Any:
    return fold(expr, table.column, pa.scalar, FUNCTIONS)


def _kernel_batches(op: Operator, kernel: MapBatches | GroupMap, table: pa.Table) -> Iterator[pa.RecordBatch]:
    if isinstance(kernel, GroupMap):
        table = table.sort_by([(c, "ascending") for c in (*kernel.keys, *kernel.order_by)])
    function, params = resolve(kernel.function), dict(kernel.params)
    for batch in table.combine_chunks().to_batches(max_chunksize=op.batch_rows or None):
        output = function(batch, **params)
        assert [(f.name, str(f.type)) for f in output.schema] == list(kernel.schema), "the kernel breaks its schema"
        yield output


def _aggregate(kernel: Aggregate, table: pa.Table) -> pa.Table:
    calls = [([], "count_all") if m.column is None else (m.column, m.function) for m in kernel.measures]
    result = table.group_by(list(kernel.keys), use_threads=False).aggregate(calls)
    return result.rename_columns([*kernel.keys, *(m.name for m in kernel.measures)])


def read(table: TableData) -> pa.Table:
    """All rows of a table, in the order of its files."""
    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "date32[day]": pa.date32()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.schema])
    if table.format == "csv":
        options = csv.ConvertOptions(column_types=schema)
        return pa.concat_tables(csv.read_csv(path, convert_options=options) for path in table.paths)
    if table.format == "json":
        parse = json.ParseOptions(explicit_schema=schema)
        return pa.concat_tables(json.read_json(path, parse_options=parse) for path in table.paths)
    return ds.dataset(list(table.paths), format=table.format).to_table().cast(schema)
