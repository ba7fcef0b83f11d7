"""A worker process: takes tasks from its pipe one at a time, runs a stage's program on them, writes blocks, answers.

It decides nothing. A receiving thread maps the next task's input blocks while the current one computes; when the driver dies it
notices even in the middle of a task, removes the session's folders and ends the process.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import pyarrow as pa

from windtunnel.engines import physical
from windtunnel.engines.arrow import bind, empty_batch
from windtunnel.engines.declared import held
from windtunnel.engines.failures import describe
from windtunnel.engines.local import kernels
from windtunnel.engines.local.messages import EndMessage, JobMessage, LoadMessage, Reply, SpanRow, TaskMessage
from windtunnel.engines.local.store import BlockInfo, BlockWriter, read_block
from windtunnel.errors import RunFailed
from windtunnel.running.allocators import release_unused
from windtunnel.spec.plan import Join, MapBatches, Sink, Synthetic

Inputs = list[tuple[pa.Table | OSError, SpanRow]]  # mapped blocks, or why not


class Worker:
    """State of one process."""

    def __init__(self, pipe: Connection, writer: BlockWriter, number: int) -> None:
        self._pipe, self._writer, self._number = pipe, writer, number
        self._job: JobMessage | None = None
        self._actors: dict[str, Any] = {}
        self._state = b""  # declared state of an actor
        self._sides: dict[tuple[str, ...], pa.Table] = {}
        self._sending = threading.Lock()
        self._delivery = ThreadPoolExecutor(max_workers=1)
        self._inbox: SimpleQueue[Any] = SimpleQueue()

    def receive(self, folders: tuple[str, ...]) -> None:
        """Read the pipe for ever; the driver's death ends this process and its folders."""
        while True:
            try:
                message = pickle.loads(self._pipe.recv_bytes())  # only from our own parent's pipe
            except (EOFError, OSError):
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)
                os._exit(3)
            self._inbox.put((message, _map_blocks(message) if isinstance(message, TaskMessage) else None))
            if message is None:
                return

    def serve(self) -> None:
        """Answer messages until there are no more."""
        while True:
            message, inputs = self._inbox.get()
            if message is None:
                self._delivery.shutdown()
                return
            if isinstance(message, TaskMessage):
                self._run(message, inputs)
            elif isinstance(message, JobMessage):
                self._job = message
            elif isinstance(message, LoadMessage):
                self._load(message.stage)
            elif isinstance(message, EndMessage):
                self._job, self._actors, self._sides, self._state = None, {}, {}, b""

    def _send(self, reply: Reply) -> None:
        data = pickle.dumps(reply, protocol=5)
        with self._sending:
            self._pipe.send_bytes(data)

    def _load(self, stage: int) -> None:
        """Build the stage's stateful kernels; declared load time of synthetic ones is slept."""
        assert self._job is not None
        start = time.perf_counter()
        step: physical.Step | None = None
        try:
            self._state = held(self._job.actor_bytes[stage])
            for step in self._job.programs[stage].steps:
                if isinstance(step.phase, MapBatches):
                    self._actors[step.operator] = bind(step.phase)
            time.sleep(max(0.0, self._job.actor_load_s[stage] - (time.perf_counter() - start)))
        except Exception as error:
            self._send(Reply("failed", operator=step.operator if step else "", reason=describe(error)))
            return
        end = time.perf_counter()
        name = self._job.programs[stage].steps[0].operator
        self._send(Reply("joined", spans=(("load", name, start, end, 0, 0),), load_s=end - start))

    def _run(self, message: TaskMessage, inputs: Inputs) -> None:
        """Run a task. An actor writes its output beside the next task's computation, as a device's copy engine does."""
        assert self._job is not None
        run = TaskRun(self._job, message, inputs, self._writer, self._actors, self._early)
        try:
            run.compute([self._side(paths) for paths in message.sides])
        except Exception as error:
            self._fail(run, error)
            return
        if self._job.actor_load_s[message.stage] >= 0:
            self._delivery.submit(self._deliver, run)
        else:
            self._deliver(run)

    def _deliver(self, run: TaskRun) -> None:
        try:
            blocks = run.finish()
        except Exception as error:
            self._fail(run, error)
            return
        self._send(Reply("done", run.task, blocks, tuple(run.spans)))

    def _fail(self, run: TaskRun, error: Exception) -> None:
        self._send(Reply("failed", run.task, operator=run.operator, reason=describe(error)))

    def _early(self, task: int, block: BlockInfo) -> None:
        self._send(Reply("block", task, (block,)))

    def _side(self, paths: tuple[str, ...]) -> pa.Table:
        if paths not in self._sides:
            self._sides[paths] = pa.concat_tables(read_block(p) for p in paths)
        return self._sides[paths]


