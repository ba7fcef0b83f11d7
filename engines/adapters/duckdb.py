"""DuckDB: what a single-machine user picks for SQL. Relational operators become one SQL query a stretch between kernels.

A kernel reads its input as a stream of Arrow batches and is read as one in turn, so that nothing is materialised around it; it
runs on one thread, because Python's interpreter lock leaves no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.adapters.common import DECLARED, ForeignSession, output_is_files
from windtunnel.engines.adapters.sql import Dialect
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, as_dataset, call, call_groups, whole_groups
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import to_sql
from windtunnel.spec.plan import GroupMap, Join, MapBatches, Measure, Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

STREAM_ROWS = 122_880  # DuckDB's row group
LEAST_ROWS = 2_048  # its vector
_SQL_TYPES = {
    "string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE", "float": "FLOAT", "bool": "BOOLEAN",
    "binary": "BLOB", "date32[day]": "DATE", "timestamp[us]": "TIMESTAMP", "timestamp[ms]": "TIMESTAMP_MS",
}  # fmt: skip


class DuckDBSession(ForeignSession):
    """One in-memory database with the cluster's budget."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        import duckdb

        super().__init__("duckdb", cluster, options, DuckDBEngine.capabilities)
        self._database = duckdb.connect(
            config={
                "threads": cluster.cpus,
                "memory_limit": f"{cluster.memory_bytes // 2**20}MiB",
                "temp_directory": str(self._scratch),
                "preserve_insertion_order": bool(options["preserve_insertion_order"]),
            }
        )
        self._database.execute("SET enable_progress_bar = false")

    def _plan(self, workload: BoundWorkload) -> None:
        self._sql = queries(workload)

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        with contextlib.ExitStack() as stack:
            connection, sql = self._connection(workload, self._kernels(workload, stack), stack), self._sql[-1][1]
            if output_is_files(workload):
                connection.execute(f"COPY ({sql}) TO '{output / 'part-0.parquet'}' (FORMAT parquet)")
                return None
            return connection.sql(sql).to_arrow_table()

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        """Batches of the last kernel where the pipeline ends in one, else of the answer."""
        with contextlib.ExitStack() as stack:
            streams, name = self._kernels(workload, stack), workload.pipeline.output.name
            if name not in streams:
                connection = self._connection(workload, streams, stack)
                streams[name] = connection.sql(self._sql[-1][1]).to_arrow_reader(LEAST_ROWS)
            for batch in streams[name]:
                yield pa.Table.from_batches([batch])

    def _kernels(self, workload: BoundWorkload, stack: contextlib.ExitStack) -> dict[str, Any]:
        """The output of every kernel: a stream, or a table where several read it."""
        streams: dict[str, Any] = {}
        for op, sql in self._sql[:-1]:
            source = op.inputs[0]
            reader = streams.get(source)  # a kernel that feeds a kernel needs no query between
            if reader is None or isinstance(op.kernel, GroupMap) or isinstance(reader, pa.Table):
                rows = min(STREAM_ROWS, max(LEAST_ROWS, op.batch_rows)) if op.batch_rows else STREAM_ROWS
                reader = self._connection(workload, streams, stack).sql(sql).to_arrow_reader(rows)
            stream = _through_kernel(op, reader)
            streams[op.name] = stream if _uses(workload.pipeline, op.name) == 1 else stream.read_all()
        return streams

    def _connection(self, workload: BoundWorkload, streams: Mapping[str, Any], stack: contextlib.ExitStack) -> Any:
        """A connection of its own, since one with an open stream runs no second query; it sees the kernels' outputs so far."""
        connection = stack.enter_context(self._database.cursor())
        for name, stream in streams.items():
            connection.register(name, stream)
        for table in workload.tables:
            if table.format in ("orc", "arrow"):  # DuckDB has no reader of its own: it scans Arrow's
                connection.register(f"file_{table.name}", as_dataset(table))
        return connection

    def close(self) -> None:
        """Close the database."""
        self._database.close()
        super().close()


