"""Spark: DataFrame operators on the JVM; kernels cross a bridge to Python workers, by four paths that can be compared.

* ``arrow``: ``mapInArrow``, a stream of Arrow batches each way; * ``pandas``: ``mapInPandas``, the same stream as pandas frames;
* ``arrow_udf``: a scalar Arrow UDF over the columns, which keeps the number of rows; * ``rows``: an RDD of pickled rows.

The session owns its JVM: closing it ends the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.adapters.common import DECLARED_JOIN, ForeignSession, output_is_files
from windtunnel.engines.adapters.spark_session import end_jvm, java_home, settings_of, start_session
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import BatchFunction, call, call_groups, whole_groups
from windtunnel.engines.declared import is_declared, rows_a_batch
from windtunnel.engines.notes import crossing
from windtunnel.errors import InputError, RunFailed, Unsupported
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import to_sql
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Measure, Operator, Project, Scan, Sort
from windtunnel.spec.units import parse_count, parse_size
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ARROW_ROWS = 10_000  # Spark's own default of rows an Arrow batch
_RIGHT = "__right_"  # prefix of a join's right keys, dropped at once


class SparkRun(ForeignSession):
    """A Spark session with its own JVM, or on a running master."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        super().__init__("spark", cluster, options, SparkEngine.capabilities)
        self._last_stage = -1
        try:
            java = java_home(self._scratch)
            self._spark = start_session(cluster, options, java, self._scratch)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not isinstance(error, InputError):
                raise RunFailed(f"Spark did not start: {type(error).__name__}: {str(error).splitlines()[0][:300]}") from error
            raise

    def _plan(self, workload: BoundWorkload) -> None:
        bridge = self._options["bridge"]
        for op in workload.pipeline.operators:
            if op.kind in ("group_map", "flat_map") and bridge == "arrow_udf":
                raise Unsupported(f"spark cannot run operator {op.name!r} over the bridge arrow_udf: it keeps the number of rows")
        rows = [op.batch_rows for op in workload.pipeline.operators if op.batch_rows and isinstance(op.kernel, MapBatches)]
        most = rows_a_batch(workload, ARROW_ROWS) if is_declared(workload.pipeline) else max(rows, default=ARROW_ROWS)
        self._spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(most))

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        if is_declared(workload.pipeline):
            from windtunnel.engines.adapters import spark_declared

            declared = spark_declared.frames(workload, self._spark, self._options, self._cluster.gpus, self._scratch)
            rows: pa.Table = declared.toArrow()
            return rows
        answer = self._query(workload)
        if output_is_files(workload):
            answer.write.mode("append").parquet(str(output))
            return None
        table: pa.Table = answer.toArrow()
        return table

    def _query(self, workload: BoundWorkload) -> DataFrame:
        """The whole pipeline, its sink aside."""
        frames: dict[str, DataFrame] = {}
        for op in workload.pipeline.operators:
            if op.kind == "sink":
                return frames[op.inputs[0]]
            frames[op.name] = frame(op, frames, workload, self._spark, self._options)
        return frames[workload.pipeline.output.name]

    def _account(self) -> dict[str, float]:
        """Sums over the stages since the last look, from the listener that also feeds Spark's own pages."""
        context = self._spark.sparkContext
        assert context._gateway is not None
        empty = context._gateway.new_array(context._gateway.jvm.double, 0)
        stages = context._jsc.sc().statusStore().stageList(None, False, False, empty, None)
        new = [s for s in (stages.apply(i) for i in range(stages.size())) if s.stageId() > self._last_stage]
        self._last_stage = max([self._last_stage, *(s.stageId() for s in new)])
        return {
            "tasks": float(sum(s.numCompleteTasks() for s in new)),
            "task_s": sum(s.executorRunTime() for s in new) / 1e3,
            "scheduling_s": sum(s.executorDeserializeTime() + s.resultSerializationTime() for s in new) / 1e3,
            "gc_s": sum(s.jvmGcTime() for s in new) / 1e3,
            "exchange_s": sum(s.shuffleWriteTime() / 1e9 + s.shuffleFetchWaitTime() / 1e3 for s in new),
            "spilled_bytes": float(sum(s.diskBytesSpilled() for s in new)),
            "bytes_shuffled": float(sum(s.shuffleWriteBytes() for s in new)),
        }

    def close(self) -> None:
        """Stop the session and end the JVM."""
        if hasattr(self, "_spark"):
            with contextlib.suppress(Exception):
                self._spark.stop()
            del self._spark
        end_jvm()
        super().close()


# -- operators --------------------------------------------------------------------------------------------------------


