"""One cell in its own process: ``python -m windtunnel.running.cell`` reads a `CellSpec` as one line of JSON on standard input.

Open, prepare, warm up, run n times; each output is checked outside the timed region and each run appended to the store at once.
For every record one line of JSON goes to standard output: its run id and the window of the run in monotonic time, from which
the parent attaches memory and CPU samples. Whatever engines print goes to standard error. When the parent dies, its pipe closes
and the cell ends itself and all it started.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import pyarrow as pa

import windtunnel
from windtunnel import core
from windtunnel.errors import Unsupported, WindtunnelError, WrongResult
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.records.store import Store
from windtunnel.registry import engine_names, load_engine
from windtunnel.running.allocators import release_unused
from windtunnel.running.cellspec import CellSpec, base_record, failure
from windtunnel.running.environment import capture
from windtunnel.spec.strict import one_line
from windtunnel.spec.workload import BoundWorkload

WARMUPS = 3  # runs before the measured ones; one that takes long is enough
WARMUP_S = 10.0
GRACE_S = 10.0  # for a session to close after its parent died
Report = Callable[[RunRecord, float, float], None]


def run_cell(spec: CellSpec, report: Report) -> None:
    """Run a cell and report every record; expected failures end as records, never as exceptions."""
    workload = spec.workload.load()
    bound = workload.bind(Path(spec.data_root))
    cell = _Cell(spec, bound, report)
    if spec.clock == "virtual":
        for repetition in spec.repetitions:
            if not cell.session((repetition,), {"seed": spec.run_seed(repetition)}):
                return
    else:
        warms_itself = workload.clients is not None  # every client is a new process
        cell.session(spec.repetitions, {}, warmups=WARMUPS if spec.warmup and not warms_itself else 0)


class _Cell:
    """The parts of a record that every run of a cell shares, and the order of its steps."""

    def __init__(self, spec: CellSpec, bound: BoundWorkload, report: Report) -> None:
        self._spec, self._bound, self._report = spec, bound, report
        self._environment = environment_of(spec)
        self._version = self._devices = ""
        self._options: dict[str, Any] = dict(spec.engine.options)
        self._open_s: float | None = None
        self._prepare_s: float | None = None

    def session(self, repetitions: tuple[int, ...], extra: dict[str, Any], warmups: int = 0) -> bool:
        """Open, prepare, warm up, run the repetitions, close. False after a failure: the rest of the cell would say no more."""
        begun = time.monotonic()
        try:
            engine = _engine(self._spec.engine.name)
            self._version = engine.version()
            self._devices = engine.capabilities.features.get("devices", "")
            self._options = all_options(engine, self._spec.engine.options)
            session, self._open_s = _timed(engine.open, self._spec.cluster, {**self._spec.engine.options, **extra})
        except Exception as error:
            return self._failed(next((r for r in repetitions if r >= 0), 0), error, begun)
        with contextlib.closing(session):
            try:
                _, self._prepare_s = _timed(session.prepare, self._bound)
            except Exception as error:
                return self._failed(next((r for r in repetitions if r >= 0), 0), error, begun)
            return self._warm_up(session, warmups) and all(self._run(session, repetition) for repetition in repetitions)

    def _warm_up(self, session: Any, most: int) -> bool:
        """Libraries load, pages are touched, JVMs compile: the first runs of a process are slower than those that follow."""
        begun = time.monotonic()
        for number in range(1, most + 1):
            if not self._run(session, -number):
                return False
            if time.monotonic() - begun > WARMUP_S:
                break
        return True

    def _run(self, session: Any, repetition: int) -> bool:
        recorder = Recorder()
        with _output_folder(self._spec.scratch) as output:
            start = time.monotonic()
            try:
                with _undisturbed(self._spec.clock == "virtual"):
                    start = time.monotonic()
                    outcome, seconds = _timed(session.run, self._bound, recorder, output)
                    end = time.monotonic()
            except Exception as error:
                return self._failed(repetition, error, start, recorder)
            return self._finished(repetition, outcome, seconds, recorder, (start, end))

    def _finished(self, repetition: int, outcome: Any, seconds: float, recorder: Recorder, window: tuple[float, float]) -> bool:
        """Check the output, outside the timed region, and report."""
        try:
            recorder.counters |= outcome.account()
            rows, verified = self._check(outcome, recorder)
        except Exception as error:
            return self._failed(repetition, error, window[0], recorder, window[1])
        virtual = self._spec.clock == "virtual"
        record = replace(
            self._record(repetition, recorder),
            status="ok",
            reason=None,
            makespan_s=virtual_makespan(recorder) if virtual else seconds if outcome.seconds is None else outcome.seconds,
            rows_out=rows,
            verified=verified,
            peak_memory_bytes=virtual_peak(recorder) if virtual else None,
        )
        self._report(record, *window)
        return True

    def _check(self, outcome: Any, recorder: Recorder) -> tuple[int | None, bool]:
        """(rows, verified), and the dead letters counted; simulated outcomes are counts and verify nothing."""
        if self._spec.clock == "virtual":
            return outcome.rows, False
        table = outcome.table if outcome.table is not None else read_output(outcome.path)
        if table is None:
            raise WrongResult(f"engine {self._spec.engine.name!r} returned neither a table nor a folder of files")
        self._bound.verify(table)
        if (column := self._bound.workload.status_column) is not None:
            recorder.count("dead_letters", table.num_rows - table[column].to_pylist().count("ok"))
        return table.num_rows, outcome.verified or self._bound.workload.oracle is not None

    def _failed(
        self, repetition: int, error: Exception, start: float, recorder: Recorder | None = None, end: float | None = None
    ) -> bool:
        if self._spec.own_group and not isinstance(error, WindtunnelError):  # standard error is this cell's log
            traceback.print_exception(error)
        if repetition < 0:  # a warm-up that fails is the end of the cell, and warm-ups are in no report
            repetition = next((r for r in self._spec.repetitions if r >= 0), repetition)
        record = failure(self._record(repetition, recorder or Recorder()), *status_of(error))
        self._report(record, start, end or time.monotonic())
        return False

    def _mechanism(self) -> dict[str, Any]:
        """Which devices operators asked for, and how the engine hands them out."""
        if not any(op.resources.gpus for op in self._bound.pipeline.operators) or self._spec.clock == "virtual":
            return {}
        kinds = ", ".join(f"{n.gpus.count} × {n.gpus.kind}" for n in self._spec.cluster.nodes if n.gpus.count)
        return {"devices": {"kind": kinds or "none", "mechanism": self._devices}}

    def _record(self, repetition: int, recorder: Recorder) -> RunRecord:
        return replace(
            base_record(self._spec, self._bound.workload, repetition, self._environment),
            engine_version=self._version,
            options=self._options,
            open_s=self._open_s if self._spec.clock == "wall" else None,  # virtual records hold no wall time
            prepare_s=self._prepare_s if self._spec.clock == "wall" else None,
            environment={**self._environment, **self._mechanism()},
            counters=dict(recorder.counters),
            spans=recorder.span_table(),
            samples=recorder.sample_table(),
        )


# -- small parts --------------------------------------------------------------------------------------------------------


def _engine(name: str) -> Any:
    """The engine; one that the scenario format knows and this version lacks is unsupported, not a mistake of the user."""
    if name not in engine_names():
        what = "simulates" if name.startswith("sim:") else "runs"
        raise Unsupported(
            f"this version {what} no engine {name.removeprefix('sim:')!r}; engines here: {', '.join(engine_names())}"
        )
    return load_engine(name)


def environment_of(spec: CellSpec) -> dict[str, Any]:
    """Where a real run happens. A simulated one is the same everywhere: only the version counts, and the core to be named."""
    return capture() if spec.clock == "wall" else {"libraries": {"windtunnel": windtunnel.__version__}, "core": core.kind()}


def all_options(engine: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Every option of the engine with the value it runs with."""
    return {**{o.name: o.default for o in engine.options}, **given}


