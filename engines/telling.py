"""What the tasks of a recorded job do where they are run again: their recorded seconds, told for the machine and engine at hand.

Pure arithmetic on the columns of a job graph, for both worlds. A part of a task's time that the log does not tell counts as work on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.engines.physical import Told
from windtunnel.spec.jobgraph import Array, JobGraph, Status
from windtunnel.spec.recorded import task_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How recorded seconds are told. Factors of 1 and everything kept: as it was.

    ``cpu``, ``wait``: what seconds of computing and of waiting become. ``engine``: whether the recorded engine's own doings around
    tasks stay in. ``failures``: whether attempts that did not end well are done again. ``moves``: whether what tasks leave takes part in
    memory, disk and network here; else it is part of recorded waits.
    """

    cpu: float = 1.0
    wait: float = 1.0
    engine: bool = True
    failures: bool = True
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of each task, by number over all groups: waiting, computing (kernels and the engine's own code), the engine's doings."""

    wait_s: Array
    cpu_s: Array
    engine_s: Array
    bytes_out: Array
    counts: tuple[int, ...]


def task_parts(graph: JobGraph, failures: bool = True) -> Parts:
    """What each task's recorded time went on; its attempts are added up, or those that did not end well left out."""
    numbers, tasks = task_numbers(graph), graph.tasks
    total = sum(numbers.counts)
    counted = np.ones(graph.size, dtype=bool) if failures else _well_ended(graph, numbers.place, total)
    length = np.where(counted, graph.duration_s(), 0.0)
    parts = {n: np.where(counted, np.nan_to_num(tasks[n]), 0.0) for n in ("cpu_s", "python_s", "wait_s", "gc_s", "engine_s")}
    told = sum(parts.values(), np.zeros(graph.size))
    untold = np.maximum(length - told, 0.0)
    shrink = np.divide(length, told, out=np.ones(graph.size), where=told > length)  # parts may not exceed the whole

    def summed(values: Array) -> Array:
        return np.bincount(numbers.place, weights=values, minlength=total)

    work = (parts["cpu_s"] + parts["python_s"] + parts["gc_s"]) * shrink + untold
    out = np.nan_to_num(tasks["bytes_out"])
    last = np.zeros(total)
    np.maximum.at(last, numbers.place, np.where(tasks["status"] == int(Status.OK), out, 0.0))
    return Parts(summed(parts["wait_s"] * shrink), summed(work), summed(parts["engine_s"] * shrink), last, numbers.counts)


def _well_ended(graph: JobGraph, place: Array, total: int) -> Array:
    """The first attempt of each task that ended well; where none did, its longest."""
    order = np.lexsort((-graph.duration_s(), graph.tasks["status"] != int(Status.OK), place))
    first = np.searchsorted(place[order], np.arange(total))
    kept = np.zeros(graph.size, dtype=bool)
    kept[order[first]] = True
    return kept


def told_tasks(graph: JobGraph, telling: Telling) -> list[tuple[Told, ...]]:
    """The tasks of each group, by number."""
    parts = task_parts(graph, telling.failures)
    wait = parts.wait_s * telling.wait
    cpu = parts.cpu_s * telling.cpu + (parts.engine_s if telling.engine else 0.0)
    out = parts.bytes_out if telling.moves else np.zeros(len(parts.bytes_out))
    rows = zip(wait.tolist(), cpu.tolist(), np.round(out).astype(np.int64).tolist(), strict=True)
    told = [Told(*row) for row in rows]
    bounds = np.concatenate([[0], np.cumsum(parts.counts)]).tolist()
    return [tuple(told[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
