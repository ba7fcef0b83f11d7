"""A job as it was recorded: groups of like tasks, who waited for whom, what each task did, and the machines that ran them.

Every reader of logs (`windtunnel.logs`) ends in a `JobGraph`; scenarios name one, both worlds run one, reports explain one. The
module owns the form and its rules. It knows no log format and no clock: seconds count from the beginning of the job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np

from windtunnel.errors import InputError
from windtunnel.spec.canonical import digest

Array = np.ndarray[Any, np.dtype[Any]]
#: how a group of tasks waits for another: ``all`` reads the output of all its tasks (a shuffle, a broadcast); ``same``: task i reads
#: that of task i; ``listed``: `JobGraph.edges` says task by task; ``order`` reads nothing and only begins later; ``stream`` runs at the
#: same time and takes output as it comes
InputMode = Literal["all", "same", "listed", "order", "stream"]
Language = Literal["native", "python", "unknown"]
MODES: tuple[InputMode, ...] = ("all", "same", "listed", "order", "stream")
LANGUAGES: tuple[Language, ...] = ("native", "python", "unknown")


class Status(IntEnum):
    """How an attempt of a task ended. ``LOST``: its input or its executor was gone; ``UNFINISHED``: the log ends before it."""

    OK = 0
    FAILED = 1
    KILLED = 2
    LOST = 3
    UNFINISHED = 4


#: columns of a task table: whole numbers
WHOLE = ("group", "partition", "attempt", "node", "status")
#: seconds: when it held its slot, and how that time was spent: by the engine's own code on a CPU, by Python kernels on a CPU, waiting for
#: disk or network, collecting garbage, and on the engine's doings around it (delivery, deserialisation, result). NaN: the log does not tell
SECONDS = ("start_s", "end_s", "cpu_s", "python_s", "wait_s", "gc_s", "engine_s")
#: bytes: read from outside the job, fetched from tasks on other nodes, fetched from tasks on its own, left for other tasks, written outside
#: the job, spilled; the most memory it held. NaN: the log does not tell
BYTES = ("bytes_read", "bytes_fetched", "bytes_local", "bytes_out", "bytes_written", "bytes_spilled", "memory_bytes")
COLUMNS = (*WHOLE, *SECONDS, *BYTES)
PARTS = ("cpu_s", "python_s", "wait_s", "gc_s", "engine_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInput:
    """The group's tasks wait for those of group ``group``, in one of the `InputMode` ways."""

    group: int
    mode: InputMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tasks alike: a stage of Spark, the tasks of one name and depth elsewhere.

    ``gap_s``: seconds between the end of all that it waits for and its own submission, which no task explains: the driver's time.
    ``part``: the piece of the job that it belongs to (a job of Spark), for telling a job part by part. ``cpus``, ``gpus``: what one of
    its tasks occupies. ``retry``: it does again what was lost.
    """

    name: str
    inputs: tuple[GroupInput, ...] = ()
    gap_s: float = 0.0
    part: int = 0
    language: Language = "unknown"
    cpus: float = 1.0
    gpus: float = 0.0
    submitted_s: float = 0.0
    retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What ran tasks: an executor or worker on host ``host``, from ``joined_s`` to ``left_s`` (None: to the end).

    ``slots``: tasks at once. ``speed``: of its CPUs, 1 = those of the others.
    """

    name: str
    host: int = 0
    slots: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    joined_s: float = 0.0
    left_s: float | None = None
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobGraph:
    """The job. Groups come after those they wait for; rows of ``tasks`` are sorted by group, partition and attempt.

    ``system`` and ``version``: what wrote the log. ``edges``: rows (child, parent) of the task table, for inputs that are ``listed``.
    ``before_s``: from the application's start to the job's. ``settings``: what of its configuration decides how tasks are made.
    ``inferred``: dependencies were concluded from times, since the log names none. ``timed`` False: only durations of tasks were
    recorded; they start as early as what they wait for allows. ``notes``: sentences about what could not be read.
    """

    name: str
    system: str
    version: str = ""
    groups: tuple[Group, ...]
    tasks: Mapping[str, Array]
    edges: Array = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    machines: tuple[Machine, ...]
    end_s: float
    before_s: float = 0.0
    settings: tuple[tuple[str, str], ...] = ()
    inferred: bool = False
    timed: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    @property
    def size(self) -> int:
        """Attempts of tasks, all of them."""
        return len(self.tasks["group"])

    def rows(self, group: int) -> slice:
        """The rows of a group's tasks."""
        first, last = np.searchsorted(self.tasks["group"], (group, group + 1))
        return slice(int(first), int(last))

    def duration_s(self) -> Array:
        """Seconds that each row held its slot."""
        return np.asarray(self.tasks["end_s"] - self.tasks["start_s"])

    def partitions(self, group: int) -> int:
        """Tasks of a group, each counted once however often it was tried."""
        return len(np.unique(self.tasks["partition"][self.rows(group)]))

    def __plain__(self) -> dict[str, object]:
        """What stands for it in a record: its name, size and digest."""
        return {"type": "JobGraph", "name": self.name, "system": self.system, "tasks": self.size, "digest": self.digest()}

    def digest(self) -> str:
        """Hash of all that decides how it runs."""
        arrays = (*map(self.tasks.__getitem__, COLUMNS), self.edges)
        columns = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
        return digest((self.groups, columns, self.machines, self.end_s))