def status_of(error: Exception) -> tuple[str, str]:
    """(status, sentence) of a failure."""
    if isinstance(error, WindtunnelError):
        return error.status, one_line(str(error))
    if isinstance(error, MemoryError):
        return "out_of_memory", "Python could not allocate memory"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" (at {Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    return "failed", one_line(f"{type(error).__name__}: {error}")[:2000] + place


def read_output(path: Path | None) -> pa.Table | None:
    """The rows of a sink's folder, its Parquet files in order of their names; None without a file."""
    import pyarrow.parquet as pq

    files = sorted(path.rglob("*.parquet"), key=lambda p: p.name) if path is not None else []
    return pa.concat_tables([pq.read_table(f) for f in files]) if files else None


def virtual_makespan(recorder: Recorder) -> float:
    """The simulated duration: the counter ``virtual_makespan_s``, else the end of the last span."""
    if "virtual_makespan_s" in recorder.counters:
        return recorder.counters["virtual_makespan_s"]
    return max((span[6] for span in recorder.spans), default=0.0)


def virtual_peak(recorder: Recorder) -> int | None:
    """The highest simulated memory: its counter, else the highest sample."""
    if "peak_memory_bytes" in recorder.counters:
        return round(recorder.counters["peak_memory_bytes"])
    values = [value for name, _, value in recorder.samples if name == "memory_bytes"]
    return round(max(values)) if values else None


