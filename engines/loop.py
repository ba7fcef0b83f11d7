"""A hand-written loop: a process a CPU takes pieces of the table in turn and calls the kernels on them, with nothing between.

The yardstick for engines: what they add to the kernels shows beside it, and its record's ``kernel_s`` over the CPUs is the bound of
kernels alone, measured side by side as an engine runs them. It has no exchange, so that it runs chains of maps, filters and
projections only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

import windtunnel
from windtunnel.engines.adapters.common import ForeignSession, output_is_files
from windtunnel.engines.api import Capabilities, resolve_options
from windtunnel.engines.arrow import arrow_schema, call, call_declared, file_format
from windtunnel.engines.declared import generated
from windtunnel.engines.local import kernels
from windtunnel.errors import InputError
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Filter, MapBatches, Operator, Pipeline, Project, Scan, Synthetic
from windtunnel.spec.workload import BoundWorkload, TableData

Piece = tuple[int, int | None]  # a file (or partition of generated rows), and one of its row groups
_NO_EXCHANGE = "its processes exchange nothing; it runs chains of maps, filters and projections"
_WIDE = ("aggregate", "group_map", "join", "sort", "limit")


class LoopSession(ForeignSession):
    """A pool of processes that stays warm between runs."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        super().__init__("loop", cluster, options, LoopEngine.capabilities)
        self._pool = ProcessPoolExecutor(cluster.cpus, mp_context=get_context("spawn"))
        try:
            list(self._pool.map(_ready, range(cluster.cpus)))
        except BaseException:
            self.close()
            raise

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        folder = str(output) if output_is_files(workload) else None
        tables = list(self._answers(workload, folder))
        return None if folder is not None else pa.concat_tables(tables)

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        return self._answers(workload, None)

    def _answers(self, workload: BoundWorkload, folder: str | None) -> Iterator[pa.Table]:
        """A table a piece, in order; none where files were written."""
        scan = workload.pipeline.operators[0].kernel
        assert isinstance(scan, Scan)
        table = workload.table(scan.table)
        work = [(workload.pipeline, table, piece, number, folder) for number, piece in enumerate(_pieces(table))]
        for answer in self._pool.map(_run, work):
            if folder is None:
                yield pa.ipc.open_stream(answer).read_all()

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        super().close()


def _ready(number: int) -> None:
    pa.set_cpu_count(1)


def _pieces(table: TableData) -> list[Piece]:
    """Row groups of Parquet files, whole files of other formats, generated partitions."""
    if table.format != "parquet":
        return [(n, None) for n in range(len(table.paths) or len(table.partition_rows))]
    import pyarrow.parquet as pq

    return [(n, group) for n, path in enumerate(table.paths) for group in range(pq.ParquetFile(path).num_row_groups)]


def _run(work: tuple[Pipeline, TableData, Piece, int, str | None]) -> bytes:
    """One piece through the chain, in a process of the pool: into a file, or back as an Arrow stream."""
    pipeline, table, piece, number, folder = work
    batches: Iterator[pa.RecordBatch] = iter(())
    for op in pipeline.operators:
        if op.kind != "sink" or isinstance(op.kernel, Synthetic):
            batches = _scanned(op.kernel, table, piece) if isinstance(op.kernel, Scan) else _through(op, batches, piece[0])
    made = pa.Table.from_batches(list(batches))
    if folder is not None:
        import pyarrow.parquet as pq

        pq.write_table(made, Path(folder) / f"part-{number:06d}.parquet")
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as stream:
        stream.write_table(made)
    return bytes(sink.getvalue())


def _scanned(scan: Scan, table: TableData, piece: Piece) -> Iterator[pa.RecordBatch]:
    number, group = piece
    if table.format == "generated":
        yield generated(table, number)
        return
    import pyarrow.dataset as ds

    schema = arrow_schema(table.schema)
    (fragment,) = ds.dataset(table.paths[number], schema=schema, format=file_format(table, schema)).get_fragments()
    part = fragment if group is None else fragment.subset(row_group_ids=[group])
    predicate = None if scan.predicate is None else kernels.scan_predicate(scan.predicate)
    found = part.to_table(schema=schema, columns=list(scan.columns), filter=predicate, use_threads=False)
    yield from found.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=found.schema)]


def _through(op: Operator, batches: Iterator[pa.RecordBatch], partition: int) -> Iterator[pa.RecordBatch]:
    kernel = op.kernel
    if isinstance(kernel, Filter):
        return (b.filter(kernels.evaluate(kernel.predicate, b)) for b in batches)
    if isinstance(kernel, Project):
        return (kernels.project(kernel, b) for b in batches)
    if isinstance(kernel, MapBatches):
        apply = call(op, partition)
    elif isinstance(kernel, Synthetic):
        apply = call_declared(op, partition)
    else:
        raise InputError(f"loop has no way to run operator {op.name!r} of kind {op.kind!r}")
    return (out for b in batches for out in apply(b))


class LoopEngine:
    """Kernels in a loop, a process a CPU."""

    name = "loop"
    options = ()
    capabilities = Capabilities(
        gaps={
            **dict.fromkeys((*_WIDE, *(f"declared {kind}" for kind in _WIDE)), _NO_EXCHANGE),
            "gpu": "it schedules no devices",
            "remote": "its processes are on this machine",
        },
        features={
            "batches": "piece by piece, in order",
            "processes": "one a CPU; they take row groups or files in turn and send nothing to each other",
            "kernels": "called on Arrow batches of a piece; stateful ones are loaded once a process",
        },
    )

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> LoopSession:
        """Start the processes."""
        return LoopSession(cluster, resolve_options(self.name, self.options, options))