def frame(
    op: Operator, frames: Mapping[str, DataFrame], workload: BoundWorkload, spark: SparkSession, options: Mapping[str, Any]
) -> DataFrame:
    """One operator on the data frames of its inputs."""
    from pyspark.sql import functions as F

    kernel = op.kernel
    if isinstance(kernel, Scan):
        source = read(workload.table(kernel.table), spark).select(*kernel.columns)
        return source if kernel.predicate is None else source.where(to_sql(kernel.predicate))
    source = frames[op.inputs[0]]
    if isinstance(kernel, Filter):
        return source.where(to_sql(kernel.predicate))
    if isinstance(kernel, Project):
        return source.select(*(F.expr(to_sql(e)).alias(n) for n, e in kernel.columns))
    if isinstance(kernel, (MapBatches, GroupMap)):
        return _across(op, _grouped(kernel, source) if isinstance(kernel, GroupMap) else source, options["bridge"])
    if isinstance(kernel, Aggregate):
        measures = [_measure(m) for m in kernel.measures]
        return source.groupBy(*kernel.keys).agg(*measures)
    if isinstance(kernel, Join):
        return _join(kernel, source, frames[op.inputs[1]])
    if isinstance(kernel, Sort):
        return source.orderBy(*(F.desc(k.column) if k.descending else F.asc(k.column) for k in kernel.keys))
    if isinstance(kernel, Limit):
        return source.limit(kernel.count)
    raise InputError(f"spark has no data frame operation for operator {op.name!r} of kind {op.kind!r}")


def read(table: TableData, spark: SparkSession) -> DataFrame:
    """The table's files with their declared schema; Arrow ones are read by Python workers, a task a file."""
    if table.format == "arrow":
        count = len(table.paths)
        return spark.range(0, count, 1, count).mapInArrow(partial(_arrow_files, table.paths), ddl(table.schema))
    reader = spark.read.schema(ddl(table.schema))
    if table.format == "csv":
        reader = reader.option("header", "true").option("quote", '"').option("escape", '"').option("emptyValue", "")
    return reader.format(table.format).load(list(table.paths))


