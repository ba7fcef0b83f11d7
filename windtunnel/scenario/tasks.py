"""Tasks of known durations in a scenario: a job graph that it names (``[graph]``), or groups of tasks that it holds (``[[tasks]]``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import InputError
from windtunnel.spec.jobgraph import Group, GroupInput, JobGraph, Machine, by_group
from windtunnel.spec.recorded import graph_workload
from windtunnel.spec.strict import Table, unique
from windtunnel.spec.workload import Objective, Workload

_KEYS = ("name", "count", "seconds", "wait", "after", "reads", "parts", "bytes_out", "cpus", "gpus", "language", "gap")
MOST_TASKS = 10_000_000


def recorded_workload(top: Table, name: str, objective: Objective | None) -> Workload:
    """The workload of a scenario's ``[graph]`` or ``[[tasks]]``."""
    graph = _named(top) if "graph" in top else _held(top, name)
    workload = graph_workload(graph, name)
    return workload if objective is None else replace(workload, objective=objective)


def _named(top: Table) -> JobGraph:
    """The graph in a file whose path is relative to the scenario: a saved one, or any log that can be imported."""
    table = top.table("graph", ("file",))
    path = Path(table.place.file).parent / table.text("file")
    if not os.path.exists(path):
        table.fail("file", f"there is no such file next to the scenario ({path})")
    told = os.stat(path)
    return table.place.key("file").rule(_read, path, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=4)  # a sweep reads the scenario again for each of its points
def _read(path: Path, changed: int, size: int) -> JobGraph:
    from windtunnel.logs.reading import read_graph

    return read_graph(path)


# -- tasks in the scenario itself -------------------------------------------------------------------------------------


def _held(top: Table, name: str) -> JobGraph:
    """The groups of ``[[tasks]]``, each after those that it names."""
    tables = top.tables("tasks", _KEYS)
    unique((t.text("name") for t in tables), top.place.key("tasks"), "name")
    groups: list[Group] = []
    lengths: list[list[tuple[float, float]]] = []
    sizes: list[int] = []
    parts: list[dict[int, list[list[int]]]] = []
    for table in tables:
        known = {g.name: i for i, g in enumerate(groups)}
        lengths.append(_lengths(table))
        if sum(map(len, lengths)) > MOST_TASKS:
            table.fail("count", f"makes more than {MOST_TASKS} tasks")
        sizes.append(table.bytes("bytes_out", 0))
        inputs, listed = _inputs(table, known, lengths)
        parts.append(listed)
        groups.append(
            Group(
                name=table.text("name"), inputs=inputs, gap_s=table.seconds("gap", 0.0), cpus=table.number("cpus", 1.0),
                gpus=table.number("gpus", 0.0), language=table.choice("language", ("python", "native"), "native"),
            )
        )  # fmt: skip
    return _graph(name, groups, lengths, sizes, parts)


def _lengths(table: Table) -> list[tuple[float, float]]:
    """Seconds of each task, and how many of them it waits: one figure for ``count`` tasks alike, or a list."""
    count = table.integer("count", 1, least=1, most=MOST_TASKS)
    seconds, waits = _each(table, "seconds", count), _each(table, "wait", count, "0s")
    if len(waits) == 1 and len(seconds) > 1:
        waits *= len(seconds)
    if len(seconds) != len(waits):
        table.fail("wait", f"must hold one figure, or one for each of the {len(seconds)} tasks")
    if any(w > s for s, w in zip(seconds, waits, strict=True)):
        table.fail("wait", "is a part of seconds, which it must not exceed")
    return list(zip(seconds, waits, strict=True))


def _each(table: Table, key: str, count: int, default: str | None = None) -> list[float]:
    given: Any = table.get(key, default) if default is not None else table.raw(key)
    if not isinstance(given, list):
        return [Table({key: given}, table.place, (key,)).seconds(key)] * count
    if "count" in table and len(given) != count:
        table.fail(key, f"must hold one figure, or one for each of the {count} tasks")
    if not given:
        table.fail(key, "must hold a figure for each task")
    place = table.place.key(key)
    return [Table({str(i): v}, place, (str(i),)).seconds(str(i)) for i, v in enumerate(given)]