def _timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


@contextlib.contextmanager
def _undisturbed(on: bool) -> Iterator[None]:
    """Pauses of the collector do not belong to a measured run, and what was used before it not to its peak memory."""
    gc.collect()
    release_unused()
    if not on:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _output_folder(scratch: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="out-", dir=scratch or None, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


# -- the process --------------------------------------------------------------------------------------------------------


def main() -> int:
    """Entry point of the child process."""
    _take_signals()
    orphaned = threading.Event()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        spec = CellSpec.from_json(sys.stdin.readline())
        if spec.own_group:
            threading.Thread(target=_watch_parent, args=(spec, orphaned), name="parent", daemon=True).start()
        if spec.clock == "wall":
            _limit_cpus(spec.cluster.cpus)
        try:
            run_cell(spec, _reporter(Store(Path(spec.store_root)), answers))
        finally:
            if orphaned.is_set():
                _end_family(spec)
    return 0


def _reporter(store: Store, answers: TextIO) -> Report:
    def report(record: RunRecord, start_s: float, end_s: float) -> None:
        store.append(record)
        answers.write(json.dumps({"run_id": record.run_id, "start_s": start_s, "end_s": end_s}) + "\n")
        answers.flush()

    return report


def _take_signals() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, stop)


def _limit_cpus(cpus: int) -> None:
    """Every engine gets the same CPUs, whatever it believes it may start."""
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[: max(1, cpus)])


def _watch_parent(spec: CellSpec, orphaned: threading.Event) -> None:
    """Standard input ends when the parent dies: close the session, then leave nothing behind."""
    while sys.stdin.read(1):
        pass
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    _end_family(spec)
    os.kill(os.getpid(), signal.SIGKILL)


def _end_family(spec: CellSpec) -> None:
    """Kill everything this cell started and remove its folders, those too that a session was just about to own."""
    from windtunnel.running.measure import marked, remove_sessions, tree

    family = [p for p in tree(os.getpid(), marked(spec.marker) if spec.marker else ()) if p != os.getpid()]
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    remove_sessions([*family, os.getpid()])
    if spec.scratch:
        shutil.rmtree(spec.scratch, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WindtunnelError as error:
        print(one_line(str(error)), file=sys.stderr)
        sys.exit(int(error.exit_code))
