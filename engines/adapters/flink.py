"""Flink: batch SQL on a mini-cluster inside one JVM, kernels as vectorised Python functions; in an interpreter of its own.

Relational operators are Flink's own SQL. A ``map`` is `Table.map` with a pandas function. A kernel that changes the number of rows
packs its answer as Arrow bytes into its batch's first row, which a table function unpacks. A ``group_map`` is a pandas aggregate
over buckets of whole groups: Flink's Python API has no vectorised function from groups to rows.

What PyFlink's wheel lacks shapes the ends. It holds no Parquet or ORC connector, and the CSV one cannot skip a header: those files
are read here by Arrow and enter as Flink's own Arrow source, which is what ``from_pandas`` uses; JSON is read by Flink. Answers leave
as Arrow through the client, which also writes a sink's Parquet file. Python runs in Flink's process mode, whose Beam harness starts
anew for every job: about 5 s, with every model that a kernel loads.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.adapters import flink_declared
from windtunnel.engines.adapters.common import ForeignSession, output_columns, output_is_files
from windtunnel.engines.adapters.flink_kernels import PACKED, GroupKernel, PackKernel, RowKernel, unpack
from windtunnel.engines.adapters.flink_sql import DIALECT, quoted, scan
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, as_dataset
from windtunnel.engines.declared import is_declared
from windtunnel.engines.foreign.session import HostedSession
from windtunnel.errors import MissingEngine, RunFailed, WindtunnelError
from windtunnel.running.interpreters import interpreter
from windtunnel.running.java import WAY_OUT, find_java
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import GroupMap, MapBatches, Operator, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

DECLARED_WIDE = (
    "exchanges declared by cost run elsewhere: its subtasks are fed one record at a time and see no end of their input"
)
ARROW_ROWS = 10_000  # Flink's own default of rows an Arrow batch
_BUCKETS_A_CPU = 4
_BUCKET = "__bucket"
_SQL_TYPES = {
    "string": "STRING", "int64": "BIGINT", "int32": "INT", "double": "DOUBLE", "float": "FLOAT", "bool": "BOOLEAN",
    "binary": "BYTES", "list<float>": "ARRAY<FLOAT>", "date32[day]": "DATE", "timestamp[us]": "TIMESTAMP(6)",
    "timestamp[ms]": "TIMESTAMP(3)",
}  # fmt: skip


class FlinkFailed(Exception):
    """What was at the bottom of Flink's stack of exceptions."""


def root_cause(trace: str) -> str:
    """The last "Caused by" of a Java stack trace, else its first line: Flink wraps what happened many times."""
    lines = trace.strip().splitlines() or ["no message"]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines)[-1 if causes else 0]


@contextmanager
def told_plainly() -> Iterator[None]:
    """Whatever Flink raises, as what was at its bottom; our own errors stay as they are."""
    try:
        yield
    except WindtunnelError:
        raise
    except Exception as error:
        raise FlinkFailed(root_cause(str(error))) from error


