"""What Flink's REST interface tells of a job: ``/jobs/ID`` and, where they were saved too, ``/jobs/ID/vertices/ID`` of its vertices.

A vertex is a group, its subtasks are tasks. Subtasks of a streaming job run all the time: what they did is their busy time, the rest is
waiting. Names of operators are cut to their first word, since they may hold SQL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import document
from windtunnel.spec.jobgraph import Group, GroupInput, InputMode, JobGraph, Language, Machine, Status, by_group
from windtunnel.spec.strict import one_line

MILLI = 1e-3
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ENDS = {"FINISHED": Status.OK, "RUNNING": Status.UNFINISHED, "CANCELED": Status.KILLED, "CANCELING": Status.KILLED}


class Metrics(Struct):
    """Bytes and milliseconds of a vertex or subtask; NaN where Flink has none."""

    read: float = field(name="read-bytes", default=0)
    written: float = field(name="write-bytes", default=0)
    busy: Any = field(name="accumulated-busy-time", default=None)
    idle: Any = field(name="accumulated-idle-time", default=None)
    held: Any = field(name="accumulated-backpressured-time", default=None)


class Subtask(Struct):
    """One of a vertex's tasks."""

    number: int = field(name="subtask")
    status: str = ""
    host: str = field(name="taskmanager-id", default="")
    start: int = field(name="start-time", default=-1)
    end: int = field(name="end-time", default=-1)
    length: int = field(name="duration", default=-1)
    metrics: Metrics = field(default_factory=Metrics)


class Vertex(Struct):
    """A vertex of a job; alone in a file it has its subtasks."""

    id: str
    name: str = ""
    parallelism: int = 1
    status: str = ""
    start: int = field(name="start-time", default=-1)
    end: int = field(name="end-time", default=-1)
    length: int = field(name="duration", default=-1)
    metrics: Metrics = field(default_factory=Metrics)
    subtasks: list[Subtask] = field(default_factory=list)


class PlanInput(Struct):
    """An edge of the plan."""

    id: str
    exchange: str = ""
    strategy: str = field(name="ship_strategy", default="")


class PlanNode(Struct):
    """A vertex in the plan."""

    id: str
    inputs: list[PlanInput] = field(default_factory=list)


class Plan(Struct):
    """The job's plan."""

    nodes: list[PlanNode] = field(default_factory=list)


class FlinkJob(Struct):
    """A job."""

    id: str = field(name="jid")
    vertices: list[Vertex]
    start: int = field(name="start-time", default=-1)
    end: int = field(name="end-time", default=-1)
    plan: Plan = field(default_factory=Plan)


_COLUMNS = (
    "group", "partition", "node", "status", "start_s", "end_s", "cpu_s", "python_s", "wait_s", "bytes_fetched", "bytes_out",
)  # fmt: skip
_JOB: Any = msgspec.json.Decoder(FlinkJob)
_VERTEX: Any = msgspec.json.Decoder(Vertex)


def is_job(head: bytes) -> bool:
    """Whether a document that begins so is a job of Flink."""
    return b'"jid"' in head and b'"vertices"' in head


def is_vertex(head: bytes) -> bool:
    """Whether a document that begins so is a vertex of one."""
    return b'"subtasks"' in head and b'"parallelism"' in head


def read_flink(path: Path, vertices: Sequence[Path] = ()) -> JobGraph:
    """The job graph of a job, with the subtasks of those vertices that are given."""
    job = _decode(path, _JOB, "job")
    known: dict[str, Vertex] = {}
    for file in vertices:
        vertex = _decode(file, _VERTEX, "vertex")
        if vertex.id not in {v.id for v in job.vertices}:
            raise InputError(f"{file} is a vertex of another job than {path}")
        known[vertex.id] = vertex
    ordered, inputs = _ordered(job, path)
    begin = min((v.start for v in ordered if v.start >= 0), default=-1)
    if begin < 0:
        raise InputError(f"{path} holds no vertex that began, so that there is nothing to replay")
    return _graph(job, ordered, inputs, known, begin, path)


