"""Operators declared by cost on Ray Data: map_batches with the declared resources, an actor pool where the operator has state.

Declared operators stay apart, as they are in the simulated engine, unless the option ``fuse`` lets Ray run neighbours as one task.
A partition of the generated rows is one block with one row, its number; who reads it first makes the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.arrow import call_declared
from windtunnel.engines.declared import generated, is_wide
from windtunnel.engines.notes import crossing
from windtunnel.spec.plan import Operator, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    from ray.data import Dataset

_PARTITION = "partition"


def frames(workload: BoundWorkload, options: Mapping[str, Any], partitions: int) -> Dataset:
    """The last operator's data set."""
    pipeline = workload.pipeline
    found: dict[str, tuple[Dataset, TableData | None]] = {}
    for op in pipeline.operators:
        if isinstance(op.kernel, Scan):
            read = workload.table(op.kernel.table)
            found[op.name] = _numbers(len(read.partition_rows)), read
            continue
        source, table = found[op.inputs[0]]
        if is_wide(op):
            made = source if table is None else _tables(source, {"op": None, "table": table})
            source, table = made.repartition(partitions, shuffle=True), None
        found[op.name] = _mapped(source, op, table, options), None
    return found[pipeline.output.name][0]


def _numbers(partitions: int) -> Dataset:
    import ray

    return ray.data.from_arrow([pa.table({_PARTITION: [n]}) for n in range(partitions)])


def _mapped(source: Dataset, op: Operator, table: TableData | None, options: Mapping[str, Any]) -> Dataset:
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    pool, needs = op.concurrency, op.resources
    size = (op.batch_rows or "auto") if needs.gpus else None  # Ray asks for a size where there are devices
    shared: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": size}
    shared |= {"num_cpus": needs.cpus, "num_gpus": needs.gpus or None, "resources": dict(needs.custom) or None}
    if needs.gpus and options["tuning"] == "tuned" and op.state.kind != "actor":
        shared["max_calls"] = 0  # Ray's default ends the process of a task with a device, and a new one takes seconds to import
    if not options["fuse"]:
        shared["ray_remote_args_fn"] = _no_arguments  # Ray fuses no operators whose arguments it cannot compare
    most = dict(options["concurrency"] or {}).get(op.name, pool.maximum if pool is not None else None)
    function: Any = _apply
    given: dict[str, Any]
    if op.state.kind == "actor":
        function, given = _Kernel, {"fn_constructor_kwargs": {"op": op, "table": table}}
        shared["compute"] = ActorPoolStrategy(min_size=min(pool.minimum if pool else 1, most or 1), max_size=most)
    else:
        given = {"fn_kwargs": {"op": op, "table": table}}
        shared["compute"] = TaskPoolStrategy(size=most)
    mapped = source.map_batches(function, **given, **{k: v for k, v in shared.items() if v is not None})
    return mapped.materialize() if options["materialize"] else mapped


def _tables(source: Dataset, arguments: dict[str, Any]) -> Dataset:
    function: Any = _apply
    return source.map_batches(function, fn_kwargs=arguments, batch_format="pyarrow", batch_size=None)


def _no_arguments() -> dict[str, Any]:
    return {}


def _apply(block: Any, op: Operator | None, table: TableData | None) -> Iterator[Any]:
    """A task: one block through the operator."""
    yield from _Kernel(op, table)(block)


class _Kernel:
    """An operator in a process; without one, the generated rows as they are."""

    def __init__(self, op: Operator | None, table: TableData | None) -> None:
        self._apply, self._table = None if op is None else call_declared(op), table

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Rows of a block."""
        yield from crossing(self._outputs(block))

    def _outputs(self, block: pa.Table) -> Iterator[pa.Table]:
        for batch in self._rows(block):
            for out in (batch,) if self._apply is None else self._apply(batch):
                yield pa.Table.from_batches([out])

    def _rows(self, block: pa.Table) -> Iterator[pa.RecordBatch]:
        if self._table is None:
            yield from block.to_batches()
            return
        for number in block[_PARTITION].to_pylist():
            yield generated(self._table, number)