def task_table(columns: Mapping[str, Sequence[float] | Array], order: Array | None = None) -> dict[str, Array]:
    """A complete task table of ``columns``: absent ones are NaN (or 0 for whole numbers). ``order`` sorts the rows."""
    count = len(columns["start_s"])
    table: dict[str, Array] = {}
    for name in COLUMNS:
        kind = np.int64 if name in WHOLE else np.float64
        given = columns.get(name)
        column = np.full(count, 0 if name in WHOLE else np.nan, dtype=kind) if given is None else np.asarray(given, dtype=kind)
        table[name] = column if order is None else column[order]
    return table


def by_group(columns: Mapping[str, Sequence[float] | Array]) -> dict[str, Array]:
    """The same, its rows sorted by group, partition and attempt."""
    return task_table(columns, row_order(columns))


def row_order(columns: Mapping[str, Sequence[float] | Array]) -> Array:
    """The order of rows that a graph wants."""
    count = len(columns["start_s"])
    keys = [np.asarray(columns.get(name, np.zeros(count)), dtype=np.int64) for name in ("attempt", "partition", "group")]
    return np.lexsort(keys)


# -- rules ------------------------------------------------------------------------------------------------------------


def check(graph: JobGraph) -> None:
    """Raise InputError where a graph breaks a rule of its form."""
    _check_shape(graph)
    for index, group in enumerate(graph.groups):
        _check_group(graph, index, group)
    tasks = graph.tasks
    where = f"job graph {graph.name!r}"
    if graph.size and not (tasks["group"].min() >= 0 and tasks["group"].max() < len(graph.groups)):
        raise InputError(
            f"{where}: a task names a group that is not there; groups are numbered from 0 to {len(graph.groups) - 1}"
        )
    if graph.size and not (tasks["node"].min() >= 0 and tasks["node"].max() < len(graph.machines)):
        raise InputError(f"{where}: a task names a machine that is not there; machines are numbered from 0")
    if graph.size > 1:
        keys = np.stack([tasks["group"], tasks["partition"], tasks["attempt"]])
        step = np.diff(keys)
        rising = (step[0] > 0) | ((step[0] == 0) & ((step[1] > 0) | ((step[1] == 0) & (step[2] > 0))))
        if not rising.all():
            raise InputError(f"{where}: rows of tasks must be sorted by group, partition and attempt, each once")
    _check_edges(graph)


def _check_shape(graph: JobGraph) -> None:
    where = f"job graph {graph.name!r}"
    if missing := [name for name in COLUMNS if name not in graph.tasks]:
        raise InputError(f"{where}: the task table lacks {', '.join(missing)}")
    if len({len(graph.tasks[name]) for name in COLUMNS}) != 1:
        raise InputError(f"{where}: columns of the task table must be of one length")
    if not graph.groups or not graph.size:
        raise InputError(f"{where}: holds no task")
    if not graph.machines:
        raise InputError(f"{where}: holds no machine that ran tasks")
    for machine in graph.machines:
        if machine.slots < 1 or not machine.speed > 0:
            raise InputError(f"{where}: machine {machine.name!r} needs a slot and a speed above 0")
    if not (np.isfinite(graph.end_s) and graph.end_s >= 0):
        raise InputError(f"{where}: its end must be a finite number of seconds, not {graph.end_s}")
    starts, ends = graph.tasks["start_s"], graph.tasks["end_s"]
    if not (np.isfinite(starts).all() and np.isfinite(ends).all() and (ends >= starts).all()):
        raise InputError(f"{where}: a task must end after it starts, at finite seconds")
    for name in (*PARTS, *BYTES):
        if (np.asarray(graph.tasks[name]) < 0).any():
            raise InputError(f"{where}: {name} must not be negative")


def _check_group(graph: JobGraph, index: int, group: Group) -> None:
    where = f"job graph {graph.name!r}, group {index} ({group.name!r})"
    for given in group.inputs:
        if given.mode not in MODES:
            raise InputError(f"{where}: {given.mode!r} is no way to wait; known: {', '.join(MODES)}")
        if not 0 <= given.group < index:
            raise InputError(f"{where}: waits for group {given.group}, which does not come before it")
    if not (np.isfinite(group.gap_s) and group.gap_s >= 0 and group.cpus >= 0 and group.gpus >= 0):
        raise InputError(f"{where}: gap_s, cpus and gpus must be finite and not negative")


def _check_edges(graph: JobGraph) -> None:
    edges, tasks = graph.edges, graph.tasks
    where = f"job graph {graph.name!r}"
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise InputError(f"{where}: edges must be pairs of rows (child, parent)")
    if not len(edges):
        return
    if edges.min() < 0 or edges.max() >= graph.size:
        raise InputError(f"{where}: an edge names a row that is not there; rows are numbered from 0 to {graph.size - 1}")
    children, parents = tasks["group"][edges[:, 0]], tasks["group"][edges[:, 1]]
    listed = {(i, given.group) for i, g in enumerate(graph.groups) for given in g.inputs if given.mode == "listed"}
    for pair in zip(*np.unique(np.stack([children, parents]), axis=1).tolist(), strict=True):
        if pair not in listed:
            raise InputError(f"{where}: tasks of group {pair[0]} read from group {pair[1]}, which is not among its listed inputs")