class TaskRun:
    """One attempt of a task: pushes batches through the stage's phases and writes the output as blocks."""

    def __init__(
        self,
        job: JobMessage,
        message: TaskMessage,
        inputs: Inputs,
        writer: BlockWriter,
        actors: dict[str, Any],
        early: Callable[[int, BlockInfo], None],
    ) -> None:
        self._job, self._message, self._writer, self._early = job, message, writer, early
        self._program = job.programs[message.stage]
        self._actors = actors
        self._sides: list[pa.Table] = []
        self.operator = ""
        self.spans: list[SpanRow] = []
        self._inputs = inputs
        self._skip = message.skip
        self._buffer: list[pa.RecordBatch] = []
        self._buffer_bytes = 0
        self._rows_out = 0
        self._emitted = 0

    @property
    def task(self) -> int:
        """The task's id."""
        return self._message.task

    def compute(self, sides: list[pa.Table]) -> None:
        """Push all input through the phases; output beyond a full block is written on the way. ``sides``: broadcast inputs."""
        self._sides = sides
        steps = list(self._program.steps)
        source = self._source(steps)
        steps = [s for s in steps if not isinstance(s.phase, Sink)]
        phases = [self._build(s) for s in steps]
        clock = self._clock = _Exclusive(steps)
        for batch in clock.pulled(source, self._scan_operator):
            self._feed(phases, clock, 0, batch)
        for i, phase in enumerate(phases):
            self._feed_all(phases, clock, i, phase.finish, None)

    def finish(self) -> tuple[BlockInfo, ...]:
        """Write what is left; the last blocks (earlier ones were sent as they were made)."""
        blocks = tuple(self._flush(early=False))
        self.spans = self._clock.spans() + self.spans
        return blocks

    def _source(self, steps: list[physical.Step]) -> Iterator[pa.RecordBatch]:
        """Batches of a scan (removed from ``steps``) or of the input blocks."""
        self._scan_operator = ""
        if steps and steps[0].table is not None:
            step = steps.pop(0)
            self._scan_operator = self.operator = step.operator
            return kernels.scan(step, self._message.partition)
        return self._read(slice(0, self._message.split or None))

    def _read(self, part: slice) -> Iterator[pa.RecordBatch]:
        for mapped, spans in self._inputs[part]:
            if isinstance(mapped, OSError):
                raise RunFailed(f"an input block could not be read: {mapped}")
            self.spans.append(spans)
            yield from mapped.to_batches() or [empty_batch(mapped.schema)]

    def _build(self, step: physical.Step) -> kernels.Phase:
        self.operator = step.operator
        if isinstance(step.phase, physical.RecordedTasks):
            return kernels.RecordedTask(step.phase.told[self._message.partition])
        right = None
        if isinstance(step.phase, (Join, Synthetic)) and self._message.split:
            right = pa.Table.from_batches(list(self._read(slice(self._message.split, None))))
        return kernels.build(step, self._sides, self._actors.get(step.operator), right)

    def _feed(self, phases: list[kernels.Phase], clock: _Exclusive, i: int, batch: pa.RecordBatch) -> None:
        if i == len(phases):
            self._output(batch)
        else:
            self._feed_all(phases, clock, i, lambda: phases[i].push(batch), batch)

    def _feed_all(self, phases: list[kernels.Phase], clock: _Exclusive, i: int, call: Any, batch: pa.RecordBatch | None) -> None:
        self.operator = clock.names[i]
        for out in clock.timed(i, call, batch):
            self._feed(phases, clock, i + 1, out)
            self.operator = clock.names[i]

    # -- output ------------------------------------------------------------------------------------------------------

    def _output(self, batch: pa.RecordBatch) -> None:
        """Cut the output into blocks of about ``block_bytes``; a full one goes out while the task runs on."""
        size = batch.nbytes
        limit = self._job.block_bytes
        if self._buffer and self._buffer_bytes + size > limit:
            self._flush(early=True)
        rows = max(1, int(batch.num_rows * limit / size)) if size > limit else batch.num_rows
        for start in range(0, max(1, batch.num_rows), max(1, rows)):
            part = batch.slice(start, rows)
            if self._buffer and self._buffer_bytes + part.nbytes > limit:
                self._flush(early=True)
            self._buffer.append(part)
            self._buffer_bytes += part.nbytes

    def _flush(self, *, early: bool) -> list[BlockInfo]:
        if not self._buffer:
            return []
        table = pa.Table.from_batches(self._buffer)
        self._buffer, self._buffer_bytes = [], 0
        pieces = self._pieces(table)
        blocks = [b for b in (self._write(p, t) for p, t in pieces) if b is not None]
        if early:
            for block in blocks:
                self._early(self._message.task, block)
            release_unused()  # what wide rows took to read is not kept through the task
            return []
        return blocks

    def _pieces(self, table: pa.Table) -> list[tuple[int, pa.Table]]:
        partitioner = self._program.partitioner
        if partitioner is None:
            return [(0, table)]
        start = time.perf_counter()
        batch = table.combine_chunks().to_batches()[0] if table.num_rows else empty_batch(table.schema)
        bounds = self._sides[-1] if partitioner.kind == "range" else None
        pieces = kernels.split(batch, partitioner, bounds, self._rows_out)
        if self._emitted == 0 and (not pieces or pieces[0][0] != 0):
            pieces.insert(0, (0, batch.slice(0, 0)))  # the first partition always exists: it carries the schema
        self._rows_out += batch.num_rows
        self.spans.append(("serialize", "", start, time.perf_counter(), batch.num_rows, batch.nbytes))
        return [(p, pa.Table.from_batches([b])) for p, b in pieces]

    def _write(self, partition: int, table: pa.Table) -> BlockInfo | None:
        self._emitted += 1
        if self._emitted <= self._skip:
            return None
        start = time.perf_counter()
        if any(isinstance(s.phase, Sink) for s in self._program.steps):
            table = self._sink(table)
        info = self._writer.write(table, partition)
        kind = "spill" if info.on_disk else "emit"
        self.spans.append((kind, "", start, time.perf_counter(), table.num_rows, info.bytes))
        return info

    def _sink(self, table: pa.Table) -> pa.Table:
        """Write a Parquet file whose name keeps the order; the block that goes on says how many rows it holds."""
        import pyarrow.parquet as pq

        name = f"part-{self._message.partition:06d}-{self._message.task:09d}-{self._emitted:04d}.parquet"
        path = Path(self._job.output) / name
        pq.write_table(table, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        return pa.table({"file": [name], "rows": [table.num_rows]})


class _Exclusive:
    """Time each phase spends in itself, not in those it feeds; told as consecutive spans from the task's start."""

    def __init__(self, steps: list[physical.Step]) -> None:
        self.names = [s.operator for s in steps]
        self._start = time.perf_counter()
        self._spent = [0.0] * len(steps)
        self._rows = [0] * len(steps)
        self._bytes = [0] * len(steps)
        self._source = ("", 0.0, 0, 0)

    def pulled(self, source: Iterator[pa.RecordBatch], operator: str) -> Iterator[pa.RecordBatch]:
        """Batches of the source, its time taken down as a scan's (or left to `fetch` spans)."""
        spent, rows, size = 0.0, 0, 0
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            spent += time.perf_counter() - start
            self._source = (operator, spent, rows, size)
            if batch is None:
                return
            rows += batch.num_rows
            size += batch.nbytes
            yield batch

    def timed(self, i: int, call: Any, batch: pa.RecordBatch | None) -> Iterator[pa.RecordBatch]:
        """Outputs of ``call``, each pull timed."""
        if batch is not None:
            self._rows[i] += batch.num_rows
            self._bytes[i] += batch.nbytes
        start = time.perf_counter()
        outputs: Iterable[pa.RecordBatch] = call()
        iterator = iter(outputs)
        while True:
            out = next(iterator, None)
            self._spent[i] += time.perf_counter() - start
            if out is None:
                return
            yield out
            start = time.perf_counter()

    def spans(self) -> list[SpanRow]:
        """One compute span a phase, laid end to end."""
        at, rows = self._start, []
        operator, spent, count, size = self._source
        if operator:
            rows.append(("compute", operator, at, at + spent, count, size))
        at += spent
        for name, spent, count, size in zip(self.names, self._spent, self._rows, self._bytes, strict=True):
            rows.append(("compute", name, at, at + spent, count, size))
            at += spent
        return rows


def _map_blocks(message: TaskMessage) -> Inputs:
    return [_map_block(path) for path in message.blocks]


def _map_block(path: str) -> tuple[pa.Table | OSError, SpanRow]:
    start = time.perf_counter()
    try:
        table = read_block(path)
    except OSError as error:
        return error, ("fetch", "", start, start, 0, 0)
    return table, ("fetch", "", start, time.perf_counter(), table.num_rows, table.nbytes)


def main(argv: list[str]) -> None:
    """``worker NUMBER PIPE MEMORY SPILL LIMIT``: a file descriptor, folders and the store's budget from the driver."""
    number, pipe, memory, spill, limit = int(argv[0]), int(argv[1]), argv[2], argv[3], int(argv[4])
    pa.set_cpu_count(1)
    sys.setswitchinterval(0.0005)
    worker = Worker(Connection(pipe), BlockWriter(Path(memory), Path(spill), limit, number + 1), number)
    threading.Thread(target=worker.receive, args=((memory, spill),), daemon=True).start()
    worker._send(Reply("joined"))
    worker.serve()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
