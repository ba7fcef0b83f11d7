"""What adapters share: the base of a session, and questions about plans. The module knows no foreign library."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines import feeding, notes
from windtunnel.engines.api import Capabilities, Outcome, require
from windtunnel.engines.arrow import forget_actors
from windtunnel.engines.failures import unwrap
from windtunnel.engines.placement import count_devices, placed
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Aggregate, GroupMap, Operator, Pipeline, Sink
from windtunnel.spec.workload import BoundWorkload

DECLARED = "it runs no operators declared by cost; the embedded engines, Ray, Spark, Dask, Flink and the simulated ones do"
DECLARED_JOIN = "joins declared by cost run on the embedded engines and simulated only; other declared operators run here"
NO_JSON_DATES = "its JSON reader has no dates"


class ForeignSession:
    """A session of a foreign engine: checks the plan against the declared gaps, tells failures in one way, owns a scratch folder.

    A subclass implements `_plan` (untimed) and `_execute` (timed: a table, or None when it wrote ``output``). One that can hand out
    results as they come implements `_stream` too, which feeds a training loop.
    """

    def __init__(self, name: str, cluster: ClusterSpec, options: Mapping[str, Any], capabilities: Capabilities) -> None:
        self._name, self._cluster, self._options, self._capabilities = name, cluster, options, capabilities
        self._scratch = Path(tempfile.mkdtemp(prefix=f"wt-{name}-"))
        self._planned: BoundWorkload | None = None
        self._placed: BoundWorkload | None = None  # the same, with its devices and without the loop that it feeds
        self._trainer: Operator | None = None
        self._notes = self._scratch / "notes"
        self._notes.mkdir()
        os.environ[notes.FOLDER] = str(self._notes)  # the engine's processes inherit it; those of a running cluster do not

    def prepare(self, workload: BoundWorkload) -> None:
        """Untimed. Raises Unsupported for declared gaps."""
        require(self._capabilities, self._name, workload, self._cluster.address)
        self._placed, self._trainer = feeding.split(placed(workload, self._cluster, self._scratch))
        self._plan(self._placed)
        self._planned = workload
        notes.read(self._notes)  # of kernels that were called to prepare: they belong to no run

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Timed: one ``query`` span from start to end. Raises RunFailed."""
        if self._planned is not workload:
            self.prepare(workload)
        assert self._placed is not None
        plan = self._placed
        with query(self._name, plan, recorder) as rows:
            if self._trainer is not None:
                table: pa.Table | None = feeding.train(self._trainer, lambda: self._stream(plan), recorder)
            else:
                table = self._execute(plan, output)
            if table is not None:
                rows(table.num_rows)
        count_devices(recorder, self._scratch)
        if any(op.state.kind == "actor" for op in plan.pipeline.operators):
            recorder.count("loads", 0)  # a session that kept its models has none to tell of
        for name, value in notes.read(self._notes).items():
            recorder.count(name, value)
        return Outcome(
            path=None if table is not None else output,
            table=table,
            rows=None if table is None else table.num_rows,
            account=self._account,
        )

    def _account(self) -> dict[str, float]:
        """Counters that the engine keeps of its tasks: ``task_s`` (seconds that tasks ran), ``bridge_s``, ``spill_s`` and such."""
        return {}

    def close(self) -> None:
        """Drop loaded models and the scratch folder; idempotent."""
        forget_actors()
        if os.environ.get(notes.FOLDER) == str(self._notes):
            del os.environ[notes.FOLDER]
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _plan(self, workload: BoundWorkload) -> None: ...

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        raise NotImplementedError

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        """The rows of the output as they come, called in a thread of its own; by default all of them at the end."""
        table = self._execute(workload, self._scratch)
        assert table is not None
        yield table


@contextmanager
def query(name: str, workload: BoundWorkload, recorder: Recorder) -> Iterator[Callable[[int], None]]:
    """Time a whole query as one span of the last operator, and tell failures in one way."""
    rows = 0

    def told(count: int) -> None:
        nonlocal rows
        rows = count

    start = time.perf_counter()
    try:
        yield told
    except Exception as error:
        raise unwrap(name, error) from error
    recorder.span("query", workload.pipeline.output.name, 0.0, time.perf_counter() - start, rows=rows)


def sorted_limit(pipeline: Pipeline, op: Operator) -> Operator | None:
    """The sort that a limit reads, when nothing else reads it: engines run both as one top-n."""
    source = pipeline[op.inputs[0]] if op.kind == "limit" else None
    return source if source is not None and source.kind == "sort" and readers(pipeline, source.name) == 1 else None


def readers(pipeline: Pipeline, name: str) -> int:
    """How many inputs name this operator."""
    return sum(op.inputs.count(name) for op in pipeline.operators)


def output_is_files(workload: BoundWorkload) -> bool:
    """Whether the pipeline ends in a sink."""
    return isinstance(workload.pipeline.output.kernel, Sink)


def output_columns(workload: BoundWorkload, name: str) -> tuple[str, ...]:
    """Column names that an operator of the pipeline puts out, in order."""
    from windtunnel.spec.plan import Join, MapBatches, Project, Scan

    op = workload.pipeline[name]
    kernel = op.kernel
    if isinstance(kernel, Scan):
        return kernel.columns
    if isinstance(kernel, Project):
        return tuple(n for n, _ in kernel.columns)
    if isinstance(kernel, (MapBatches, GroupMap)):
        return tuple(n for n, _ in kernel.schema)
    if isinstance(kernel, Aggregate):
        return (*kernel.keys, *(m.name for m in kernel.measures))
    left = output_columns(workload, op.inputs[0])
    if isinstance(kernel, Join) and kernel.how == "inner":
        return (*left, *(c for c in output_columns(workload, op.inputs[1]) if c not in kernel.right_keys))
    return left
