"""A recorded job as a workload: an operator a group of its tasks, and the numbers under which engines know those tasks.

A job graph counts tasks as its log did: partitions of a stage, attempts of each. Engines run tasks numbered from 0, in the order in which
they first began; a task's failed attempts are part of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import WrongResult
from windtunnel.spec.jobgraph import Array, JobGraph
from windtunnel.spec.plan import Operator, Pipeline, Recorded, Resources
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, Oracle, Workload

NO_TABLES = "windtunnel.scenario:no_tables"
CHECK_TASKS = "windtunnel.spec.recorded:check_tasks"


@dataclass(frozen=True, slots=True)
class Numbers:
    """For each row of a graph's task table, the number of its task within its group; for each group, how many tasks it has.

    ``place``: the same number counted over all groups, one group after the other.
    """

    of_row: Array
    place: Array
    counts: tuple[int, ...]

    def first(self, group: int) -> int:
        """Where a group's tasks begin among all."""
        return sum(self.counts[:group])


def task_numbers(graph: JobGraph) -> Numbers:
    """Number the tasks of each group by their first start, ties by partition."""
    group, partition, start = graph.tasks["group"], graph.tasks["partition"], graph.tasks["start_s"]
    new = np.ones(graph.size, dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (partition[1:] != partition[:-1])
    first = np.flatnonzero(new)
    task = np.cumsum(new) - 1  # of each row, counted over all groups
    begun = np.minimum.reduceat(start, first)
    order = np.lexsort((partition[first], begun, group[first]))
    counts = np.bincount(group[first], minlength=len(graph.groups))
    before = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(first), dtype=np.int64)
    place[order] = np.arange(len(first))
    return Numbers((place - before)[task], place[task], tuple(counts.tolist()))


def graph_workload(graph: JobGraph, name: str | None = None) -> Workload:
    """The workload that runs a recorded job."""
    counts = task_numbers(graph).counts
    seen = Counter(g.name for g in graph.groups)
    names = [g.name if seen[g.name] == 1 else f"{g.name} ({i})" for i, g in enumerate(graph.groups)]
    operators = tuple(
        Operator(
            name=names[i],
            kind="task",
            kernel=Recorded(group=i, tasks=counts[i]),
            inputs=tuple(dict.fromkeys(names[given.group] for given in group.inputs)),
            resources=Resources(cpus=group.cpus, gpus=group.gpus),
            language="python" if group.language == "python" else "native",
        )
        for i, group in enumerate(graph.groups)
    )
    return Workload(
        name=name or graph.name,
        kind="recorded",
        pipeline=Pipeline(operators),
        dataset=DatasetSpec(name="recorded", generator=NO_TABLES, partitions=1),
        graph=graph,
        oracle=Oracle(check=CHECK_TASKS),
        description=f"{sum(counts)} tasks recorded on {graph.system}",
    )


def check_tasks(bound: BoundWorkload, table: object) -> None:
    """Oracle of recorded jobs: every task that nobody reads leaves a row."""
    graph = bound.workload.graph
    assert graph is not None
    read = {i.group for g in graph.groups for i in g.inputs if i.mode != "order"}
    counts = task_numbers(graph).counts
    expected = sum(n for i, n in enumerate(counts) if i not in read)
    found = getattr(table, "num_rows", None)
    if found != expected:
        raise WrongResult(
            f"{bound.workload.name!r} made {found} rows; the tasks of its job graph that nobody reads are {expected}"
        )
