"""Operators declared by cost on dask.distributed: a delayed task a partition for each group of neighbours that ask for the same.

That is what blockwise fusion makes of narrow operators. Arrow tables are the partitions. With devices in the cluster, tasks are
restricted by worker resources: those of a device go to workers that have one, all others to the workers of the CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.arrow import through
from windtunnel.engines.declared import generated, is_wide, needs, tasks
from windtunnel.engines.slots import Slots, slots_of
from windtunnel.spec.plan import Operator, Scan
from windtunnel.spec.workload import BoundWorkload, TableData

DEVICE, CPU = "GPU", "CPU"  # names of worker resources


def run(workload: BoundWorkload, client: Any, partitions: int, devices: int, scratch: Path) -> pa.Table:
    """All rows of the last operator."""
    import dask

    parts: dict[str, list[Any]] = {}
    for task in tasks(workload.pipeline):
        first, asks = task[0], needs(task)
        operators = tuple(op for op in task if not isinstance(op.kernel, Scan))
        places = slots_of(asks, devices, scratch)
        with dask.annotate(**({"resources": _resources(asks)} if devices else {})):
            if isinstance(first.kernel, Scan):
                made = _sources(workload.table(first.kernel.table), operators, places)
            else:
                given = parts[first.inputs[0]]
                given = _exchanged(given, partitions) if is_wide(first) else given
                made = [dask.delayed(partial(_task, operators, places, n), pure=False)(part) for n, part in enumerate(given)]
        parts[task[-1].name] = made
    tables = client.compute(parts[workload.pipeline.output.name], sync=True)
    return pa.concat_tables(tables)


def _resources(op: Operator) -> dict[str, float]:
    """A worker has one device, or the one CPU of its thread."""
    return {DEVICE: min(1.0, op.resources.gpus)} if op.resources.gpus else {CPU: min(1.0, op.resources.cpus)}


def _sources(table: TableData, operators: Sequence[Operator], places: Slots) -> list[Any]:
    import dask

    count = len(table.partition_rows)
    return [dask.delayed(partial(_source, table, operators, places, n), pure=False)() for n in range(count)]


def _source(table: TableData, operators: Sequence[Operator], places: Slots, partition: int) -> pa.Table:
    return _task(operators, places, partition, pa.Table.from_batches([generated(table, partition)]))


def _task(operators: Sequence[Operator], places: Slots, partition: int, part: pa.Table) -> pa.Table:
    """One partition through the operators of a task. Its rows are its own: as slices of a kernel's one batch they would weigh nothing."""
    with places.taken():
        return pa.Table.from_batches(list(through(operators, iter(part.to_batches()), partition))).combine_chunks()


def _exchanged(parts: list[Any], count: int) -> list[Any]:
    """Every part cut into ``count`` pieces, and the pieces of a number put together."""
    import dask

    cut = [dask.delayed(partial(_cut, count), nout=count, pure=False)(part) for part in parts]
    return [dask.delayed(pa.concat_tables, pure=False)([pieces[n] for pieces in cut]) for n in range(count)]


def _cut(count: int, table: pa.Table) -> tuple[pa.Table, ...]:
    size = -(-table.num_rows // count)
    return tuple(table.slice(n * size, size) for n in range(count))
