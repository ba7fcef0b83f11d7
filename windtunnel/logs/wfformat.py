"""Executions of workflows in WfFormat (WfCommons 1.0 to 1.5, JSON): tasks with parents and run times, files with sizes, machines.

The format holds no start of a task, only how long it ran and when the whole ended: what the workflow manager added is the difference,
which the model `workflow` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import document
from windtunnel.logs.traced import Traced, traced_graph
from windtunnel.spec.jobgraph import JobGraph, Machine
from windtunnel.spec.strict import one_line

_WORD = re.compile(r"^[A-Za-z0-9_.\-/]{0,80}[A-Za-z0-9_.\-]$")
_NUMBERED = re.compile(r"(_ID)?[_\-.]?\d+$")


class File(Struct):
    """A file; older versions hold it in the task, with ``link`` input or output and ``size``."""

    id: str = ""
    name: str = ""
    size: float = field(name="sizeInBytes", default=0)
    old_size: float = field(name="size", default=0)
    link: str = ""


class Command(Struct):
    """What a task ran; its arguments are not read."""

    program: str | None = None


class TaskSpec(Struct):
    """A task as planned. Until 1.4 it held its run too."""

    name: str = ""
    id: str = ""
    parents: list[str] = field(default_factory=list)
    category: str | None = None
    inputs: list[str] = field(name="inputFiles", default_factory=list)
    outputs: list[str] = field(name="outputFiles", default_factory=list)
    files: list[File] = field(default_factory=list)
    command: Command | None = None
    runtime: float | None = None
    seconds: float | None = field(name="runtimeInSeconds", default=None)
    cores: float | None = None
    core_count: float | None = field(name="coreCount", default=None)
    cpu_share: float | None = field(name="avgCPU", default=None)
    memory: float | None = field(name="memoryInBytes", default=None)
    machine: str | None = None
    machines: list[str] = field(default_factory=list)


class Cpu(Struct):
    """Processors of a machine."""

    cores: float | None = field(name="coreCount", default=None)
    old_cores: float | None = field(name="count", default=None)


class MachineSpec(Struct):
    """A machine that ran tasks; its name is not kept."""

    name: str = field(name="nodeName", default="")
    cpu: Cpu | None = None
    memory: float | None = field(name="memoryInBytes", default=None)


class Specification(Struct):
    """The plan."""

    tasks: list[TaskSpec] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


class Execution(Struct):
    """What happened."""

    makespan: float | None = field(name="makespanInSeconds", default=None)
    tasks: list[TaskSpec] = field(default_factory=list)
    machines: list[MachineSpec] = field(default_factory=list)


class Workflow(Struct):
    """Plan and run; until 1.3 in one place."""

    specification: Specification | None = None
    execution: Execution | None = None
    makespan: float | None = None
    makespan_s: float | None = field(name="makespanInSeconds", default=None)
    tasks: list[TaskSpec] = field(default_factory=list)
    jobs: list[TaskSpec] = field(default_factory=list)
    machines: list[MachineSpec] = field(default_factory=list)


class System(Struct):
    """The workflow manager."""

    name: str = ""
    version: str = ""


class Instance(Struct):
    """A file of the format."""

    workflow: Workflow
    name: str = ""
    schema: str = field(name="schemaVersion", default="")
    system: System | None = field(name="runtimeSystem", default=None)


_DECODER: Any = msgspec.json.Decoder(Instance)


def is_wfformat(head: bytes) -> bool:
    """Whether a document that begins so may be one."""
    return b'"schemaVersion"' in head and b'"workflow"' in head


def read_wfformat(path: Path) -> JobGraph:
    """The job graph of an execution. Raises InputError for a broken file, or one without run times."""
    try:
        instance: Instance = _DECODER.decode(document(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no execution in WfFormat: {one_line(str(error))}") from error
    workflow = instance.workflow
    plan = workflow.specification or Specification(tasks=workflow.tasks or workflow.jobs)
    run = workflow.execution or Execution(tasks=plan.tasks, machines=workflow.machines)
    makespan = next((m for m in (run.makespan, workflow.makespan_s, workflow.makespan) if m), None)
    if makespan is None or not makespan > 0:
        raise InputError(f"{path} holds no makespan above 0: it is the plan of a workflow, not an execution of one")
    tasks, notes = _tasks(plan, run, path)
    machines = _machines(run.machines, tasks)
    system = instance.system or System()
    return traced_graph(
        tasks, name=path.name, system=(system.name or "workflow").lower(), version=system.version, machines=machines,
        language="native", end_s=makespan, timed=False, notes=notes,
    )  # fmt: skip


def _tasks(plan: Specification, run: Execution, path: Path) -> tuple[list[Traced], list[str]]:
    number = {key: i for i, t in enumerate(plan.tasks) for key in (t.id or t.name,)}
    by_name = {t.name: i for i, t in enumerate(plan.tasks)}
    ran = {t.id or t.name: t for t in run.tasks}
    sizes = {f.id or f.name: f.size or f.old_size for f in plan.files}
    parents = [[found for p in t.parents if (found := number.get(p, by_name.get(p))) is not None] for t in plan.tasks]
    seconds = [_seconds(ran.get(t.id or t.name, t)) for t in plan.tasks]
    untimed = sum(s is None for s in seconds)
    if untimed == len(plan.tasks):
        raise InputError(f"{path} holds no run time of any task, so that there is nothing to replay")
    starts = _earliest(parents, [s or 0.0 for s in seconds])
    notes = ["only durations of tasks were recorded, not when they began"]
    if untimed:
        notes.append(f"{untimed} task(s) have no run time; they take none here")
    tasks = []
    for task, begin, length, waits in zip(plan.tasks, starts, seconds, parents, strict=True):
        done = ran.get(task.id or task.name, task)
        split = _split(task, done, length or 0.0, sizes)
        node = (done.machines or [done.machine or ""])[0]
        cores = next((c for c in (done.core_count, done.cores) if c and 0 < c <= 1e6), 1.0)
        tasks.append(
            Traced(kind_of(task, done), begin, begin + (length or 0.0), node=node, parents=waits, cpus=cores, split=split)
        )  # fmt: skip
    return tasks, notes


def _seconds(task: TaskSpec) -> float | None:
    found = next((s for s in (task.seconds, task.runtime) if s is not None), None)
    return found if found is not None and 0 <= found < 1e12 else None


def kind_of(task: TaskSpec, done: TaskSpec) -> str:
    """The kind of a task: its category, the program that it ran where that is one word, else its name without the number at its end."""
    if task.category:
        return task.category
    command = done.command or task.command
    if command is not None and command.program and _WORD.match(command.program):
        return command.program.rpartition("/")[2]
    name = _NUMBERED.sub("", task.name or task.id)
    return name or "task"


def _split(task: TaskSpec, done: TaskSpec, seconds: float, sizes: Mapping[str, float]) -> dict[str, float]:
    """CPU and waiting by its average CPU use, bytes of its files."""
    split: dict[str, float] = {}
    if done.cpu_share is not None and done.cpu_share >= 0:
        split["cpu_s"] = min(1.0, done.cpu_share / 100) * seconds
        split["wait_s"] = seconds - split["cpu_s"]
    old = [f for f in task.files if f.link]
    read = sum(sizes.get(f, 0.0) for f in task.inputs) + sum(f.old_size or f.size for f in old if f.link == "input")
    made = sum(sizes.get(f, 0.0) for f in task.outputs) + sum(f.old_size or f.size for f in old if f.link == "output")
    split |= {"bytes_read": max(0.0, read), "bytes_out": max(0.0, made)}
    if done.memory is not None and done.memory >= 0:
        split["memory_bytes"] = done.memory
    return split


def _earliest(parents: list[list[int]], seconds: list[float]) -> list[float]:
    """The earliest start of each task: when its parents have ended. Those in a circle keep 0; the graph refuses them."""
    starts = [0.0] * len(parents)
    waits = [len(p) for p in parents]
    children: list[list[int]] = [[] for _ in parents]
    for i, given in enumerate(parents):
        for p in given:
            children[p].append(i)
    ready = [i for i, n in enumerate(waits) if not n]
    while ready:
        i = ready.pop()
        for child in children[i]:
            starts[child] = max(starts[child], starts[i] + seconds[i])
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    return starts


def _machines(specs: Iterable[MachineSpec], tasks: list[Traced]) -> tuple[Machine, ...]:
    """The machines of the file. Their names become numbers, in the tasks too."""
    found = list(specs) or [MachineSpec(name=n) for n in dict.fromkeys(t.node for t in tasks)]
    renamed = {m.name: f"node{i}" for i, m in enumerate(found)}
    for task in tasks:
        task.node = renamed.get(task.node, "node0")
    made = []
    for i, spec in enumerate(found):
        cores = next((c for c in ((spec.cpu.cores, spec.cpu.old_cores) if spec.cpu else ()) if c and 0 < c <= 1e6), 1.0)
        memory = round(spec.memory) if spec.memory and 0 < spec.memory < 1e18 else None
        made.append(Machine(name=f"node{i}", host=i, slots=max(1, int(cores)), cpus=cores, memory_bytes=memory))
    return tuple(made)
