"""Operators declared by cost on Flink: a stream of batches through subtasks that are all deployed from the beginning to the end.

That is what Flink is: every operator keeps its parallelism, and bounded network buffers between them hold a fast one back. So it is the
DataStream API in streaming mode; batch SQL would finish every exchange before the next operator starts. A record is a batch of
equal rows, and a bundle is one record: a batch goes on as soon as it is made. The module runs in Flink's own interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from windtunnel.engines.arrow import call_declared
from windtunnel.engines.declared import generated
from windtunnel.engines.notes import crossing
from windtunnel.errors import InputError, nearest
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Operator, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

Packed = tuple[int, bytes]  # rows, and their bytes side by side
_BUNDLE = {"python.fn-execution.bundle.size": 1, "python.fn-execution.arrow.batch.size": 1}


def run(workload: BoundWorkload, settings: Mapping[str, Any], wanted: Any, cluster: ClusterSpec) -> pa.Table:
    """All rows of the last operator, through the client."""
    operators = [op for op in workload.pipeline.operators if not isinstance(op.kernel, Scan)]
    counts = {op.name: parallelism(op, wanted, cluster) for op in operators}
    for name in wanted if isinstance(wanted, Mapping) else ():
        if name not in counts:
            raise InputError(f"flink: option parallelism names {name!r}, which is no operator{nearest(name, counts)}")
    environment = _environment({**settings, **_BUNDLE, "taskmanager.numberOfTaskSlots": max(counts.values())})
    streams: dict[str, Any] = {}
    for op in workload.pipeline.operators:
        if isinstance(op.kernel, Scan):
            table = workload.table(op.kernel.table)
            streams[op.name] = environment.from_collection(list(range(len(table.partition_rows)))), table
        else:
            source, table = streams[op.inputs[0]]
            stream = source.rebalance().flat_map(Subtask(op, table)).name(op.name).set_parallelism(counts[op.name])
            streams[op.name] = stream.disable_chaining(), None
    stream, _ = streams[workload.pipeline.output.name]
    with stream.execute_and_collect() as rows:
        found = [unpacked(tuple(row)) for row in rows]
    return pa.Table.from_batches(found) if found else pa.table({"payload": pa.array([], pa.binary())})


def _environment(settings: Mapping[str, Any]) -> Any:
    from pyflink.common import Configuration
    from pyflink.datastream import RuntimeExecutionMode, StreamExecutionEnvironment

    configuration = Configuration()
    for key, value in settings.items():
        configuration.set_string(key, str(value))
    environment = StreamExecutionEnvironment.get_execution_environment(configuration)
    environment.set_runtime_mode(RuntimeExecutionMode.STREAMING)
    return environment


def parallelism(op: Operator, wanted: Any, cluster: ClusterSpec) -> int:
    """Subtasks of an operator: what the option says, else its concurrency, else one a CPU, or a device."""
    asked = wanted.get(op.name) if isinstance(wanted, Mapping) else wanted
    most = op.concurrency.maximum if op.concurrency is not None else None
    usual = int(cluster.gpus // op.resources.gpus) if op.resources.gpus else cluster.cpus
    return max(1, int(asked or most or usual))


class Subtask:
    """An operator in a Python process of Flink, where it travels as data and loads at its first call.

    The first one of a pipeline makes the rows of a partition from its number.
    """

    def __init__(self, op: Operator, table: TableData | None) -> None:
        self._op, self._table = op, table
        self._apply: Any = None

    def __call__(self, value: Any) -> Iterator[Packed]:
        """A batch, or the number of a partition, through the operator."""
        if self._apply is None:
            self._apply = call_declared(self._op)
        batch = generated(self._table, value) if self._table is not None else unpacked(tuple(value))
        yield from crossing(packed(out) for out in self._apply(batch) if out.num_rows)


def packed(batch: pa.RecordBatch) -> Packed:
    """Rows of one width as they cross to the JVM."""
    column = batch.column(0)
    width = column.type.byte_width
    data = column.buffers()[1].slice(column.offset * width, len(column) * width)
    return len(column), data.to_pybytes()


def unpacked(value: Packed) -> pa.RecordBatch:
    """The rows again, on the bytes that came."""
    rows, data = value
    payload = pa.FixedSizeBinaryArray.from_buffers(pa.binary(len(data) // rows), rows, [None, pa.py_buffer(data)])
    return pa.RecordBatch.from_arrays([payload], names=["payload"])
