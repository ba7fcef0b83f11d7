"""A recorded job as stages that both worlds run: a stage a group of tasks, with what each waits for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from windtunnel.engines.physical import Program, RecordedTasks, Step, compile_job
from windtunnel.engines.telling import Telling, told_tasks
from windtunnel.model import Job, Stage, StageInput
from windtunnel.spec.jobgraph import Array, Group, JobGraph
from windtunnel.spec.plan import Pipeline, Resources
from windtunnel.spec.recorded import Numbers, task_numbers
from windtunnel.spec.workload import BoundWorkload

Parts = tuple[tuple[int, ...], ...]
#: a recorded job as a workload of its own: what its engine did around tasks is left to the engine at hand, and failures to chance
AS_DECLARED = Telling(engine=False, failures=False, moves=True)


def job_of(bound: BoundWorkload, *, partitions: int, fuse: bool = True, groups: Mapping[str, int] | None = None) -> Job:
    """The physical job of any workload; a recorded one brings its stages, and the other arguments say nothing to it."""
    graph = bound.workload.graph
    if graph is not None:
        return recorded_job(graph, bound.pipeline, AS_DECLARED)
    return compile_job(bound, partitions=partitions, fuse=fuse, groups=groups)


def recorded_job(graph: JobGraph, pipeline: Pipeline, telling: Telling) -> Job:
    """The physical job of a graph whose groups are the operators of ``pipeline``, with the work of its tasks."""
    numbers, told = task_numbers(graph), told_tasks(graph, telling)
    stages = []
    for index, (group, operator) in enumerate(zip(graph.groups, pipeline.operators, strict=True)):
        stage = Stage(
            index=index,
            name=operator.name,
            operators=(operator.name,),
            inputs=_inputs(graph, index, group, numbers),
            partitions=numbers.counts[index],
            resources=Resources(cpus=group.cpus, gpus=group.gpus),
            recorded=True,
            after=tuple(dict.fromkeys(i.group for i in group.inputs if i.mode == "order")),
            delay_s=group.gap_s,
            payload=(Program(steps=(Step(operator=operator.name, phase=RecordedTasks(told=told[index])),)),),
        )
        stages.append(stage)
    return Job(stages=tuple(stages))


def _inputs(graph: JobGraph, index: int, group: Group, numbers: Numbers) -> tuple[StageInput, ...]:
    found = []
    for given in group.inputs:
        if given.mode == "all":
            found.append(StageInput(stage=given.group, mode="whole"))
        elif given.mode != "order":
            found.append(
                StageInput(stage=given.group, mode="listed", parts=_parts(graph, index, given.group, given.mode, numbers))
            )
    return tuple(found)


def _parts(graph: JobGraph, index: int, source: int, mode: str, numbers: Numbers) -> Parts:
    """Which tasks of group ``source`` each task of group ``index`` reads."""
    if mode == "stream":
        return shares(numbers.counts[index], numbers.counts[source])
    pairs = _edges(graph, index, source, numbers) if mode == "listed" else _same(graph, index, source, numbers)
    parts: list[list[int]] = [[] for _ in range(numbers.counts[index])]
    for mine, read in pairs.tolist():
        parts[mine].append(read)
    return tuple(map(tuple, parts))


def shares(readers: int, sources: int) -> Parts:
    """Which of ``sources`` tasks each of ``readers`` tasks reads where output flows on as it comes: an equal share, in order."""
    if sources >= readers:
        cuts = [sources * i // readers for i in range(readers + 1)]
        return tuple(tuple(range(a, b)) for a, b in zip(cuts, cuts[1:], strict=False))
    return tuple((i * sources // readers,) for i in range(readers))


def _same(graph: JobGraph, index: int, source: int, numbers: Numbers) -> Array:
    """Pairs (task, task that it reads) with equal partitions."""
    partition, mine, theirs = graph.tasks["partition"], graph.rows(index), graph.rows(source)
    known = dict(zip(partition[theirs].tolist(), numbers.of_row[theirs].tolist(), strict=True))
    pairs = dict(zip(partition[mine].tolist(), numbers.of_row[mine].tolist(), strict=True))
    return np.array([(task, known[p]) for p, task in pairs.items() if p in known], dtype=np.int64).reshape(-1, 2)


def _edges(graph: JobGraph, index: int, source: int, numbers: Numbers) -> Array:
    """Pairs (task, task that it reads) of the graph's edges, each once."""
    mine, theirs = graph.rows(index), graph.rows(source)
    child, parent = graph.edges[:, 0], graph.edges[:, 1]
    kept = (child >= mine.start) & (child < mine.stop) & (parent >= theirs.start) & (parent < theirs.stop)
    return np.asarray(np.unique(numbers.of_row[graph.edges[kept]], axis=0))
