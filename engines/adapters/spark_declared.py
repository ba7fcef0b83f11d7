"""Operators declared by cost on Spark: neighbours are one task in one Python worker, and an exchange lies where resources change.

That is Spark's way with narrow operators (a PipelinedRDD is one function) and with resources, which are asked for by stage. A local
session schedules no devices: its tasks take turns on them (`windtunnel.engines.slots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.arrow import through
from windtunnel.engines.declared import SCHEMA, generated, needs, tasks
from windtunnel.engines.notes import crossing
from windtunnel.engines.slots import Slots, slots_of
from windtunnel.errors import Unsupported
from windtunnel.spec.plan import Operator, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_DDL = "payload BINARY"


def frames(workload: BoundWorkload, spark: SparkSession, options: Mapping[str, Any], devices: int, scratch: Path) -> DataFrame:
    """The last operator's data frame."""
    if options["bridge"] not in ("arrow", "rows"):
        raise Unsupported(f"spark runs declared operators over the bridges arrow and rows, not {options['bridge']}")
    found: dict[str, DataFrame] = {}
    counts: dict[str, int] = {}
    for task in tasks(workload.pipeline):
        first, last = task[0], task[-1]
        table = workload.table(first.kernel.table) if isinstance(first.kernel, Scan) else None
        if table is not None:
            count = len(table.partition_rows)
            source = spark.range(0, count, 1, count)
        else:
            count = int(options["shuffle_partitions"] or counts[first.inputs[0]])
            source = found[first.inputs[0]].repartition(count)
        operators = [op for op in task if not isinstance(op.kernel, Scan)]
        run = Task(operators, table, slots_of(needs(task), devices, scratch))
        found[last.name], counts[last.name] = _across(run, source, options["bridge"]), count
    return found[workload.pipeline.output.name]


def _across(run: Task, source: DataFrame, bridge: str) -> DataFrame:
    if bridge == "arrow":
        return source.mapInArrow(run, _DDL)
    return source.sparkSession.createDataFrame(source.rdd.mapPartitions(run.rows), _DDL)


class Task:
    """The operators of a task; it travels to the Python workers as data."""

    def __init__(self, operators: Sequence[Operator], table: TableData | None, slots: Slots) -> None:
        self._operators, self._table, self._slots = tuple(operators), table, slots

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One partition as Arrow batches."""
        yield from crossing(out.cast(SCHEMA) for out in self._run(batches))

    def rows(self, rows: Iterable[Any]) -> Iterator[tuple[bytes]]:
        """One partition as pickled rows."""
        batches = (pa.RecordBatch.from_pydict({name: [row[0]]}) for row in rows for name in row.__fields__)
        yield from crossing((value.as_py(),) for out in self._run(batches) for value in out.column(0))

    def _run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        partition = None if context is None else context.partitionId()
        if self._table is not None:
            batches = self._made(batches, self._table)
        with self._slots.taken():
            yield from through(self._operators, batches, partition)

    @staticmethod
    def _made(numbers: Iterator[pa.RecordBatch], table: TableData) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch.column(0).to_pylist():
                yield generated(table, number)
