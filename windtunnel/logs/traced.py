"""Single tasks with names and times → a job graph: groups of like tasks by depth, their edges, machines, and time that nobody explains.

For readers of systems that know tasks but no stages (Dask, Ray, workflow managers, traces of pipelines). Tasks are grouped by name and
by how many tasks lie before them; where the log does not say what they waited for, `windtunnel.logs.inferring` concludes it from times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from windtunnel.errors import InputError
from windtunnel.logs.gaps import held_back, idle_spans, most_at_once
from windtunnel.logs.inferring import infer_inputs
from windtunnel.spec.jobgraph import Array, Group, GroupInput, JobGraph, Language, Machine, Status, row_order, task_table

#: a time without any task that long, and longer than most tasks, parts what one call asked for from what the next one did
PAUSE_S = 0.1


@dataclass(slots=True)
class Traced:
    """A task. ``parents``: numbers of the tasks it waited for (None: not told). ``lane``: the thread or process that ran it on ``node``.

    ``split``: columns of the task table that are known, seconds and bytes by name.
    """

    name: str
    start_s: float
    end_s: float
    node: str = ""
    lane: str = ""
    parents: Sequence[int] | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    status: Status = Status.OK
    split: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Groups:
    """Which group each task is in; name, part of the job and level of each group."""

    of: Array
    keys: list[tuple[int, int, str]]


def traced_graph(
    tasks: Sequence[Traced],
    *,
    name: str,
    system: str,
    version: str = "",
    machines: Sequence[Machine] = (),
    language: Language = "python",
    end_s: float | None = None,
    timed: bool = True,
    settings: tuple[tuple[str, str], ...] = (),
    notes: Sequence[str] = (),
    names: bool = False,
) -> JobGraph:
    """The graph of these tasks; nodes become machines in order, unless ``machines`` (by name) are given.

    ``timed`` False: only durations were recorded, and starts are as early as parents allow. ``names``: machines keep the names of their
    nodes. Raises InputError where there is no task, or tasks wait for each other in a circle.
    """
    if not tasks:
        raise InputError(f"{name}: holds no task that ended, so that there is nothing to replay")
    known = all(t.parents is not None for t in tasks)
    start = np.array([t.start_s for t in tasks])
    end = np.array([t.end_s for t in tasks])
    origin = float(start.min()) if timed else 0.0
    start, end = start - origin, end - origin
    parts = _parts(start, end) if timed else np.zeros(len(tasks), dtype=np.int64)
    groups = _by_level(tasks, parts, name) if known else _by_name(tasks, parts, start)
    machines, node_of = _machines(tasks, start, end, machines, timed, names)
    columns = {"group": groups.of, "partition": _partitions(groups.of, start), "node": node_of, "start_s": start, "end_s": end}
    columns |= {"status": np.array([int(t.status) for t in tasks])} | _splits(tasks)
    order = row_order(columns)
    table = task_table(columns, order)
    place = np.empty(len(tasks), dtype=np.int64)
    place[order] = np.arange(len(tasks))
    if known:
        edges = _edges(tasks, place)
        inputs = _listed(edges, table, len(groups.keys))
    else:
        edges, inputs = infer_inputs(table, [part for part, _, _ in groups.keys])
    inputs, edges = _simplified(inputs, edges, table)
    inputs = _after_pauses(groups, inputs)
    made = _groups(tasks, groups, inputs, table, machines, order, language, timed)
    more = [] if known else ["who waited for whom is concluded from times, since the log does not tell"]
    return JobGraph(
        name=name, system=system, version=version, groups=made, tasks=table, edges=edges, machines=tuple(machines),
        end_s=float(end.max()) if end_s is None else end_s, settings=settings, inferred=not known, timed=timed, notes=(*notes, *more),
    )  # fmt: skip


# -- groups -----------------------------------------------------------------------------------------------------------


def _parts(start: Array, end: Array) -> Array:
    """The part of the job that each task is in: parts are pauses apart."""
    pauses = idle_spans(start, end, max(PAUSE_S, float(np.median(end - start))))
    return np.searchsorted([begin for begin, _ in pauses], start, "left")


def _by_name(tasks: Sequence[Traced], parts: Array, start: Array) -> _Groups:
    """Groups by part and name, in the order of their first tasks."""
    keys = [(int(p), 0, t.name) for t, p in zip(tasks, parts, strict=True)]
    first: dict[tuple[int, int, str], float] = {}
    for key, at in zip(keys, start.tolist(), strict=True):
        first[key] = min(first.get(key, at), at)
    ordered = sorted(first, key=lambda k: (k[0], first[k], k[2]))
    number = {key: i for i, key in enumerate(ordered)}
    return _Groups(np.array([number[k] for k in keys]), ordered)


def _by_level(tasks: Sequence[Traced], parts: Array, name: str) -> _Groups:
    """Groups by part, by how many tasks lie before, and by name."""
    later, levels = _levels(tasks, parts.tolist(), name)
    keys = [(part, level, t.name) for t, part, level in zip(tasks, later, levels, strict=True)]
    ordered = sorted(dict.fromkeys(keys), key=lambda k: k[:2])
    number = {key: i for i, key in enumerate(ordered)}
    return _Groups(np.array([number[k] for k in keys]), ordered)


def _levels(tasks: Sequence[Traced], parts: list[int], name: str) -> tuple[list[int], list[int]]:
    """The part of each task, never before that of a parent, and how many tasks lie before it."""
    children: list[list[int]] = [[] for _ in tasks]
    waits = [0] * len(tasks)
    for i, task in enumerate(tasks):
        for parent in task.parents or ():
            children[parent].append(i)
            waits[i] += 1
    level = [0] * len(tasks)
    ready = deque(i for i, n in enumerate(waits) if not n)
    done = 0
    while ready:
        i = ready.popleft()
        done += 1
        for child in children[i]:
            level[child] = max(level[child], level[i] + 1)
            parts[child] = max(parts[child], parts[i])
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    if done < len(tasks):
        stuck = next(t.name for t, n in zip(tasks, waits, strict=True) if n)
        raise InputError(f"{name}: {len(tasks) - done} tasks wait for each other in a circle, {stuck!r} among them")
    return parts, level


def _partitions(group: Array, start: Array) -> Array:
    """Tasks of a group, numbered in the order of their starts."""
    order = np.lexsort((start, group))
    sorted_groups = group[order]
    first = np.searchsorted(sorted_groups, sorted_groups)
    found = np.empty(len(group), dtype=np.int64)
    found[order] = np.arange(len(group)) - first
    return found


def _splits(tasks: Sequence[Traced]) -> dict[str, Array]:
    names = sorted({name for t in tasks for name in t.split})
    return {n: np.array([t.split.get(n, np.nan) for t in tasks]) for n in names}


# -- edges ------------------------------------------------------------------------------------------------------------


def _edges(tasks: Sequence[Traced], place: Array) -> Array:
    pairs = [(i, p) for i, t in enumerate(tasks) for p in t.parents or ()]
    if not pairs:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(place[np.array(pairs, dtype=np.int64)], axis=0)


def _listed(edges: Array, table: Mapping[str, Array], groups: int) -> list[list[GroupInput]]:
    inputs: list[list[GroupInput]] = [[] for _ in range(groups)]
    if len(edges):
        pairs = np.unique(table["group"][edges], axis=0)
        for child, parent in pairs.tolist():
            inputs[child].append(GroupInput(group=parent, mode="listed"))
    return inputs


def _simplified(inputs: list[list[GroupInput]], edges: Array, table: Mapping[str, Array]) -> tuple[list[list[GroupInput]], Array]:
    """Listed inputs that are complete, or task by task, said so; their edges are dropped."""
    if not len(edges):
        return inputs, edges
    count = np.bincount(table["group"], minlength=len(inputs))
    child, parent = table["group"][edges[:, 0]], table["group"][edges[:, 1]]
    same = table["partition"][edges[:, 0]] == table["partition"][edges[:, 1]]
    key = child * len(inputs) + parent
    kinds, number, sizes = np.unique(key, return_inverse=True, return_counts=True)
    alike = np.bincount(number, weights=same)
    dropped = np.zeros(len(kinds), dtype=bool)
    modes: dict[tuple[int, int], str] = {}
    for i, (kind, size) in enumerate(zip(kinds.tolist(), sizes.tolist(), strict=True)):
        c, p = divmod(kind, len(inputs))
        if size == count[c] * count[p]:
            modes[c, p], dropped[i] = "all", True
        elif size == alike[i] == count[c] == count[p]:
            modes[c, p], dropped[i] = "same", True
    found = [
        [GroupInput(group=g.group, mode=modes.get((c, g.group), g.mode)) for g in given]  # type: ignore[arg-type]
        for c, given in enumerate(inputs)
    ]
    return found, edges[~dropped[number]]


def _after_pauses(groups: _Groups, inputs: list[list[GroupInput]]) -> list[list[GroupInput]]:
    """What a later call asked for waits for all that the calls before it asked for."""
    by_part: dict[int, list[int]] = {}
    for i, (part, _, _) in enumerate(groups.keys):
        by_part.setdefault(part, []).append(i)
    parts = sorted(by_part)
    for before, after in zip(parts, parts[1:], strict=False):
        read = {g.group for i in by_part[before] for g in inputs[i]}
        ends = [i for i in by_part[before] if i not in read]
        for i in by_part[after]:
            if not any(groups.keys[g.group][0] == after for g in inputs[i]):
                known = {g.group for g in inputs[i]}
                inputs[i] += [GroupInput(group=e, mode="order") for e in ends if e not in known and e < i]
    return inputs


def _groups(
    tasks: Sequence[Traced],
    groups: _Groups,
    inputs: list[list[GroupInput]],
    table: Mapping[str, Array],
    machines: Sequence[Machine],
    order: Array,
    language: Language,
    timed: bool,
) -> tuple[Group, ...]:
    first = np.searchsorted(table["group"], np.arange(len(groups.keys)))
    bounds = [*first.tolist(), len(order)]
    last = np.array([table["end_s"][a:b].max() for a, b in zip(bounds, bounds[1:], strict=False)])
    begun = np.array([table["start_s"][a:b].min() for a, b in zip(bounds, bounds[1:], strict=False)])
    ready = np.array([_ready(given, i, table, bounds, last) for i, given in enumerate(inputs)])
    gaps = held_back(table["start_s"], table["end_s"], machines, ready, begun) if timed else np.zeros(len(ready))
    return tuple(
        Group(
            name=key[2], inputs=tuple(sorted(given, key=lambda g: g.group)), gap_s=float(gap), part=key[0], language=language,
            cpus=tasks[order[row]].cpus, gpus=tasks[order[row]].gpus, submitted_s=float(at),
        )
        for key, given, gap, row, at in zip(groups.keys, inputs, gaps, first.tolist(), ready.tolist(), strict=True)
    )  # fmt: skip


def _ready(inputs: Sequence[GroupInput], group: int, table: Mapping[str, Array], bounds: Sequence[int], last: Array) -> float:
    """When the first task of a group could have begun: all of its inputs were complete, or, task by task, at its own start."""
    whole = [float(last[g.group]) for g in inputs if g.mode in ("all", "order")]
    if any(g.mode in ("same", "listed", "stream") for g in inputs):
        return max([*whole, float(table["start_s"][bounds[group] : bounds[group + 1]].min())])
    return max(whole, default=0.0)


# -- machines ---------------------------------------------------------------------------------------------------------


def _machines(
    tasks: Sequence[Traced], start: Array, end: Array, given: Sequence[Machine], timed: bool, keep: bool
) -> tuple[Sequence[Machine], Array]:
    """The machines, and the number of that of each task. Machines that nobody described have as many slots as tasks at once."""
    if given:
        number = {m.name: i for i, m in enumerate(given)}
        return given, np.array([number.get(t.node, 0) for t in tasks])
    names = list(dict.fromkeys(t.node for t in tasks))
    number = {n: i for i, n in enumerate(names)}
    node_of = np.array([number[t.node] for t in tasks])
    made = []
    for i, name in enumerate(names):
        mine = node_of == i
        lanes = {t.lane for t, m in zip(tasks, mine, strict=True) if m and t.lane}
        slots = most_at_once(start[mine], end[mine]) if timed else 1
        slots = min(slots, len(lanes)) if lanes else slots
        made.append(Machine(name=name if keep else f"node{i}", host=i, slots=slots, cpus=float(slots)))
    return made, node_of
