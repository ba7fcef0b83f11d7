"""Judges of outputs, each ``f(bound, table)``: silent when right, WrongResult with one sentence when not.

`check_sql` compares with the reference SQL of the workload, run by DuckDB on the same files; `check_sort` with the
source itself: nothing lost, added or changed, all in order. What is computed once a data set is cached beside it, under
a name that holds the digests of the workload and of the reference. The module runs outside any timing and knows no
engine under test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.errors import InputError, WrongResult, nearest
from windtunnel.spec.canonical import digest
from windtunnel.spec.plan import GroupMap, Limit, MapBatches, Sort, SortKey
from windtunnel.spec.workload import BoundWorkload, TableData, Workload
from windtunnel.workloads.compare import compare_tables
from windtunnel.workloads.etl.reference import REFERENCE


def check_sql(bound: BoundWorkload, output: pa.Table) -> None:
    """``output`` equals the reference SQL's result."""
    oracle = bound.workload.oracle
    assert oracle is not None
    compare_tables(
        output,
        reference_table(bound),
        ordered=oracle.ordered,
        rtol=oracle.rtol,
        keys=sort_keys(bound.workload),
        limit=_limit(bound.workload),
    )


def check_sort(bound: BoundWorkload, output: pa.Table) -> None:
    """``output`` holds the rows of the one source table, each exactly once, in the order of the sort keys."""
    (source,) = bound.tables
    names = [name for name, _ in source.schema]
    if set(output.column_names) != set(names):
        raise WrongResult(f"the output has columns {', '.join(output.column_names)}, the source {', '.join(names)}")
    if output.num_rows != source.rows:
        raise WrongResult(f"the output has {output.num_rows} rows, the source {source.rows}")
    row = first_disorder(output, sort_keys(bound.workload))
    if row is not None:
        raise WrongResult(f"the output is not in order: row {row + 1} must not follow row {row}")
    if _checksum_of(output, source) != _checksum_of_source(bound, source):
        raise WrongResult("the output has as many rows as the source, but not the same ones: their checksums differ")


def sort_keys(workload: Workload) -> tuple[SortKey, ...]:
    """Keys of the last sort of the pipeline; empty without one."""
    sorts = [op.kernel.keys for op in workload.pipeline.operators if isinstance(op.kernel, Sort)]
    return sorts[-1] if sorts else ()


def _limit(workload: Workload) -> int | None:
    kernel = workload.pipeline.output.kernel
    return kernel.count if isinstance(kernel, Limit) else None


# -- reference SQL ----------------------------------------------------------------------------------------------------


def reference_sql(workload: Workload) -> str:
    """The workload's reference with its kernels' parameters."""
    if workload.name not in REFERENCE:
        raise InputError(f"workload {workload.name!r} has no reference SQL{nearest(workload.name, REFERENCE)}")
    kernels = [op.kernel for op in workload.pipeline.operators if isinstance(op.kernel, (MapBatches, GroupMap))]
    return REFERENCE[workload.name].format(**{name: value for kernel in kernels for name, value in kernel.params})


def reference_table(bound: BoundWorkload) -> pa.Table:
    """Result of the reference SQL without its limit, from the cache when it is there."""
    sql = reference_sql(bound.workload)
    return cached(bound, "reference", sql, lambda: _query(bound.tables, sql))


def _query(tables: tuple[TableData, ...], sql: str) -> pa.Table:
    import duckdb

    with duckdb.connect() as connection:
        for table in tables:
            _register(connection, table)
        result: pa.Table = connection.sql(sql).to_arrow_table()
        return result


def _register(connection: Any, table: TableData) -> None:
    """A view on the files of ``table``; DuckDB has no ORC reader, so Arrow's is lent to it."""
    if table.format == "orc":
        import pyarrow.dataset as ds

        connection.register(table.name, ds.dataset(list(table.paths), format="orc"))
        return
    connection.execute(f"CREATE VIEW {table.name} AS SELECT * FROM {_reader(table)}")


def _reader(table: TableData) -> str:
    paths = ", ".join("'" + path.replace("'", "''") + "'" for path in table.paths)
    columns = ", ".join(f"'{name}': '{_SQL_TYPES[kind]}'" for name, kind in table.schema)
    readers = {
        "parquet": f"read_parquet([{paths}])",
        "csv": f"read_csv([{paths}], header=true, delim=',', quote='\"', escape='\"', columns={{{columns}}})",
        "json": f"read_json([{paths}], format='newline_delimited', columns={{{columns}}})",
    }
    if table.format not in readers:
        raise InputError(f"table {table.name!r} has format {table.format!r}, which holds no rows to check against")
    return readers[table.format]


_SQL_TYPES = {"int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "date32[day]": "DATE"}


# -- cache ------------------------------------------------------------------------------------------------------------


def cached(bound: BoundWorkload, kind: str, reference: str, make: Callable[[], pa.Table], *, of_data: bool = False) -> pa.Table:
    """What ``make`` computes, kept beside the data under the digests of the workload and of the text ``reference``.

    ``of_data``: it follows from the data alone, whatever batches and devices the workload asks for.
    """
    import pyarrow.parquet as pq

    whose = "data" if of_data else bound.workload.digest()
    path = bound.folder / f"{kind}-{whose}-{digest(reference)}.parquet"
    if not path.exists():
        _write_atomically(make(), path)
    return pq.read_table(path)


def _write_atomically(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        pq.write_table(table, scratch)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


# -- sorting ----------------------------------------------------------------------------------------------------------


def first_disorder(table: pa.Table, keys: tuple[SortKey, ...]) -> int | None:
    """Row whose follower should stand before it, or None."""
    import numpy as np
    import pyarrow.compute as pc

    before = max(0, table.num_rows - 1)
    tied, wrong = np.ones(before, dtype=bool), np.zeros(before, dtype=bool)
    for key in keys:
        first, second = table[key.column].slice(0, before), table[key.column].slice(1)
        disorder = pc.less(first, second) if key.descending else pc.greater(first, second)
        wrong |= tied & np.asarray(disorder, dtype=bool)
        tied &= np.asarray(pc.equal(first, second), dtype=bool)
    return int(np.argmax(wrong)) if wrong.any() else None


def _checksum_of_source(bound: BoundWorkload, source: TableData) -> str:
    import duckdb

    sql = _checksum_sql(source)
    table = cached(bound, "checksum", f"{duckdb.__version__} {sql}", lambda: _query((source,), sql))
    return str(table["checksum"][0].as_py())


def _checksum_of(output: pa.Table, source: TableData) -> str:
    import duckdb

    with duckdb.connect() as connection:
        connection.register(source.name, output)
        return str(connection.sql(_checksum_sql(source)).to_arrow_table()["checksum"][0].as_py())


def _checksum_sql(source: TableData) -> str:
    """Sum of the rows' hashes: the same in any order."""
    columns = ", ".join(f"CAST({name} AS {_SQL_TYPES[kind]})" for name, kind in source.schema)
    return f"SELECT CAST(sum(hash({columns})) AS VARCHAR) AS checksum FROM {source.name}"
