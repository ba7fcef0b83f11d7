"""The parent's end of a cell's process: start it, sample it, collect its records, end it and all it started.

The module owns the child's environment and what is recorded when it dies or passes its time limit. It knows no workload and
no engine.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from windtunnel.records.record import SAMPLE_SCHEMA, Recorder, RunRecord
from windtunnel.records.store import Store
from windtunnel.running.cellspec import CellSpec, base_record, failure
from windtunnel.running.environment import capture
from windtunnel.running.limit import by_group, by_watchdog, make_group
from windtunnel.running.measure import MARKER, Sample, Sampler, kill_tree, remove_sessions
from windtunnel.spec.strict import one_line

#: one thread a library call: engines parallelise by their own workers, and thread pools on top would fight over the budget
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
CLOSE_S = 15.0


class Child:
    """A running cell."""

    def __init__(self, spec: CellSpec, timeout_s: float) -> None:
        self._spec, self._timeout = spec, timeout_s
        self._store = Store(Path(spec.store_root))
        self._log = Path(spec.scratch) / "stderr.log"
        self._lines: queue.Queue[str | None] = queue.Queue()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "windtunnel.running.cell"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                start_new_session=True, env=_environment(spec),
            )  # fmt: skip
        limit = _limit_bytes(spec)
        self._group = None if limit is None else make_group(limit)
        if self._group is not None and not self._group.add(self._process.pid):
            self._group.close()
            self._group = None
        self._sampler = Sampler(self._process.pid, spec.marker, limit_bytes=None if self._group else limit)
        self._sampler.start()
        threading.Thread(target=self._read, name="answers", daemon=True).start()
        self._tell()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(self._spec.to_json() + "\n")
            self._process.stdin.flush()  # stays open: its end tells the child that we died
        except BrokenPipeError:
            return

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def records(self) -> Iterator[RunRecord]:
        """Records as they come; then one for the run that was cut short, if any."""
        deadline = time.monotonic() + self._timeout
        finished: list[RunRecord] = []
        while (line := self._next(deadline)) is not None:
            finished.append(self._record(json.loads(line)))
            yield finished[-1]
        if (missing := self._missing(finished)) is not None:
            yield self._limited(self._cut_short(missing, time.monotonic() >= deadline))

    def _next(self, deadline: float) -> str | None:
        """The next answer; None at the end, at the deadline, or when the child is gone but its pipe is held open by another."""
        while time.monotonic() < deadline and self._sampler.exceeded is None:
            try:
                return self._lines.get(timeout=min(0.2, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if self._process.poll() is not None and self._lines.empty():
                    return None
        return None

    def _record(self, answer: dict[str, float | str]) -> RunRecord:
        record = self._store.read(str(answer["run_id"]))
        if record.clock == "virtual":
            return record
        start = float(answer["start_s"])
        return self._limited(attach(record, self._sampler.window(start, float(answer["end_s"])), start))

    def _missing(self, finished: list[RunRecord]) -> int | None:
        """The first repetition without a record, unless the cell already said why it stopped."""
        if any(r.status != "ok" for r in finished):
            return None
        done = {r.repetition for r in finished}
        return next((r for r in self._spec.repetitions if r not in done), None)

    def _limited(self, record: RunRecord) -> RunRecord:
        """The record with who kept the memory limit; a run that passed it is out of memory, whatever its engine made of that."""
        if (limit := _limit_bytes(self._spec)) is None:
            return record
        by = "watchdog" if self._group is None else "cgroup"
        record = replace(record, environment={**record.environment, "memory_limited_by": by})
        if record.status == "ok":
            return record
        if self._group is not None and self._group.killed:
            return failure(record, "out_of_memory", by_group(limit))
        if self._sampler.exceeded is not None:
            return failure(record, "out_of_memory", by_watchdog(limit, self._sampler.exceeded.memory_bytes))
        return record

    def _cut_short(self, repetition: int, timed_out: bool) -> RunRecord:
        code = None if timed_out or self._sampler.exceeded is not None else self._process.wait()
        record = base_record(self._spec, self._spec.workload.load(), repetition, capture())
        if timed_out:
            return failure(record, "timeout", f"the cell passed its time limit of {self._timeout:g} s and was ended")
        return failure(record, "failed", f"the cell's process {_ending(code)}{self._last_words()}")

    def _last_words(self) -> str:
        lines = [t for t in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if t.strip()]
        return one_line(f"; its last line: {lines[-1]}")[:500] if lines else ""

    def close(self) -> None:
        """End the cell and everything it started; idempotent. A cell still running may close its session first."""
        running = self._process.poll() is None
        kill_tree(self._process.pid if running else None, self._spec.marker, grace_s=CLOSE_S)
        self._process.wait()
        self._sampler.stop()
        if self._group is not None:
            self._group.close()
        remove_sessions(self._sampler.seen)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close_quietly(pipe)


def _limit_bytes(spec: CellSpec) -> int | None:
    """What the processes of a real run here may use together; a running cluster elsewhere keeps its own limits."""
    here = spec.clock == "wall" and spec.cluster.address is None
    return spec.cluster.nodes[0].memory_limit_bytes if here else None


def attach(record: RunRecord, samples: tuple[Sample, ...], start_s: float) -> RunRecord:
    """The record with memory and CPU samples, times relative to the start of the run, and the peak of memory."""
    recorder = Recorder()
    for s in samples:
        for name in ("memory_bytes", "cpu_cores", "foreign_cpu_cores"):
            recorder.sample(name, max(0.0, s.time_s - start_s), float(getattr(s, name)))
    peak = max((s.memory_bytes for s in samples), default=None)
    table = pa.concat_tables([_plain(record.samples), _plain(recorder.sample_table())]).cast(SAMPLE_SCHEMA)
    return replace(record, samples=table, peak_memory_bytes=peak)


def _plain(table: pa.Table) -> pa.Table:
    """Names as strings: dictionaries of two tables do not concatenate."""
    return table.cast(pa.schema([("name", pa.string()), ("time_s", pa.float64()), ("value", pa.float64())]))


def _environment(spec: CellSpec) -> dict[str, str]:
    own = {MARKER: spec.marker, "TMPDIR": spec.scratch, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **THREADS, "POLARS_MAX_THREADS": str(spec.cluster.cpus), **own}


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended early with code {code}"


def _close_quietly(pipe: object) -> None:
    try:
        pipe.close()  # type: ignore[attr-defined]
    except OSError:
        return
