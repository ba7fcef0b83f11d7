"""Spark Structured Streaming behind the thin HTTP front: a socket source, Python workers over Arrow, answers by ``foreachBatch``.

Spark has no HTTP source or sink, so the front feeds a line for every request to Spark's own socket source and gets the answers of each
micro-batch from the driver. The source is Spark's simplest: it keeps no offsets across a restart, as a server's requests would not
either. The module owns the session and the two ends of the stream; what a worker runs is `fronts`'.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.adapters.spark import SparkEngine
from windtunnel.engines.adapters.spark_session import end_jvm, java_home, start_session
from windtunnel.engines.api import resolve_options
from windtunnel.engines.serving import fronts
from windtunnel.engines.serving.process import Told
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_seconds

_SCHEMA = "number long, answer binary, visits string, error string"
_COLUMNS = ("number", "answer", "visits", "error")


class SparkStream:
    """One query; requests wait for the next micro-batch."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._scratch = Path(tempfile.mkdtemp(prefix="windtunnel-spark-"))
        self._waiting: dict[int, asyncio.Future] = {}
        self._number = 0
        self._source: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._spark: Any = None
        self._query: Any = None

    async def open(self) -> None:
        """Start Spark and its query; one request starts the Python workers."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        await self._loop.run_in_executor(None, self._start, server.sockets[0].getsockname()[1])
        await self._connected.wait()
        server.close()
        with contextlib.suppress(RuntimeError):  # a handler may refuse an empty body
            await self.ask(b"")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._source = writer
        self._connected.set()

    def _start(self, port: int) -> None:
        cores = self._told.deployments[0].replicas.minimum
        conf = {"spark.sql.streaming.checkpointLocation": str(self._scratch / "checkpoint"), "spark.master": f"local[{cores}]"}
        options = resolve_options("spark", SparkEngine.options, {"partitions": cores, "conf": conf})
        self._spark = start_session(ClusterSpec.here(), options, java_home(self._scratch), self._scratch)
        lines = self._spark.readStream.format("socket").option("host", "127.0.0.1").option("port", port).load()
        writer = lines.mapInArrow(_kernel(self._told), _SCHEMA).writeStream.foreachBatch(self._answers)
        trigger_s = parse_seconds(self._told.options["trigger"])
        self._query = writer.trigger(processingTime=f"{round(trigger_s * 1e3)} milliseconds").start()
        threading.Thread(target=self._watch, name="query", daemon=True).start()

    def _watch(self) -> None:
        """A query that ends answers nobody any more."""
        try:
            self._query.awaitTermination()
            error: Exception = RuntimeError("Spark's query has ended")
        except Exception as failed:
            error = RuntimeError(f"Spark's query has failed: {str(failed).splitlines()[0][:300]}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: Exception) -> None:
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(error)

    def _answers(self, frame: Any, _batch: int) -> None:
        """In a thread of Spark's, once a micro-batch."""
        rows = [tuple(row) for row in frame.collect()]
        self._loop.call_soon_threadsafe(self._deliver, rows)

    def _deliver(self, rows: list[tuple[int, bytes, str, str | None]]) -> None:
        for number, answer, visits, error in rows:
            done = self._waiting.get(number)
            if done is None or done.done():
                continue
            done.set_exception(RuntimeError(error)) if error else done.set_result((bytes(answer), json.loads(visits)))

    async def ask(self, body: bytes) -> fronts.Served:
        """A line in, and the answer of its micro-batch out."""
        assert self._source is not None
        self._number = number = self._number + 1
        done = self._waiting[number] = self._loop.create_future()
        try:
            self._source.write(b"%d %b\n" % (number, base64.b64encode(body)))
            answer: fronts.Served = await done
            return answer
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """End the query, Spark and its JVM."""
        await self._loop.run_in_executor(None, self._stop)
        if self._source is not None:
            self._source.close()

    def _stop(self) -> None:
        for part in (self._query, self._spark):
            if part is not None:
                with contextlib.suppress(Exception):
                    part.stop()
        end_jvm()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _kernel(told: Told) -> Any:
    """What runs in Spark's Python workers: their state is the module's, so that it outlives a micro-batch."""

    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        from windtunnel.engines.serving import spark_stream

        context = TaskContext.get()
        yield from spark_stream.answered(told, context.partitionId() if context else 0, batches)

    return answer


def answered(told: Told, number: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Lines of requests to rows of answers, in a worker."""
    fronts.hold_once(told, number)
    for batch in batches:
        rows = [_one(line) for line in batch.column(0).to_pylist()]
        yield pa.RecordBatch.from_pydict(
            {name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(zip(_COLUMNS, _KINDS, strict=True))}
        )


_KINDS = (pa.int64(), pa.binary(), pa.string(), pa.string())


def _one(line: str) -> tuple[int, bytes, str, str | None]:
    number, _, body = line.partition(" ")
    try:
        ((answer, visits),) = fronts.work([base64.b64decode(body)])
    except Exception as error:  # the handler's
        return int(number), b"", "[]", f"{type(error).__name__}: {error}"
    return int(number), answer, json.dumps(visits), None
