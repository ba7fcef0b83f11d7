"""A recorded job on its recorded cluster: what the simulator makes of it beside what was measured, part by part.

The model of the engine that wrote the log decides what runs when; durations, machines with their coming and going, and the driver's
time are those of the log. So the error is that of the decisions: who waited for whom, and in which order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.traits import EMBEDDED
from windtunnel.engines.recorded import recorded_job
from windtunnel.engines.telling import Telling
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder
from windtunnel.sim.costs.laws import recorded_law
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, Fault, NodeSpec
from windtunnel.spec.jobgraph import Array, JobGraph
from windtunnel.spec.recorded import graph_workload

#: all that an engine does around tasks is in their recorded time
NOTHING_MORE = EngineCost(
    engine="recorded", launch_s=0.0, done_s=0.0, block_s=0.0, task_s=0.0, fetch_block_s=0.0, emit_block_s=0.0, emit_bytes_per_s=0.0
)  # fmt: skip
#: system that wrote a log → model whose decisions its replay follows, with the options that keep those of the log
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "spark": ("spark", {"adaptive": False, "locality": False}), "dask": ("dask", {}), "ray": ("dask", {"queuing": False}),
    "flink": ("dask", {}),
}  # fmt: skip
OTHERS: tuple[str, dict[str, object]] = ("dask", {})
MEMORY = 1 << 50  # nothing of a replay runs out of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the job: seconds when its first task began and its last one ended, recorded and replayed."""

    number: int
    groups: int
    tasks: int
    recorded: tuple[float, float]
    replayed: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The whole: seconds, the relative error, and its parts in the order of their beginnings. ``windows``: of each group."""

    recorded_s: float
    replayed_s: float
    parts: tuple[Part, ...]
    windows: Array

    @property
    def error(self) -> float:
        """Replayed over recorded, less 1."""
        return self.replayed_s / self.recorded_s - 1.0 if self.recorded_s > 0 else 0.0


def model_of(system: str) -> tuple[ModelEntry, dict[str, object]]:
    """The model whose decisions a replay follows, and its options."""
    name, chosen = MODELS.get(system, OTHERS)
    entry = ENTRIES[name]
    options = {o.name: o.default for o in (*entry.options, *entry.plan_options)}
    return entry, {**options, **chosen}


def slotted(graph: JobGraph) -> JobGraph:
    """The graph with a slot as the only resource: a task takes one, whatever it asked for."""
    groups = tuple(replace(g, cpus=1.0, gpus=0.0) for g in graph.groups)
    machines = tuple(replace(m, cpus=float(m.slots), gpus=0.0) for m in graph.machines)
    return replace(graph, groups=groups, machines=machines)


def recorded_cluster(graph: JobGraph) -> ClusterSpec:
    """A node for each machine with a CPU a slot, from when it joined to when it left."""
    nodes, faults = [], []
    for number, machine in enumerate(graph.machines):
        name = f"m{number}"
        nodes.append(NodeSpec(name=name, cpus=machine.slots, memory_bytes=MEMORY, startup_s=max(0.0, machine.joined_s)))
        if machine.left_s is not None:
            faults.append(Fault(kind="node_leaves", at_s=max(0.0, machine.left_s), target=f"{name}[0]"))
    return ClusterSpec(nodes=tuple(nodes), faults=tuple(faults))


def replay(graph: JobGraph) -> Replay:
    """Simulate the job as it was. Raises RunFailed where what is recorded cannot be done on what is recorded.

    Raises InputError for a graph without times: its end is no measurement, and an error against it would say nothing.
    """
    if not graph.timed:
        raise InputError(
            f"{graph.name} tells how long tasks took but not when they ran, so that there is nothing to compare a replay with"
        )
    entry, options = model_of(graph.system)
    recorder = Recorder()
    one = slotted(graph)
    job = recorded_job(one, graph_workload(one).pipeline, Telling())
    laws = [recorded_law(s) for s in job.stages]
    world = SimWorld(recorded_cluster(one), job, laws, recorder, cost=NOTHING_MORE, spans=True, traits=EMBEDDED)
    world.run(entry.factory(options)())
    windows = group_windows(recorder, [s.name for s in job.stages])
    tail = max(0.0, graph.end_s - float(graph.tasks["end_s"].max()))
    parts = _parts(graph, windows)
    return Replay(recorded_s=graph.end_s, replayed_s=float(np.nanmax(windows[:, 1])) + tail, parts=parts, windows=windows)


def group_windows(recorder: Recorder, names: list[str]) -> Array:
    """For each group, when its first task began and its last one ended; NaN for one without tasks."""
    number = {name: i for i, name in enumerate(names)}
    windows = np.full((len(names), 2), np.nan)
    for kind, operator, _, _, _, start, end, _, _ in recorder.spans:
        if kind in ("compute", "emit") and operator in number:
            row = windows[number[operator]]
            row[0], row[1] = np.fmin(row[0], start), np.fmax(row[1], end)
    return windows


def _parts(graph: JobGraph, windows: Array) -> tuple[Part, ...]:
    numbers = sorted({g.part for g in graph.groups})
    found = []
    for number in numbers:
        mine = [i for i, g in enumerate(graph.groups) if g.part == number]
        rows = np.concatenate([np.arange(s.start, s.stop) for s in map(graph.rows, mine)])
        recorded = float(graph.tasks["start_s"][rows].min()), float(graph.tasks["end_s"][rows].max())
        replayed = float(np.nanmin(windows[mine, 0])), float(np.nanmax(windows[mine, 1]))
        found.append(
            Part(number=number, groups=len(mine), tasks=sum(map(graph.partitions, mine)), recorded=recorded, replayed=replayed)
        )  # fmt: skip
    return tuple(sorted(found, key=lambda p: p.recorded))