def _decode(path: Path, decoder: Any, what: str) -> Any:
    try:
        return decoder.decode(document(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no {what} of Flink's REST interface: {one_line(str(error))}") from error


def _ordered(job: FlinkJob, path: Path) -> tuple[list[Vertex], dict[str, list[PlanInput]]]:
    """Vertices after their inputs. Raises InputError for a plan that goes round in circles."""
    inputs = {n.id: n.inputs for n in job.plan.nodes}
    left = {v.id: v for v in job.vertices}
    done: dict[str, Vertex] = {}
    while left:
        ready = [v for v in left.values() if all(i.id in done or i.id not in left for i in inputs.get(v.id, ()))]
        if not ready:
            raise InputError(f"{path}: its plan goes round in a circle")
        for vertex in ready:
            done[vertex.id] = left.pop(vertex.id)
    return list(done.values()), inputs


def _graph(
    job: FlinkJob,
    ordered: list[Vertex],
    inputs: Mapping[str, list[PlanInput]],
    known: Mapping[str, Vertex],
    begin: int,
    path: Path,
) -> JobGraph:
    number = {v.id: i for i, v in enumerate(ordered)}
    hosts: dict[str, int] = {}
    latest = max(job.end, *(v.end for v in ordered), *(v.start for v in ordered))
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    groups = []
    notes: list[str] = []
    for i, vertex in enumerate(ordered):
        subtasks = known[vertex.id].subtasks if vertex.id in known else _alike(vertex)
        python = _is_python(vertex.name)
        groups.append(_group(vertex, inputs.get(vertex.id, []), number, python))
        for task in subtasks:
            if task.start >= begin:
                row = _row(i, task, hosts, begin, latest, python)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    if lacking := [v for v in ordered if v.id not in known]:
        notes.append(f"of {len(lacking)} vertices only sums were given; their subtasks count as alike")
    slots = max((v.parallelism for v in ordered), default=1)
    machines = tuple(Machine(name=f"node{i}", host=i, slots=slots, cpus=float(slots)) for i in range(max(1, len(hosts))))
    return JobGraph(
        name=path.name, system="flink", groups=tuple(groups), tasks=by_group(columns), machines=machines,
        end_s=max(0.0, (latest - begin) * MILLI), notes=tuple(notes),
    )  # fmt: skip


def _alike(vertex: Vertex) -> list[Subtask]:
    """Subtasks of a vertex of which only sums are known."""
    count = min(max(1, vertex.parallelism), 1 << 15)  # the most that Flink allows
    whole = vertex.metrics
    shares = [n / count if n is not None else None for n in map(_number, (whole.busy, whole.idle, whole.held))]
    metrics = Metrics(whole.read / count, whole.written / count, *shares)
    return [Subtask(i, vertex.status, "", vertex.start, vertex.end, vertex.length, metrics) for i in range(count)]


def _row(group: int, task: Subtask, hosts: dict[str, int], begin: int, latest: int, python: bool) -> tuple[float, ...]:
    end = task.end if task.end >= task.start else task.start + task.length if task.length > 0 else max(latest, task.start)
    length = (end - task.start) * MILLI
    busy = _number(task.metrics.busy)
    worked = length if busy is None else min(busy * MILLI, length)
    node = hosts.setdefault(task.host, len(hosts))
    status = int(_ENDS.get(task.status, Status.FAILED))
    spent = (0.0, worked) if python else (worked, 0.0)
    start = (task.start - begin) * MILLI
    sizes = (max(0.0, task.metrics.read), max(0.0, task.metrics.written))
    return (group, task.number, node, status, start, start + length, *spent, length - worked, *sizes)


def _group(vertex: Vertex, inputs: Sequence[PlanInput], number: Mapping[str, int], python: bool) -> Group:
    given = [GroupInput(group=number[i.id], mode=_mode(i)) for i in inputs if i.id in number]
    words = _WORD.search(vertex.name)
    language: Language = "python" if python else "native"
    return Group(name=words.group(0) if words else "vertex", inputs=tuple(given), language=language)


def _mode(given: PlanInput) -> InputMode:
    return "all" if given.exchange.startswith("blocking") else "stream"


def _is_python(name: str) -> bool:
    return "python" in name.lower() or "pandas" in name.lower()


def _number(value: object) -> float | None:
    """A number of milliseconds; Flink writes "NaN" where it has none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e15 else None