def _inputs(
    table: Table, known: dict[str, int], lengths: Sequence[Sequence[object]]
) -> tuple[tuple[GroupInput, ...], dict[int, list[list[int]]]]:
    """``after``: groups that must have ended; ``reads``: groups whose output is read, whole, or by ``parts`` task by task."""
    found: list[GroupInput] = []
    listed: dict[int, list[list[int]]] = {}
    given = table.get("parts", {})
    if not isinstance(given, dict):
        table.fail("parts", "must be a table: a group that is read = for each task here, a list of the tasks there that it reads")
    reads = _names(table, "reads")
    if strange := [name for name in given if name not in reads]:
        table.fail("parts", f"names {strange[0]!r}, which reads does not name")
    for key in ("after", "reads"):
        for other in _names(table, key):
            if other not in known:
                table.fail(key, f"names {other!r}, which is no earlier group of tasks; earlier: {', '.join(known) or 'none'}")
            if any(i.group == known[other] for i in found):
                table.fail(key, f"names {other!r} twice")
            rows = _parts(table, other, given[other], len(lengths[-1]), len(lengths[known[other]])) if other in given else None
            mode = "order" if key == "after" else "all" if rows is None else "listed"
            found.append(GroupInput(group=known[other], mode=mode))  # type: ignore[arg-type]
            if rows is not None:
                listed[known[other]] = rows
    return tuple(sorted(found, key=lambda i: i.group)), listed


def _names(table: Table, key: str) -> list[str]:
    given = table.get(key, [])
    if not isinstance(given, list) or not all(isinstance(n, str) for n in given):
        table.fail(key, "must be a list of names of earlier groups of tasks")
    return given


def _parts(table: Table, other: str, rows: Any, mine: int, theirs: int) -> list[list[int]]:
    """Which tasks of ``other`` each task reads."""
    sane = isinstance(rows, list) and len(rows) == mine and all(isinstance(r, list) for r in rows)
    if not sane or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < theirs for r in rows for n in r):
        table.fail("parts", f"must hold for {other!r} {mine} lists of numbers from 0 to {theirs - 1}, one for each task here")
    return [list(r) for r in rows]


def _graph(
    name: str,
    groups: list[Group],
    lengths: list[list[tuple[float, float]]],
    sizes: list[int],
    parts: list[dict[int, list[list[int]]]],
) -> JobGraph:
    counts = [len(g) for g in lengths]
    first = np.concatenate([[0], np.cumsum(counts)]).tolist()
    seconds = np.array([s for group in lengths for s, _ in group])
    waits = np.array([w for group in lengths for _, w in group])
    columns = {
        "group": np.repeat(np.arange(len(groups)), counts), "partition": np.concatenate([np.arange(n) for n in counts]),
        "start_s": np.zeros(len(seconds)), "end_s": seconds, "cpu_s": seconds - waits, "wait_s": waits, "python_s": np.zeros(len(seconds)),
        "bytes_out": np.repeat(np.array(sizes, dtype=float), counts),
    }  # fmt: skip
    edges = [
        (first[child] + task, first[source] + read)
        for child, listed in enumerate(parts)
        for source, rows in listed.items()
        for task, reads in enumerate(rows)
        for read in dict.fromkeys(reads)
    ]
    try:
        return JobGraph(
            name=name, system="declared", groups=tuple(groups), tasks=by_group(columns), machines=(Machine(name="none"),),
            edges=np.array(edges, dtype=np.int64).reshape(-1, 2), end_s=float(seconds.max()), timed=False,
        )  # fmt: skip
    except InputError as error:  # what the tables above let pass
        raise InputError(f"[[tasks]]: {error}") from error