class FlinkSession(ForeignSession):
    """The mini-cluster's JVM, or a client of a running cluster; it lives in Flink's own interpreter."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        super().__init__("flink", cluster, options, FlinkEngine.capabilities)
        self._rows = ARROW_ROWS
        try:
            self._start()
        except Exception as error:
            self.close()
            raise RunFailed(f"Flink did not start: {type(error).__name__}: {str(error).splitlines()[0][:300]}") from error

    def _start(self) -> None:
        """A JVM with the cluster's memory, whose logs and files lie in the scratch folder."""
        heap = max(512, self._cluster.memory_bytes // 2**20 * 5 // 10)
        (quiet := self._scratch / "log4j.properties").write_text("rootLogger.level = ERROR\n", encoding="utf-8")
        os.environ.update(
            PYFLINK_PYTHON=sys.executable, FLINK_LOG_DIR=str(self._scratch), LOG4J_PROPERTIES=str(quiet),
            JDK_JAVA_OPTIONS=f"-Xmx{heap}m -XX:-UsePerfData",
        )  # fmt: skip
        from pyflink.java_gateway import get_gateway

        get_gateway()

    def _environment(self) -> Any:
        from pyflink.common import Configuration
        from pyflink.table import EnvironmentSettings, TableEnvironment

        configuration = Configuration()
        for key, value in self._settings().items():
            configuration.set_string(key, str(value))
        return TableEnvironment.create(
            EnvironmentSettings.new_instance().in_batch_mode().with_configuration(configuration).build()
        )

    def _settings(self) -> dict[str, Any]:
        memory, address = self._cluster.memory_bytes // 2**20, self._cluster.address
        loopback = ("rest.bind-address", "rest.address", "jobmanager.bind-host", "taskmanager.bind-host", "taskmanager.host")
        where: dict[str, Any] = {
            **dict.fromkeys(loopback, "127.0.0.1"), "rest.bind-port": 0, "taskmanager.numberOfTaskSlots": self._cluster.cpus,
            "taskmanager.memory.managed.size": f"{max(128, memory // 8)}m", "taskmanager.memory.network.max": "128m",
            "io.tmp.dirs": self._scratch,
        }  # fmt: skip
        if address is not None:
            host, _, port = address.removeprefix("http://").partition(":")
            where = {
                "execution.target": "remote",
                "rest.address": host,
                "rest.port": port or "8081",
                "pipeline.jars": _python_jar(),
            }
        return {
            **where, "parallelism.default": self._cluster.cpus, "python.executable": sys.executable,
            "python.client.executable": sys.executable, "python.fn-execution.arrow.batch.size": self._rows,
            "python.fn-execution.bundle.size": self._rows, "python.fn-execution.bundle.time": 1000,
            "table.local-time-zone": "UTC", **dict(self._options["conf"]),
        }  # fmt: skip

    def _plan(self, workload: BoundWorkload) -> None:
        rows = [op.batch_rows for op in workload.pipeline.operators if op.batch_rows and isinstance(op.kernel, MapBatches)]
        self._rows = max(rows, default=ARROW_ROWS)

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        if is_declared(workload.pipeline):
            with told_plainly():
                return flink_declared.run(workload, self._settings(), self._options["parallelism"], self._cluster)
        query = Query(self._environment(), workload, self._scratch, self._cluster.cpus)
        try:
            with told_plainly():
                table = query.answer()
        finally:
            query.forget()
        if not output_is_files(workload):
            return table
        import pyarrow.parquet as pq

        pq.write_table(table, output / "part-0.parquet")
        return None

    def close(self) -> None:
        """End the JVM."""
        from pyflink import java_gateway

        if java_gateway._gateway is not None:
            process = getattr(java_gateway._gateway, "java_process", None)
            java_gateway._gateway.shutdown()
            java_gateway._gateway = None
            if process is not None:
                process.kill()
                process.wait()
        super().close()


# -- a query ----------------------------------------------------------------------------------------------------------


class Query:
    """One execution: every operator becomes a Flink table over those of its inputs."""

    def __init__(self, environment: Any, workload: BoundWorkload, scratch: Path, cpus: int) -> None:
        self._flink, self._workload, self._cpus = environment, workload, cpus
        self._folder = scratch / "query"
        self._folder.mkdir(exist_ok=True)
        self._tables: dict[str, Any] = {}

    def answer(self) -> pa.Table:
        """The rows of the output, through the client."""
        operators = self._workload.pipeline.operators
        for op in operators:
            if op.kind != "sink":
                self._tables[op.name] = self._table(op)
                self._flink.create_temporary_view(f"`{op.name}`", self._tables[op.name])
        last = operators[-1] if operators[-1].kind != "sink" else self._workload.pipeline[operators[-1].inputs[0]]
        return collected(self._tables[last.name])

    def forget(self) -> None:
        """Remove what was written for Flink to read."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _table(self, op: Operator) -> Any:
        kernel = op.kernel
        if isinstance(kernel, Scan):
            source = self._workload.table(kernel.table)
            return self._json(op, kernel, source) if source.format == "json" else self._arrow(op, kernel, source)
        if isinstance(kernel, MapBatches):
            return self._map(op, kernel) if op.kind == "map" else self._flat_map(op, kernel)
        if isinstance(kernel, GroupMap):
            return self._group_map(op, kernel)
        return self._flink.sql_query(DIALECT.select(op, self._workload))

    # -- sources -------------------------------------------------------------------------------------------------------

    def _json(self, op: Operator, kernel: Scan, table: TableData) -> Any:
        """Flink's file connector over links to the table's files, since it takes one folder."""
        folder = self._folder / op.name
        folder.mkdir()
        for number, path in enumerate(table.paths):
            (folder / f"{number:06d}.json").symlink_to(path)
        columns = ", ".join(f"`{n}` {_SQL_TYPES[t]}" for n, t in table.schema)
        options = f"'connector' = 'filesystem', 'path' = 'file://{folder}', 'format' = 'json'"
        self._flink.execute_sql(f"CREATE TEMPORARY TABLE `{op.name}__files` ({columns}) WITH ({options})")
        return self._flink.sql_query(scan(kernel, f"{op.name}__files"))

    def _arrow(self, op: Operator, kernel: Scan, table: TableData) -> Any:
        """Flink's Arrow source over what Arrow reads of the files; the predicate is Flink's."""
        from pyflink.java_gateway import get_gateway
        from pyflink.table import Table
        from pyflink.table.types import RowField, RowType, _to_java_data_type, from_arrow_type
        from pyflink.util.java_utils import load_java_class

        from windtunnel.spec.expr import columns_of

        needed = [*kernel.columns, *(columns_of(kernel.predicate) if kernel.predicate is not None else ())]
        rows = as_dataset(table).to_table(columns=list(dict.fromkeys(needed)))
        path = self._folder / f"{op.name}.arrow"
        _write_stream(rows, path, max(1, -(-rows.num_rows // self._cpus)))
        kind = _to_java_data_type(RowType([RowField(f.name, from_arrow_type(f.type, True)) for f in rows.schema])).notNull()
        kind = kind.bridgedTo(load_java_class("org.apache.flink.table.data.RowData"))
        utilities = get_gateway().jvm.org.apache.flink.table.runtime.arrow.ArrowUtils
        descriptor = utilities.createArrowTableSourceDesc(kind, str(path))
        source = Table(getattr(self._flink._j_tenv, "from")(descriptor), self._flink)
        self._flink.create_temporary_view(f"`{op.name}__files`", source)
        return self._flink.sql_query(scan(kernel, f"{op.name}__files"))

    # -- kernels -------------------------------------------------------------------------------------------------------

    def _map(self, op: Operator, kernel: MapBatches) -> Any:
        from pyflink.table.udf import udf

        source = self._tables[op.inputs[0]]
        function = udf(RowKernel(op, _fields(source)), result_type=_row_type(kernel.schema), func_type="pandas")
        return source.map(function).alias(*(n for n, _ in kernel.schema))

    def _flat_map(self, op: Operator, kernel: MapBatches) -> Any:
        from pyflink.table import DataTypes
        from pyflink.table.udf import udf

        source = self._tables[op.inputs[0]]
        packed = DataTypes.ROW([DataTypes.FIELD(PACKED, DataTypes.BYTES())])
        function = udf(PackKernel(op, _fields(source)), result_type=packed, func_type="pandas")
        return self._unpacked(source.map(function).alias(PACKED), kernel.schema)

    def _group_map(self, op: Operator, kernel: GroupMap) -> Any:
        from pyflink.table import DataTypes
        from pyflink.table.expressions import col
        from pyflink.table.udf import udaf

        columns = output_columns(self._workload, op.inputs[0])
        text = " || '|' || ".join(f"CAST({quoted(k)} AS STRING)" for k in kernel.keys)
        bucket = f"MOD(ABS(HASH_CODE({text})), {_BUCKETS_A_CPU * self._cpus})"
        source = self._flink.sql_query(f"SELECT *, {bucket} AS `{_BUCKET}` FROM {quoted(op.inputs[0])}")
        fields = _fields(self._tables[op.inputs[0]])
        function = udaf(GroupKernel(op, fields), result_type=DataTypes.BYTES(), func_type="pandas")
        packed = source.group_by(col(_BUCKET)).select(function(*(col(c) for c in columns)).alias(PACKED))
        return self._unpacked(packed, kernel.schema)

    def _unpacked(self, packed: Any, fields: tuple[tuple[str, str], ...]) -> Any:
        from pyflink.table.udf import udtf

        function = udtf(unpack, result_types=[f.data_type for f in _row_type(fields).fields])
        return packed.flat_map(function).alias(*(n for n, _ in fields))


def collected(table: Any) -> pa.Table:
    """Flink's rows as an Arrow table: what ``to_pandas`` does, without pandas."""
    import pytz
    from pyflink.java_gateway import get_gateway
    from pyflink.table.serializers import ArrowSerializer
    from pyflink.table.types import create_arrow_schema

    schema = table.get_schema()
    kinds = create_arrow_schema(schema.get_field_names(), schema.get_field_data_types())
    batches = get_gateway().jvm.org.apache.flink.table.runtime.arrow.ArrowUtils.collectAsPandasDataFrame(
        table._j_table, ARROW_ROWS
    )
    if not batches.hasNext():
        return kinds.empty_table()
    serializer = ArrowSerializer(kinds, schema.to_row_data_type(), pytz.utc)
    return pa.Table.from_batches(list(serializer.load_from_iterator(batches)))


def _python_jar() -> str:
    """The jar with Flink's Python and Arrow operators, which a cluster has only among its optional ones."""
    import pyflink

    return ";".join(f"file://{p}" for p in sorted(Path(pyflink.__file__).parent.glob("opt/flink-python*.jar")))


def _write_stream(table: pa.Table, path: Path, rows: int) -> None:
    """An Arrow stream of batches of ``rows``: Flink deals them out to its tasks."""
    batches = table.combine_chunks().to_batches(max_chunksize=rows) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _fields(table: Any) -> list[tuple[str, str]]:
    """Columns of a Flink table with Arrow type names."""
    from pyflink.table.types import create_arrow_schema

    schema = table.get_schema()
    kinds = create_arrow_schema(schema.get_field_names(), schema.get_field_data_types())
    return [(f.name, "list<float>" if pa.types.is_list(f.type) else str(f.type)) for f in kinds]


def _row_type(fields: tuple[tuple[str, str], ...]) -> Any:
    from pyflink.table.types import RowField, RowType, from_arrow_type

    return RowType([RowField(f.name, from_arrow_type(f.type, True)) for f in arrow_schema(fields)])


class FlinkEngine:
    """Flink on a mini-cluster, through PyFlink in an environment of its own."""

    name = "flink"
    options = (
        Option(name="conf", default={}, doc="further Flink settings, a table of key and value"),
        Option(
            name="parallelism", default=None,
            doc="subtasks of every operator declared by cost, or by operator; default one a CPU, or a device",
        ),
    )  # fmt: skip
    capabilities = Capabilities(
        gaps=dict.fromkeys(("declared aggregate", "declared sort", "declared join"), DECLARED_WIDE),
        features={
            "processes": "one JVM with a task slot a CPU, and Python workers for its tasks; in an interpreter of its own",
            "spill": "sorts, joins and aggregates write to a temporary folder beyond the managed memory",
            "retries": "none: a batch job on the mini-cluster fails with its first lost worker",
            "state": "the run fails: a batch job on the mini-cluster ends with its first lost worker",
            "devices": "none of its own on the mini-cluster: kernels claim a device themselves and take turns on it",
            "bridge": "kernels cross from the JVM to Python as Arrow and become pandas series, by Beam over loopback",
            "parquet": "read by Arrow in the client and handed to Flink's Arrow source, as CSV and ORC are; JSON by Flink",
            "remote": "host:port of a cluster's REST endpoint whose workers have the same environment, files and package",
        },
    )

    def version(self) -> str:
        """PyFlink's version."""
        return interpreter(self.name).version("apache-flink")

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> HostedSession:
        """Start Flink's interpreter and in it a mini-cluster bound to loopback."""
        if (java := find_java()) is None:
            raise MissingEngine(f"flink needs Java, and there is none; run: {WAY_OUT}")
        os.environ["JAVA_HOME"] = str(java.home)
        chosen = resolve_options(self.name, self.options, options)
        dotted = f"{FlinkSession.__module__}:{FlinkSession.__name__}"
        return HostedSession(interpreter(self.name), dotted, cluster, chosen, self.capabilities)
