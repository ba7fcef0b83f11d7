"""What a recorded job says of itself: how its slots' time was spent, when nothing ran, what was lost. Pure functions of a job graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.spec.jobgraph import PARTS, Array, JobGraph, Status

#: column of the task table → what it is called
PART_NAMES = {
    "cpu_s": "engine's code", "python_s": "Python kernels", "wait_s": "waiting for disk and network", "gc_s": "garbage collection",
    "engine_s": "delivery and results", "untold_s": "not told",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A job in numbers: seconds from its first submission to its end, of tasks by what they went on, and without any task.

    ``tasks``: each counted once; ``attempts``: those that did not end well, by status. ``busy``: share of the slots' time that tasks held.
    None: the log does not tell.
    """

    window_s: float
    before_s: float
    task_s: float
    parts_s: dict[str, float]
    idle_s: float
    busy: float
    slots: int
    tasks: int
    attempts: dict[str, int]
    spilled_bytes: float | None
    fetched_bytes: float | None


def describe_graph(graph: JobGraph) -> Recorded:
    """The numbers of a graph."""
    tasks = graph.tasks
    start, end = tasks["start_s"], np.minimum(tasks["end_s"], graph.end_s)
    length = graph.duration_s()
    parts = {name: float(np.nansum(tasks[name])) for name in PARTS}
    parts["untold_s"] = max(0.0, float(length.sum()) - sum(parts.values()))
    capacity = sum(
        m.slots * max(0.0, min(m.left_s if m.left_s is not None else graph.end_s, graph.end_s) - max(m.joined_s, 0.0))
        for m in graph.machines
    )
    bad = tasks["status"][tasks["status"] != int(Status.OK)]
    names, counts = np.unique(bad, return_counts=True)
    return Recorded(
        window_s=graph.end_s, before_s=graph.before_s, task_s=float(length.sum()), parts_s=parts, idle_s=idle_seconds(graph),
        busy=min(1.0, float(np.maximum(end - start, 0.0).sum()) / capacity) if capacity > 0 else 0.0,
        slots=sum(m.slots for m in graph.machines), tasks=sum(graph.partitions(g) for g in range(len(graph.groups))),
        attempts={Status(int(n)).name.lower(): int(c) for n, c in zip(names, counts, strict=True)},
        spilled_bytes=_told(tasks["bytes_spilled"]), fetched_bytes=_told(tasks["bytes_fetched"]),
    )  # fmt: skip


def _told(column: Array) -> float | None:
    """The sum of a column; None where the log tells nothing of it."""
    return None if np.isnan(column).all() else float(np.nansum(column))


def idle_seconds(graph: JobGraph) -> float:
    """Seconds of the job in which no task ran."""
    order = np.argsort(graph.tasks["start_s"], kind="stable")
    start, end = graph.tasks["start_s"][order], graph.tasks["end_s"][order]
    reached = np.concatenate([[0.0], np.maximum.accumulate(end)])
    gaps = np.maximum(np.append(start, graph.end_s) - reached, 0.0)
    return float(gaps.sum())
