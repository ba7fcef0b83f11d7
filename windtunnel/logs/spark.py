"""Spark event logs: events in, what happened out. Plain or compressed, a file or a rolling folder, whole or damaged.

`SparkLog` gathers jobs, stages, executors and, column by column, tasks; `windtunnel.logs.spark_graph` makes a job graph of it. A line
that cannot be read is left aside and counted, with its number and event; a log without any job is refused.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from windtunnel.errors import InputError
from windtunnel.logs import spark_events as ev
from windtunnel.logs.opening import Ending, lines
from windtunnel.spec.jobgraph import Status
from windtunnel.spec.strict import one_line

#: parts of a rolling log, in order (org.apache.spark.deploy.history.EventLogFileWriters)
_PART = re.compile(r"^events_(\d+)_")
_EVENT = re.compile(rb'"Event":"([A-Za-z0-9_.$]{1,120})"')
#: how a task's end is told: reason → status
_ENDS = {
    "Success": Status.OK, "ExceptionFailure": Status.FAILED, "TaskKilled": Status.KILLED, "TaskCommitDenied": Status.KILLED,
    "FetchFailed": Status.LOST, "ExecutorLostFailure": Status.LOST, "TaskResultLost": Status.LOST, "UnknownReason": Status.FAILED,
}  # fmt: skip
_PYTHON_METRIC = b"Python workers"
#: SQL metrics of Python operators (PythonSQLMetrics.scala): the milliseconds that their workers ran
_PYTHON_RUN = "time to run Python workers"
_NOTES = 20  # damaged lines that are told one by one

#: of a task: integers, then floats
_WHOLE = (
    "stage", "partition", "attempt", "executor", "status", "launched", "finished", "bytes_read", "bytes_fetched", "bytes_local",
    "bytes_out", "bytes_written", "bytes_spilled", "memory_bytes", "run_ms", "cpu_ns", "gc_ms", "fetch_ms", "python_ms",
)  # fmt: skip
UNTOLD = -1


@dataclass(slots=True)
class SparkJob:
    """A job: milliseconds, the SQL query and the group that it was submitted for, and its stages."""

    id: int
    submitted: int
    stages: list[int]
    query: int | None = None
    group: str | None = None
    ended: int | None = None


@dataclass(slots=True)
class SparkStage:
    """An attempt of a stage that was submitted."""

    id: int
    attempt: int
    name: str
    parents: tuple[int, ...]
    rdd: int
    python: bool
    tasks: int
    profile: int = 0
    submitted: int | None = None
    completed: int | None = None
    failed: bool = False


@dataclass(slots=True)
class SparkExecutor:
    """An executor: number of its host, cores (0: not told), milliseconds when it came and went; ``name`` only where names are kept."""

    id: str
    host: int
    cores: int
    profile: int
    gpus: int
    added: int
    name: str = ""
    removed: int | None = None


@dataclass(slots=True)
class SparkLog:
    """All that a log told. ``queries``: SQL query → (start, end, root). ``rdd_of``: stage → the RDD it computes, skipped stages too."""

    version: str = ""
    name: str = ""
    attempt: str | None = None
    started: int | None = None
    ended: int | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    profiles: dict[int, ev.ResourceProfileAdded] = field(default_factory=dict)
    executors: list[SparkExecutor] = field(default_factory=list)
    jobs: dict[int, SparkJob] = field(default_factory=dict)
    queries: dict[int, list[int | None]] = field(default_factory=dict)
    stages: dict[tuple[int, int], SparkStage] = field(default_factory=dict)
    rdd_of: dict[int, int] = field(default_factory=dict)
    keys: list[tuple[int, int]] = field(default_factory=list)  # number of a stage attempt in `tasks` → its ids
    tasks: dict[str, array[int]] = field(default_factory=lambda: {n: array("q") for n in _WHOLE})
    running: dict[int, ev.TaskStart] = field(default_factory=dict)
    latest: int = 0
    notes: list[str] = field(default_factory=list)

    def close_running(self) -> None:
        """Say how many tasks had not ended when the log did; they are left out."""
        if self.running:
            self.notes.append(f"{len(self.running)} task(s) had not ended when the log did; they are left out")
            self.running.clear()


def is_spark(head: bytes) -> bool:
    """Whether a file that begins so is an event log of Spark."""
    return b'"Event":"SparkListener' in head[:4096] or b'"Event":"org.apache.spark' in head[:4096]


def is_rolling(folder: Path) -> bool:
    """Whether a folder is a rolling event log."""
    return folder.is_dir() and any(_PART.match(p.name) for p in folder.iterdir())


def read_spark(path: Path, names: bool = False) -> SparkLog:
    """Read a log, or a rolling folder; ``names``: call sites and hosts are kept. Raises InputError where there is nothing to go on with."""
    reader = _Reader(names)
    for part in _parts(path):
        reader.read(part)
    reader.close(path)
    return reader.log


def _parts(path: Path) -> list[Path]:
    """The files of a log in order; a compacted one replaces those up to its number."""
    if not path.is_dir():
        return [path]
    found = {p: int(m.group(1)) for p in path.iterdir() if (m := _PART.match(p.name))}
    if not found:
        raise InputError(f"{path} is a folder without parts of a rolling event log (events_1_…)")
    compact = [n for p, n in found.items() if p.name.endswith(".compact")]
    last = max(compact, default=0)
    kept = [p for p, n in found.items() if n > last or (n == last and p.name.endswith(".compact"))]
    return sorted(kept, key=found.__getitem__)


class _Reader:
    """Takes one event after the other."""

    def __init__(self, names: bool) -> None:
        self.log = SparkLog()
        self._names = names
        self._hosts: dict[str, int] = {}
        self._executors: dict[str, int] = {}  # id → its latest number
        self._stages: dict[tuple[int, int], int] = {}
        self._damaged = 0
        self._handlers: dict[str, Callable[[Any], None]] = {
            "LogStart": self._log_start, "ApplicationStart": self._application_start, "ApplicationEnd": self._application_end,
            "EnvironmentUpdate": self._environment, "ResourceProfileAdded": self._profile, "ExecutorAdded": self._executor_added,
            "ExecutorRemoved": self._executor_removed, "JobStart": self._job_start, "JobEnd": self._job_end,
            "StageEvent": self._stage, "TaskStart": self._task_start, "TaskEnd": self._task_end,
            "ExecutionStart": self._query_start, "ExecutionEnd": self._query_end,
        }  # fmt: skip
        self._by_event = {name: (ev.DECODERS[name], self._handlers[kind.__name__]) for name, kind in ev.TYPES.items()}

    def read(self, path: Path) -> None:
        """Take all events of a file."""
        ending = Ending()
        for number, line, last in _last_marked(lines(path, ending)):
            if line and not line.isspace():
                self._line(path, number, line, last)
        if ending.cut:
            self.log.notes.append(f"{path.name}: {ending.cut}; what came before is read")

    def _line(self, path: Path, number: int, line: bytes, last: bool) -> None:
        match = _EVENT.search(line, 0, 200)
        name = match.group(1).decode() if match else ""
        try:
            if not name:
                name = ev.EVENT.decode(line).event
            known = self._by_event.get(name)
            if known is None:
                return
            if known[0] is ev.DECODERS["SparkListenerTaskEnd"] and _PYTHON_METRIC in line:
                event = ev.TASK_END_WITH_METRICS.decode(line)
            else:
                event = known[0].decode(line)
            known[1](event)
        except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError) as error:
            self._damage(path, number, name, error, last)

    def _damage(self, path: Path, number: int, name: str, error: Exception, last: bool) -> None:
        self._damaged += 1
        if self._damaged > _NOTES:
            return
        what = f" ({name})" if name else ""
        why = "nested too deeply" if isinstance(error, RecursionError) else one_line(str(error))[:160]
        how = "the log ends in the middle of it" if last and "truncated" in why else f"it cannot be read: {why}"
        self.log.notes.append(f"{path.name}, line {number}{what}: {how}; it is left aside")

    def close(self, path: Path) -> None:
        """Check that there is something to go on with. Raises InputError otherwise."""
        log = self.log
        if self._damaged > _NOTES:
            log.notes.append(f"{path.name}: {self._damaged} lines in all cannot be read and are left aside")
        log.close_running()
        if not log.tasks["stage"]:
            why = f"; {log.notes[0]}" if log.notes else ""
            ran = (
                "its application ended no task"
                if log.started is not None or log.version
                else "holds no event of a Spark application"
            )
            raise InputError(f"{path}: {ran}, so that there is nothing to replay{why}")

    # -- events ------------------------------------------------------------------------------------------------------

    def _log_start(self, event: ev.LogStart) -> None:
        self.log.version = event.version

    def _application_start(self, event: ev.ApplicationStart) -> None:
        self.log.started, self.log.attempt, self.log.name = self._at(event.time), event.attempt, event.name

    def _application_end(self, event: ev.ApplicationEnd) -> None:
        self.log.ended = self._at(event.time)

    def _environment(self, event: ev.EnvironmentUpdate) -> None:
        self.log.properties = event.spark

    def _profile(self, event: ev.ResourceProfileAdded) -> None:
        self.log.profiles[event.id] = event

    def _executor_added(self, event: ev.ExecutorAdded) -> None:
        info = event.info
        addresses = info.resources.get("gpu")
        found = addresses.get("addresses") if isinstance(addresses, dict) else None
        host = self._hosts.setdefault(info.host, len(self._hosts))
        gpus = len(found) if isinstance(found, list) else 0
        cores = min(max(info.cores, 1), 1 << 16)
        self._executors[event.id] = len(self.log.executors)
        self.log.executors.append(
            SparkExecutor(event.id, host, cores, info.profile, gpus, event.time, self._name(event.id, info.host))
        )

    def _executor_removed(self, event: ev.ExecutorRemoved) -> None:
        if event.id in self._executors:
            self.log.executors[self._executors[event.id]].removed = event.time

    def _job_start(self, event: ev.JobStart) -> None:
        properties = event.properties or {}
        group = properties.get("spark.jobGroup.id")
        job = SparkJob(
            event.id, self._at(event.time), event.stages, _number(properties.get("spark.sql.execution.id")),
            group if isinstance(group, str) else None,
        )  # fmt: skip
        self.log.jobs[event.id] = job
        for info in event.infos:
            if info.rdds:
                self.log.rdd_of[info.id] = max(r.id for r in info.rdds)

    def _job_end(self, event: ev.JobEnd) -> None:
        if event.id in self.log.jobs:
            self.log.jobs[event.id].ended = self._at(event.time)

    def _query_start(self, event: ev.ExecutionStart) -> None:
        self.log.queries[event.id] = [event.time, None, event.root]

    def _query_end(self, event: ev.ExecutionEnd) -> None:
        if event.id in self.log.queries:
            self.log.queries[event.id][1] = event.time

    def _stage(self, event: ev.StageEvent) -> None:
        info, key = event.info, (event.info.id, event.info.attempt)
        stage = self.log.stages.get(key)
        if stage is None:
            rdd = max((r.id for r in info.rdds), default=-1)
            python = any(_is_python(r) for r in info.rdds)
            stage = SparkStage(
                info.id,
                info.attempt,
                info.name if self._names else ev.verb(info.name),
                tuple(info.parents),
                rdd,
                python,
                info.tasks,
                info.profile,
            )
            self.log.stages[key] = stage
            self.log.rdd_of[info.id] = rdd
        if info.submitted is not None:
            stage.submitted = self._at(info.submitted)
        if info.completed is not None:
            stage.completed = self._at(info.completed)
            stage.failed = info.failure is not None

    def _task_start(self, event: ev.TaskStart) -> None:
        self.log.running[event.info.id] = event
        self._at(event.info.launched)

    def _task_end(self, event: ev.TaskEnd) -> None:
        info, reason = event.info, event.reason.reason if event.reason else "Success"
        if reason == "Resubmitted":  # it had ended well; its output was lost later
            return
        self.log.running.pop(info.id, None)
        status = _ENDS.get(reason, Status.FAILED)
        self._task(event.stage, event.stage_attempt, info, status, self._at(info.finished), event.metrics)

    def _task(
        self, stage: int, attempt: int, info: ev.TaskInfo, status: Status, finished: int, metrics: ev.TaskMetrics | None
    ) -> None:
        number = self._stages.setdefault((stage, attempt), len(self._stages))
        if number == len(self.log.keys):
            self.log.keys.append((stage, attempt))
        if info.executor not in self._executors:  # its coming was not told
            host = self._hosts.setdefault(info.host, len(self._hosts))
            self._executors[info.executor] = len(self.log.executors)
            self.log.executors.append(
                SparkExecutor(info.executor, host, 0, 0, 0, info.launched, self._name(info.executor, info.host))
            )
        partition = info.partition if info.partition >= 0 else info.index
        row = [number, partition, info.attempt, self._executors[info.executor], int(status), info.launched, finished]
        row += _amounts(metrics) if metrics is not None and status is Status.OK else [UNTOLD] * (len(_WHOLE) - len(row) - 1)
        row.append(_python_ms(info))
        columns = self.log.tasks
        rows = len(columns["stage"])
        try:
            for name, value in zip(_WHOLE, row, strict=True):
                columns[name].append(value)
        except OverflowError:  # no such number was ever measured: the row goes
            for column in columns.values():
                del column[rows:]
            raise

    def _name(self, executor: str, host: str) -> str:
        """The name that an executor keeps: none, unless it was asked for."""
        return f"{host}/{executor}" if self._names else ""

    def _at(self, time: int) -> int:
        """Remember the latest time that was told."""
        if time > self.log.latest:
            self.log.latest = time
        return time


def _amounts(m: ev.TaskMetrics) -> list[int]:
    read, write = m.read or ev.ShuffleRead(), m.write or ev.ShuffleWrite()
    given, made = m.input or ev.Input(), m.output or ev.Output()
    return [
        given.size, read.remote, read.local, write.size, made.size, m.spilled, m.memory, m.run_ms, m.cpu_ns, m.gc_ms, read.wait_ms,
    ]  # fmt: skip


def _python_ms(info: ev.TaskInfo) -> int:
    """Milliseconds that its Python workers ran, where the log says so."""
    found = [m.update for m in getattr(info, "metrics", ()) if m.name == _PYTHON_RUN]
    numbers = [n for n in map(_number, found) if n is not None]
    return sum(numbers) if numbers else UNTOLD


#: operators that run in Python workers (org.apache.spark.sql.execution.python)
_PYTHON = ("EvalPython", "InPandas", "InArrow", "PythonRDD", "PythonMap", "Python")


def _is_python(rdd: ev.Rdd) -> bool:
    if rdd.name == "PythonRDD":
        return True
    if not rdd.scope:
        return False
    try:
        name = ev.SCOPE.decode(rdd.scope).name
    except msgspec.DecodeError:
        return False
    return any(word in name for word in _PYTHON)


def _number(text: object) -> int | None:
    if isinstance(text, bool):
        return None
    if isinstance(text, int):
        return text
    return int(text) if isinstance(text, str) and len(text) < 19 and text.lstrip("-").isdigit() and text.isascii() else None


def _last_marked(numbered: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, bool]]:
    """The same, with whether a line is the last."""
    before: tuple[int, bytes] | None = None
    for item in numbered:
        if before is not None:
            yield *before, False
        before = item
    if before is not None:
        yield *before, True
