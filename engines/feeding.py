"""A training loop in the driver that a foreign engine feeds: batches in order of arrival, at most a few ahead, a span a step.

What the engine hands out is cut into full batches by a thread beside the loop, as data loaders do, so that the engine works while the
loop steps; where the loop lags, the thread takes nothing more, and an engine with backpressure holds back. The module knows no engine.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from windtunnel.engines.arrow import call, call_declared
from windtunnel.records.record import Recorder
from windtunnel.spec.plan import Operator, Pipeline, Synthetic
from windtunnel.spec.workload import BoundWorkload

AHEAD = 8  # batches that wait for the loop
_PATIENCE_S = 0.1


def split(workload: BoundWorkload) -> tuple[BoundWorkload, Operator | None]:
    """What the engine runs, and the training loop that it feeds where there is one."""
    op = workload.workload.trainer
    if op is None:
        return workload, None
    rest = Pipeline(tuple(o for o in workload.pipeline.operators if o is not op))
    return replace(workload, workload=replace(workload.workload, pipeline=rest)), op


def train(op: Operator, source: Callable[[], Iterator[pa.Table]], recorder: Recorder) -> pa.Table:
    """Run the loop over all that ``source`` gives; what it says of the rows that it consumed."""
    start = time.perf_counter()
    line: queue.Queue[Any] = queue.Queue(AHEAD)
    stop = threading.Event()
    feeder = threading.Thread(target=_feed, args=(source, op.batch_rows, line, stop), name="feeder", daemon=True)
    feeder.start()
    step = call_declared(op) if isinstance(op.kernel, Synthetic) else call(op)
    made: list[pa.RecordBatch] = []
    try:
        while (batch := line.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            began = time.perf_counter() - start
            made += step(batch)
            recorder.span("step", op.name, began, time.perf_counter() - start, rows=batch.num_rows, bytes=batch.nbytes)
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):
            while True:
                line.get_nowait()
        feeder.join()
    return pa.Table.from_batches(made) if made else pa.table({})


def _feed(source: Callable[[], Iterator[pa.Table]], rows: int, line: queue.Queue[Any], stop: threading.Event) -> None:
    """Fill the line until there is no more, or the loop has stopped; what fails here is raised there."""
    try:
        with contextlib.closing(full_batches(source(), rows)) as batches:
            for batch in batches:
                if not _put(line, batch, stop):
                    return
        _put(line, None, stop)
    except BaseException as error:
        _put(line, error, stop)


def _put(line: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            line.put(item, timeout=_PATIENCE_S)
            return True
    return False


def full_batches(tables: Iterator[pa.Table], rows: int) -> Generator[pa.RecordBatch, None, None]:
    """Batches of exactly ``rows`` rows, the last one aside; 0 = tables as they come."""
    held: list[pa.Table] = []
    waiting = 0
    for table in tables:
        if not table.num_rows:
            continue
        held, waiting = [*held, table], waiting + table.num_rows
        while waiting >= rows:
            size = rows or waiting
            whole = pa.concat_tables(held)
            yield _batch(whole.slice(0, size))
            held, waiting = [whole.slice(size)], waiting - size
            if not waiting:
                held = []
                break
    if waiting:
        yield _batch(pa.concat_tables(held))


def _batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