def _through_kernel(op: Operator, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The kernel's output as a stream."""
    spec = op.kernel
    assert isinstance(spec, (MapBatches, GroupMap))
    batches: Iterable[pa.RecordBatch] = reader
    if isinstance(spec, GroupMap):
        batches = whole_groups(reader, spec.keys)
    apply = call(op) if isinstance(spec, MapBatches) else call_groups(op)
    return pa.RecordBatchReader.from_batches(arrow_schema(spec.schema), (out for b in batches for out in apply(b)))


def _uses(pipeline: Pipeline, name: str) -> int:
    """How often queries read an operator's output, those in between written out: a stream can be read once."""
    after = [op for op in pipeline.operators for source in op.inputs if source == name]
    if not after:
        return 1
    return sum(1 if isinstance(op.kernel, (MapBatches, GroupMap)) else _uses(pipeline, op.name) for op in after)


# -- SQL --------------------------------------------------------------------------------------------------------------


def queries(workload: BoundWorkload) -> list[tuple[Operator, str]]:
    """(operator, SQL) pairs in order: the input of each kernel, and last the pipeline's answer."""
    pipeline = workload.pipeline
    found: list[tuple[Operator, str]] = []
    ctes: dict[str, str] = {}
    for op in pipeline.operators:
        if isinstance(op.kernel, (MapBatches, GroupMap)):
            found.append((op, _with(ctes, f"SELECT * FROM {_name(op.inputs[0])}{_groups_together(op.kernel)}")))
        elif op.kind != "sink":
            ctes[op.name] = select(op, workload)
    last = pipeline.output if pipeline.output.kind != "sink" else pipeline[pipeline.output.inputs[0]]
    answer = ctes.pop(last.name, f"SELECT * FROM {_name(last.name)}")
    return [*found, (last, _with(ctes, answer))]


def _groups_together(kernel: MapBatches | GroupMap) -> str:
    if isinstance(kernel, MapBatches):
        return ""
    return f" ORDER BY {', '.join(map(_name, (*kernel.keys, *kernel.order_by)))}"


def _with(ctes: Mapping[str, str], query: str) -> str:
    if not ctes:
        return query
    parts = ",\n".join(f"{_name(name)} AS ({sql})" for name, sql in ctes.items())
    return f"WITH {parts}\n{query}"


def select(op: Operator, workload: BoundWorkload) -> str:
    """One relational operator as a SELECT over its inputs' names."""
    kernel = op.kernel
    if isinstance(kernel, Scan):
        where = "" if kernel.predicate is None else f" WHERE {to_sql(kernel.predicate)}"
        return f"SELECT {', '.join(map(_name, kernel.columns))} FROM {_source(workload.table(kernel.table))}{where}"
    return DIALECT.select(op, workload)


def _join(kernel: Join, op: Operator, workload: BoundWorkload) -> str:
    left, right = map(_name, op.inputs)
    on = " AND ".join(f"l.{_name(a)} = r.{_name(b)}" for a, b in zip(kernel.left_keys, kernel.right_keys, strict=True))
    if kernel.how == "semi":
        return f"SELECT l.* FROM {left} l SEMI JOIN {right} r ON {on}"
    return f"SELECT l.*, r.* EXCLUDE ({', '.join(map(_name, kernel.right_keys))}) FROM {left} l JOIN {right} r ON {on}"


def _measure(m: Measure) -> str:
    function = {"mean": "avg"}.get(m.function, m.function)
    return f"{function}({'*' if m.column is None else _name(m.column)}) AS {_name(m.name)}"


def _source(table: TableData) -> str:
    files = "[" + ", ".join("'" + p.replace("'", "''") + "'" for p in table.paths) + "]"
    columns = "{" + ", ".join(f"'{n}': '{_SQL_TYPES[t]}'" for n, t in table.schema) + "}"
    if table.format == "parquet":
        return f"read_parquet({files})"
    if table.format == "csv":
        dialect = "header = true, delim = ',', quote = '\"', escape = '\"', nullstr = '\\N', auto_detect = false"
        return f"read_csv({files}, columns = {columns}, {dialect})"
    if table.format == "json":
        return f"read_json({files}, format = 'newline_delimited', columns = {columns})"
    return _name(f"file_{table.name}")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


DIALECT = Dialect(engine="duckdb", quoted=_name, expression=to_sql, measure=_measure, join=_join)


class DuckDBEngine:
    """DuckDB in this process."""

    name = "duckdb"
    options = (
        Option(
            name="preserve_insertion_order",
            default=False,
            doc="keep the order of files where no sort asks for one",
            choices=(True, False),
        ),
    )
    capabilities = Capabilities(
        gaps={"declared": DECLARED, "remote": "DuckDB is a library inside one process"},
        features={
            "state": "dies with the engine: kernels run in its one process",
            "devices": "kernels run in its one process, which claims a device itself",
            "threads": "morsel-driven parallelism inside one process",
            "spill": "blocking operators write to a temporary folder above the memory limit",
            "kernels": "Arrow streams in and out of the kernel, on one thread",
            "batches": "as they come: the last kernel's stream, which reads vectors of 2,048 rows at least",
            "orc": "read through Arrow's data set, which DuckDB scans",
        },
    )

    def version(self) -> str:
        """DuckDB's version."""
        import duckdb

        return str(duckdb.__version__)

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> DuckDBSession:
        """Open an in-memory database."""
        return DuckDBSession(cluster, resolve_options(self.name, self.options, options))