def _arrow_files(paths: tuple[str, ...], numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in numbers:
        for number in batch.column(0).to_pylist():
            with pa.memory_map(paths[number]) as file:
                yield from pa.ipc.open_file(file).read_all().to_batches()


_DDL = {
    "string": "STRING", "int64": "BIGINT", "int32": "INT", "double": "DOUBLE", "float": "FLOAT", "bool": "BOOLEAN",
    "binary": "BINARY", "list<float>": "ARRAY<FLOAT>", "date32[day]": "DATE",
    "timestamp[us]": "TIMESTAMP_NTZ", "timestamp[ms]": "TIMESTAMP_NTZ",
}  # fmt: skip


def ddl(fields: Iterable[tuple[str, str]]) -> str:
    """Spark's schema text of Arrow type names."""
    return ", ".join(f"`{name}` {_DDL[kind]}" for name, kind in fields)


def _measure(m: Measure) -> Any:
    from pyspark.sql import functions as F

    function = {"mean": "avg"}.get(m.function, m.function)
    return F.expr(f"{function}({'*' if m.column is None else f'`{m.column}`'})").alias(m.name)


def _join(kernel: Join, left: DataFrame, right: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    renamed = {k: _RIGHT + k for k in kernel.right_keys}
    right = right.withColumnsRenamed(renamed)
    if kernel.broadcast:
        right = F.broadcast(right)
    on = [F.col(a) == F.col(renamed[b]) for a, b in zip(kernel.left_keys, kernel.right_keys, strict=True)]
    joined = left.join(right, on, "left_semi" if kernel.how == "semi" else "inner")
    return joined if kernel.how == "semi" else joined.drop(*renamed.values())


# -- the bridge -------------------------------------------------------------------------------------------------------


def _grouped(kernel: GroupMap, source: DataFrame) -> DataFrame:
    """Whole groups in one partition, sorted: batches are cut between groups on the Python side."""
    return source.repartition(*kernel.keys).sortWithinPartitions(*kernel.keys, *kernel.order_by)


def _across(op: Operator, source: DataFrame, bridge: str) -> DataFrame:
    assert isinstance(op.kernel, (MapBatches, GroupMap))
    schema = ddl(op.kernel.schema)
    if bridge == "arrow":
        return source.mapInArrow(ArrowBridge(op), schema)
    if bridge == "pandas":
        return source.mapInPandas(PandasBridge(op), schema)
    if bridge == "rows":
        rows = source.rdd.mapPartitions(RowBridge(op, tuple(source.columns), source.schema.simpleString()))
        return source.sparkSession.createDataFrame(rows, schema)
    from pyspark.sql import functions as F

    struct = F.arrow_udf(UdfBridge(op, tuple(source.columns)).__call__, returnType=f"STRUCT<{schema.replace('` ', '`: ')}>")
    return source.select(struct(*source.columns).alias("out")).select("out.*")


class ArrowBridge:
    """A kernel over a stream of Arrow batches; it travels to the Python workers as data, and binds there."""

    def __init__(self, op: Operator) -> None:
        self.op = op

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One partition."""
        yield from crossing(self._outputs(batches))

    def _outputs(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        apply, whole = self._kernel()
        for batch in whole_groups(batches, whole) if whole else batches:
            yield from apply(batch)

    def _kernel(self) -> tuple[BatchFunction, tuple[str, ...]]:
        """The bound kernel, and the keys of whole groups."""
        from pyspark import TaskContext

        context = TaskContext.get()
        partition = None if context is None else context.partitionId()
        if isinstance(self.op.kernel, GroupMap):
            return call_groups(self.op, partition), self.op.kernel.keys
        return call(self.op, partition), ()


class PandasBridge(ArrowBridge):
    """The same over pandas frames."""

    def __call__(self, frames: Iterator[Any]) -> Iterator[Any]:
        """One partition."""
        batches = (b for f in frames for b in pa.Table.from_pandas(f, preserve_index=False).combine_chunks().to_batches())
        yield from crossing(out.to_pandas() for out in self._outputs(batches))


class RowBridge(ArrowBridge):
    """The same over pickled rows."""

    def __init__(self, op: Operator, columns: tuple[str, ...], schema: str) -> None:
        super().__init__(op)
        self.columns, self.schema = columns, schema

    def __call__(self, rows: Iterator[Any]) -> Iterator[Any]:
        """One partition; rows are gathered into batches of the size that an Arrow bridge would make."""
        outputs = self._outputs(self._batches(rows))
        yield from crossing(row for out in outputs for row in zip(*(column.to_pylist() for column in out.columns), strict=True))

    def _batches(self, rows: Iterator[Any]) -> Iterator[pa.RecordBatch]:
        from itertools import islice

        size = self.op.batch_rows or ARROW_ROWS
        while chunk := list(islice(rows, size)):
            yield pa.RecordBatch.from_pydict(dict(zip(self.columns, map(list, zip(*chunk, strict=True)), strict=True)))


class UdfBridge(ArrowBridge):
    """A scalar Arrow UDF: columns in, one struct column out."""

    def __init__(self, op: Operator, columns: tuple[str, ...]) -> None:
        super().__init__(op)
        self.columns = columns
        self._apply: BatchFunction | None = None

    def __call__(self, *columns: pa.Array) -> pa.Array:
        """One batch. Raises ValueError when the kernel changes the number of rows."""
        if self._apply is None:
            self._apply = self._kernel()[0]
        outputs = list(self._apply(pa.RecordBatch.from_arrays(list(columns), names=list(self.columns))))
        table = pa.Table.from_batches(outputs).combine_chunks()
        if table.num_rows != len(columns[0]):
            raise ValueError(f"{self.op.name}: an Arrow UDF must return {len(columns[0])} rows, not {table.num_rows}")
        return table.to_struct_array().combine_chunks() if table.num_rows else pa.array([], table.to_struct_array().type)


class SparkEngine:
    """Spark on a local JVM, or a standalone master."""

    name = "spark"
    options = (
        Option(
            name="bridge", default="arrow", doc="how kernels get their rows", choices=("arrow", "pandas", "arrow_udf", "rows")
        ),
        Option(name="partitions", check=parse_count, default=None, doc="shuffle partitions; default the number of CPUs"),
        Option(
            name="shuffle_partitions",
            check=parse_count,
            default=None,
            doc="tasks after an exchange of declared operators; default as many as before",
        ),
        Option(name="executor_memory", check=parse_size, default=None, doc="heap of the JVM; default 60 % of the memory"),
        Option(name="adaptive", default=True, doc="adaptive query execution", choices=(True, False)),
        Option(name="java_options", default="", doc="further options of the JVM"),
        Option(name="conf", check=settings_of, default={}, doc="further Spark settings, a table of key and value"),
    )
    capabilities = Capabilities(
        gaps={"declared join": DECLARED_JOIN},
        features={
            "processes": "a JVM with one task thread a CPU slot, and one Python worker process for each that runs kernels",
            "spill": "sorts, aggregates and shuffles write to a temporary folder above the execution memory",
            "retries": "a lost task is repeated; lost shuffle output repeats its stage (local mode repeats nothing)",
            "state": "the run fails: local mode gives a task one attempt (a master repeats it, and the new Python worker loads anew)",
            "devices": "none of its own in local mode, which has no task resources: kernels claim a device themselves and take turns on it",
            "bridge": "kernels cross from the JVM to Python by Arrow, pandas, Arrow UDF or pickled rows",
            "remote": "spark://host:port of a standalone master whose workers see the same files and this package; "
            "the driver listens at the address of the route to it",
        },
    )

    def version(self) -> str:
        """PySpark's version."""
        import pyspark

        return str(pyspark.__version__)

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SparkRun:
        """Start a JVM bound to loopback, or connect to ``cluster.address``."""
        return SparkRun(cluster, resolve_options(self.name, self.options, options))
