"""What Ray writes about its tasks: the timeline (a Chrome trace), and what a Dataset says of itself (text, or its metrics as JSON).

A timeline tells when each task ran in which worker, not what it waited for. Tasks of Ray's own actors (statistics, autoscaling) are left
out. A Dataset tells its operators in order with the least, mean and most seconds of a task: tasks are spread evenly between those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import document
from windtunnel.logs.traced import Traced, traced_graph
from windtunnel.spec.jobgraph import Group, GroupInput, JobGraph, Machine, by_group
from windtunnel.spec.strict import one_line

_OWN = re.compile(r"(^|[:.])_[A-Za-z]")  # actors and functions of Ray itself begin with an underscore
_ARGUMENTS = re.compile(r"\(.*$", re.DOTALL)
_PARTS = {"task:deserialize_arguments": "wait_s", "task:execute": "python_s", "task:store_outputs": "engine_s"}
MICRO = 1e-6


class TraceArgs(Struct):
    """What windtunnel adds to the events of a timeline that it keeps."""

    task_id: str | None = None
    dependencies: list[str] | None = None


class TraceEvent(Struct):
    """An event of a timeline: microseconds."""

    category: str = field(name="cat", default="")
    phase: str = field(name="ph", default="X")
    name: str = ""
    process: str | int = field(name="pid", default="")
    thread: str | int = field(name="tid", default="")
    at: float = field(name="ts", default=0.0)
    length: float = field(name="dur", default=0.0)
    arguments: TraceArgs | None = field(name="args", default=None)


_EVENTS: Any = msgspec.json.Decoder(list[TraceEvent])


def is_timeline(head: bytes) -> bool:
    """Whether a document that begins so is a timeline of Ray."""
    return head.lstrip()[:1] == b"[" and b'"cat"' in head and (b'"task:' in head or b'"tid": "worker:' in head)


def read_timeline(path: Path, names: bool = False) -> JobGraph:
    """The job graph of ``ray timeline``; ``names``: machines keep the addresses of their nodes."""
    try:
        events: list[TraceEvent] = _EVENTS.decode(document(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no timeline of Ray: {one_line(str(error))}") from error
    sane = [e for e in events if e.phase == "X" and abs(e.at) < 1e18 and 0 <= e.length < 1e15]
    whole = [e for e in sane if e.category.startswith("task::")]
    mine = [e for e in whole if not _OWN.search(e.category[6:])]
    inner: dict[str, list[TraceEvent]] = {}
    for event in sane:
        if event.category in _PARTS:
            inner.setdefault(str(event.thread), []).append(event)
    for parts in inner.values():
        parts.sort(key=lambda e: e.at)
    notes = [f"{len(whole) - len(mine)} task(s) of Ray's own actors are left out"] if len(mine) < len(whole) else []
    if odd := len(events) - len(sane):
        notes.append(f"{odd} event(s) have no possible time; they are left aside")
    return traced_graph(_timeline_tasks(mine, inner), name=path.name, system="ray", notes=notes, names=names)


def _timeline_tasks(events: Sequence[TraceEvent], inner: dict[str, list[TraceEvent]]) -> list[Traced]:
    ids = [e.arguments.task_id if e.arguments else None for e in events]
    number = {task: i for i, task in enumerate(ids) if task}
    known = any(e.arguments is not None and e.arguments.dependencies is not None for e in events)
    tasks = []
    for event in events:
        given = event.arguments.dependencies if event.arguments else None
        parents = [number[d] for d in given or () if d in number] if known else None
        name = _ARGUMENTS.sub("", event.category[6:])[:120] or "task"
        start, end = event.at * MICRO, (event.at + event.length) * MICRO
        split = _split(event, inner.get(str(event.thread), []))
        tasks.append(Traced(name, start, end, str(event.process), str(event.thread), parents, split=split))
    return tasks


def _split(event: TraceEvent, parts: Sequence[TraceEvent]) -> dict[str, float]:
    """How its time was spent: arguments, kernel, results. Parts of a worker are in order of time, one task after the other."""
    import bisect

    split = {"wait_s": 0.0, "python_s": 0.0, "engine_s": 0.0, "cpu_s": 0.0}
    begin = bisect.bisect_left(parts, event.at, key=lambda e: e.at)
    left = event.length * MICRO
    for part in parts[begin : begin + len(_PARTS)]:
        if part.at < event.at + event.length:
            seconds = min(part.length * MICRO, left)
            split[_PARTS[part.category]] += seconds
            left -= seconds
    split["engine_s"] += max(0.0, left)
    return split


# -- what a Dataset says of itself ------------------------------------------------------------------------------------

_OPERATOR = re.compile(
    r"^\s*(?:Operator|Stage|Suboperator) (\d+) (.{1,400}?): (\d{1,9})(?:/\d+)? (?:tasks|blocks) executed"
    r".*?(?: in ([0-9.]+ ?[a-zµ]+))?$"
)
_MEASURE = re.compile(r"^\s*\* (Remote wall time|Remote cpu time|Output size bytes per block|Peak heap memory usage[^:]*): (.*)$")
_FIGURE = re.compile(r"([0-9.]+)\s?([a-zA-Zµ]*)\s(min|max|mean|total)")
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "ns": 1e-9, "": 1.0}


@dataclass(slots=True)
class _Operator:
    name: str
    tasks: int
    seconds: float | None
    figures: dict[str, dict[str, float]]


def is_stats(head: bytes) -> bool:
    """Whether a text that begins so is ``Dataset.stats()``."""
    return re.search(rb"(Operator|Stage) \d+ .*(tasks|blocks) executed", head[:8192]) is not None


def read_stats(path: Path) -> JobGraph:
    """The job graph of ``Dataset.stats()``: a group an operator, one after the other."""
    operators = _operators(document(path).decode("utf-8", "replace"))
    if not operators:
        raise InputError(f"{path} names no operator that executed a task: it is no output of Dataset.stats()")
    return _stats_graph(operators, path.name)


def _operators(text: str) -> list[_Operator]:
    found: list[_Operator] = []
    for line in text.splitlines():
        if len(line) > 2000:
            continue
        if head := _OPERATOR.match(line):
            name = _ARGUMENTS.sub("", head.group(2)).strip() or "task"
            found.append(_Operator(name, int(head.group(3)), _quantity(head.group(4)), {}))
        elif found and (measure := _MEASURE.match(line)):
            figures = {which: _number(n) * _UNITS.get(unit, 1.0) for n, unit, which in _FIGURE.findall(measure.group(2))}
            found[-1].figures.setdefault(measure.group(1), figures)
    return [o for o in found if 0 < o.tasks <= 1_000_000]


def _quantity(text: str | None) -> float | None:
    match = re.fullmatch(r"([0-9.]+)\s?([a-zµ]+)", text or "")
    return _number(match.group(1)) * _UNITS.get(match.group(2), 1.0) if match else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def spread(count: int, least: float, mean: float, most: float) -> list[float]:
    """``count`` numbers from ``least`` to ``most`` whose mean is ``mean``: most near the least, few near the most."""
    if count == 1 or not least < mean < most:
        return [mean] * count
    power = (most - mean) / (
        mean - least
    )  # the mean of least + (most - least) * u ** power is least + (most - least) / (power + 1)
    values = [least + (most - least) * ((i + 0.5) / count) ** power for i in range(count)]
    factor = mean * count / sum(values)
    return [v * factor for v in values]


def _stats_graph(operators: Sequence[_Operator], name: str) -> JobGraph:
    columns: dict[str, list[float]] = {
        n: [] for n in ("group", "partition", "start_s", "end_s", "python_s", "wait_s", "bytes_out", "memory_bytes")
    }
    slots = 1
    begin = 0.0
    for number, operator in enumerate(operators):
        wall, cpu = operator.figures.get("Remote wall time", {}), operator.figures.get("Remote cpu time", {})
        seconds = spread(operator.tasks, wall.get("min", 0.0), wall.get("mean", 0.0), wall.get("max", 0.0))
        busy = min(1.0, cpu["mean"] / wall["mean"]) if wall.get("mean") and "mean" in cpu else 1.0
        size = operator.figures.get("Output size bytes per block", {})
        at_once = max(1, round(sum(seconds) / operator.seconds)) if operator.seconds else 1
        slots = max(slots, min(at_once, operator.tasks))
        ends = [begin] * max(1, min(at_once, operator.tasks))
        for partition, length in enumerate(seconds):
            lane = min(range(len(ends)), key=ends.__getitem__) if len(ends) <= 64 else partition % len(ends)
            start, ends[lane] = ends[lane], ends[lane] + length
            row = (
                number,
                partition,
                start,
                start + length,
                busy * length,
                (1 - busy) * length,
                size.get("mean", float("nan")),
                float("nan"),
            )
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        begin = max(ends)
    groups = tuple(
        Group(name=o.name, inputs=(GroupInput(group=i - 1, mode="stream"),) if i else (), language="python")
        for i, o in enumerate(operators)
    )
    notes = ("the least, mean and most seconds of an operator's tasks were recorded, not each; they are spread evenly between",
             "operators follow each other in the order of the text; what ran at the same time is not told")  # fmt: skip
    machine = Machine(name="node0", slots=slots, cpus=float(slots))
    return JobGraph(
        name=name, system="ray", groups=groups, tasks=by_group(columns), machines=(machine,), end_s=begin, inferred=True, notes=notes
    )  # fmt: skip
