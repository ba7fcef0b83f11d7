"""What the simulated world knows of stages, nodes, workers and running tasks. Slotted: there are as many as in the real thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from windtunnel.engines.models.traits import EMBEDDED, Traits
from windtunnel.model import Feed, Launch, Stage
from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.costs.laws import Emission, StageLaw, StepWork, Work, WorkClass, cut
from windtunnel.sim.costs.measured import MAPPED_BYTES, EngineCost
from windtunnel.sim.hardware.gpu import device_seconds
from windtunnel.sim.hardware.node import Node
from windtunnel.sim.hardware.serialization import Path
from windtunnel.sim.world.draws import Draws
from windtunnel.spec.cluster import NodeSpec

#: a stretch of work: its class, or "shared" where a shared CPU kept account; start, end, seconds of work
Spent = tuple[str, float, float, float]
SHARED = -1.0


class Worker(Timer):
    """A process on a node; it is its own SimPy event, since it does one thing at a time."""

    __slots__ = (
        "ahead", "alive", "cold", "joined_s", "launch", "mapped", "node", "queue", "ready_s", "run", "stage", "started_s", "up", "weight",
    )  # fmt: skip

    def __init__(self, clock: Clock, callback: Callable[[Any], None], node: Node, stage: int) -> None:
        super().__init__(clock, callback)
        self.node = node
        self.stage = stage
        self.up = False
        self.alive = True
        self.weight = 0.0
        self.queue: list[tuple[float, Launch]] = []  # one or two
        self.launch: Launch | None = None
        self.run: TaskRun | None = None
        self.ahead: TaskRun | None = None  # a queued task whose inputs are on their way already
        self.ready_s = 0.0
        self.mapped: tuple[int, ...] = ()  # blocks that its last task read
        self.cold = True  # has not run a task yet
        self.started_s = self.joined_s = 0.0


class TaskRun:
    """A task under way on the general path: phases by work class and emission, one after the other.

    No slots: there are no more of them than workers, and what most of them never change is not set for each.
    """

    work: Work
    plan: tuple[Emission, ...] = ()
    factors: Sequence[float] = ()
    felt = 1.0  # share of the co-run slowdown that its work feels
    phases: Sequence[tuple[WorkClass, float]] = ()
    phase = 0
    emission = 0
    at = 0  # blocks emitted, counting skipped ones
    memory = 0
    pending = 0
    told: tuple[Feed, ...] = ()  # of its inputs, before it began
    gathered = 0  # bytes fetched before its inputs were complete
    in_runs = 0  # those of them that were merged in runs
    spill_s = 0.0
    begun_s = -2.0  # when its phase at hand began; before that, or `SHARED`: a shared CPU keeps account of it
    shared_s = 0.0  # there: when it began
    shared_work_s = 0.0  # and the seconds of its work
    spent: tuple[Spent, ...] = ()  # where workers may be lost: its phases so far
    started_s = 0.0
    fetched_s = -1.0
    dropped = False  # given back to the driver while its inputs were on their way
    ahead = False  # it fetches while its worker is busy with another task
    merged = False  # its output was sorted in several runs
    waiting = False  # all phases are over, inputs are not

    def __init__(self, stage: StageRun, launch: Launch, worker: Worker) -> None:
        self.stage = stage
        self.launch = launch
        self.worker = worker
        self.work = stage.nothing
        self.blocks: list[Any] = []


class Recipe:
    """What tasks with equal input have in common. ``plan`` None: it depends on the partition."""

    __slots__ = ("held", "made", "overhead_s", "plan", "work")

    def __init__(self, work: Work, plan: tuple[Emission, ...] | None, made: Made, overhead_s: float, held: int) -> None:
        self.work = work
        self.plan = plan
        self.made = made
        self.overhead_s = overhead_s
        self.held = held


class Made:
    """What leaves a task together, added up: blocks, bytes, bytes of the largest emission."""

    __slots__ = ("blocks", "bytes", "most")

    def __init__(self, plan: Sequence[Emission]) -> None:
        out = [sum(b for _, _, b in e.blocks) for e in plan]
        self.blocks = sum(len(e.blocks) for e in plan)
        self.bytes, self.most = sum(out), max(out)


class StageRun:
    """A stage with its law: works out tasks, remembers equal ones, draws durations."""

    __slots__ = (
        "_plans", "_recipes", "_works", "block_bytes", "classes", "cost", "devices", "draws", "emit", "emit_mapped", "fetch", "files",
        "index", "kinds", "law", "memory_bytes", "name", "nothing", "operators", "plain", "pool_row", "python", "queue_row",
        "queued", "quick", "restart_s", "seconds", "spec", "traits", "uses", "weight",
    )  # fmt: skip

    def __init__(
        self, spec: Stage, law: StageLaw, cost: EngineCost, block_bytes: int, seed: int, traits: Traits = EMBEDDED
    ) -> None:
        self.spec, self.law, self.cost, self.traits = spec, law, cost, traits
        self.python = any(s.python for s in law.steps)
        stateless = spec.state.kind == "stateless"
        self.restart_s = cost.device_restart_s if spec.resources.gpus > 0 and stateless else 0.0
        if stateless:  # what a task loads for itself
            self.restart_s += spec.state.load_s
        self.index, self.name, self.operators = spec.index, spec.name, spec.operators
        self.block_bytes = block_bytes
        self.memory_bytes = spec.resources.memory_bytes
        self.fetch = Path(block_s=cost.fetch_block_s, bytes_per_s=cost.fetch_bytes_per_s)
        self.emit = Path(block_s=cost.emit_block_s, bytes_per_s=cost.emit_bytes_per_s)
        mapped = cost.emit_mapped_bytes_per_s or cost.emit_bytes_per_s
        self.emit_mapped = Path(block_s=cost.emit_block_s, bytes_per_s=mapped)
        gpu_only = spec.resources.gpus > 0 and spec.resources.cpus == 0
        self.weight = 0.0 if gpu_only else (law.cpus or spec.resources.cpus or 1.0)
        self.classes = ("sleep", "cpu") if law.told else tuple(dict.fromkeys(s.work_class for s in law.steps)) or ("cpu",)
        self.devices = "device" in self.classes
        self.files = traits.outputs == "disk"
        self.nothing = Work((), 0.0, 0.0, 1, 0.0, 0.0)
        self.pool_row = self.queue_row = -1  # where `Usage` keeps account of its workers and its output
        self.queued = 0  # bytes of its blocks that were not released yet
        self.uses: dict[WorkClass, tuple[int, float]] = {}  # and of its work: row and level by class
        self.draws = Draws(seed, spec.index)
        self._works: dict[tuple[int, int, int], Work] = {}
        self._recipes: dict[tuple[int, int, int, int], Recipe] = {}
        #: its tasks have a single phase, on the CPU
        self.plain = self.weight > 0 and not self.restart_s and self.classes == ("cpu",)
        self._plans: dict[tuple[int, float, int, int], tuple[Emission, ...]] = {}
        self.kinds: list[Quick | None] = []  # source tasks that differ
        self.quick: list[Quick | None] = []  # by source partition, None = needs the general path
        self.seconds: list[float] = []

    def work(self, rows: int, size: int, blocks: int) -> Work:
        """The work of a task with this input."""
        key = (rows, size, blocks)
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = self.law.work(rows, size, blocks)
        return work

    def recipe(self, rows: int, size: int, inputs: int, bytes_in: int) -> Recipe:
        """What is done with this input of ``inputs`` blocks, of which ``bytes_in`` are fetched."""
        key = (rows, size, inputs, bytes_in)
        recipe = self._recipes.get(key)
        if recipe is None:
            work = self.work(rows, size, max(inputs, 1))
            plan = self.plan(work, 0)
            made = Made(plan)
            overhead = self.overhead_s(work, inputs, bytes_in, made)
            recipe = Recipe(work, None if self._varies(work) else plan, made, overhead, self.held_bytes(size, plan))
            self._recipes[key] = recipe
        return recipe

    def told(self, partition: int, inputs: int, bytes_in: int) -> Recipe:
        """What a recorded task does: wait, compute, leave one block."""
        told = self.law.told[partition]
        name = self.operators[-1]
        steps = (StepWork(name, "sleep", told.wait_s, 0.0, 1, 0), StepWork(name, "cpu", told.cpu_s, 0.0, 1, 0))
        work = Work(steps, 1.0, float(told.bytes_out), 1, told.wait_s + told.cpu_s, 0.0)
        plan = (Emission(1.0, ((0, 1, told.bytes_out),)),)
        made = Made(plan)
        return Recipe(work, plan, made, self.overhead_s(work, inputs, bytes_in, made), self.memory_bytes + told.bytes_out)

    def emit_s(self, work: Work, blocks: int, size: int) -> float:
        """Seconds in which a task of this work writes so many blocks of ``size`` bytes together."""
        return (self.emit_mapped if work.row_bytes > MAPPED_BYTES else self.emit).seconds(blocks, size)

    def overhead_s(self, work: Work, blocks_in: int, bytes_in: int, made: Made) -> float:
        """Seconds of a worker's own doings around a task's work."""
        overhead = self.cost.task_s + self.fetch.seconds(blocks_in, bytes_in) + self.emit_s(work, made.blocks, made.bytes)
        return overhead + self.bridge_s(work)

    @staticmethod
    def rows_out(work: Work, partition: int) -> int:
        """Whole rows that a task emits: what rounding takes from one partition it gives to another."""
        rows = int(work.rows_out + 1e-9)
        if work.rows_out - rows <= 1e-9:
            return rows
        return int((partition + 1) * work.rows_out + 1e-9) - int(partition * work.rows_out + 1e-9)

    def plan(self, work: Work, partition: int) -> tuple[Emission, ...]:
        """Its emissions; fractions of rows are spread over the partitions so that none is lost in the sum."""
        rows = self.rows_out(work, partition)
        shares = self.law.shares
        first = partition % len(shares) if self.law.turns and rows < 8 * len(shares) else 0
        key = (rows, work.row_bytes, work.batches, first)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = cut(rows, work.row_bytes, work.batches, self.block_bytes, shares, first)
        return plan

    def prepare_quick(self, node: NodeSpec) -> None:
        """Work out all source tasks at once: equal ones share a `Quick`, durations are drawn in one stroke."""
        if self.law.told:
            self._told_quick()
            return
        works: list[Work] = []
        plans: list[tuple[Emission, ...]] = []
        which = self._kinds(works, plans)
        quicks = self.kinds = [self._quick(work, plan) for work, plan in zip(works, plans, strict=True)]
        base = [self._seconds_by_step(work, plan, node) for work, plan in zip(works, plans, strict=True)]
        self.quick = list(map(quicks.__getitem__, which))
        table = np.array(base)[which]
        for i, step in enumerate(self.law.steps):
            if step.cost.cv > 0:
                variance = np.log1p(np.array([w.steps[i].cv for w in works])[which] ** 2)
                normals = self.draws.normals(i, 0).first(len(which))
                table[:, i] *= np.exp(normals * np.sqrt(variance) - variance / 2)
        self.seconds = table.sum(axis=1).tolist()

    def _told_quick(self) -> None:
        """The same for recorded tasks."""
        recipes = [self.told(p, 0, 0) for p in range(len(self.law.told))]
        plain = not (self.devices or self.files or (self.python and self.cost.python_copies))
        self.quick = [
            Quick(self.memory_bytes, r.made.bytes, r.plan[0].blocks, r.work, self._cpus(r.work)) if plain and r.plan else None
            for r in recipes
        ]
        self.kinds = self.quick
        self.seconds = [r.work.seconds + r.overhead_s for r in recipes]

    def _kinds(self, works: list[Work], plans: list[tuple[Emission, ...]]) -> list[int]:
        """Fill in the works and plans of source tasks that differ; which of them each task has."""
        source = self.law.source
        kinds = {kind: self.work(*kind, 1) for kind in dict.fromkeys(source)}
        if not any(self._varies(work) for work in kinds.values()):
            works += kinds.values()
            plans += [self.plan(work, 0) for work in works]
            return list(map({kind: i for i, kind in enumerate(kinds)}.__getitem__, source))
        made: dict[tuple[tuple[int, int], int], int] = {}
        which: list[int] = []
        for partition, kind in enumerate(source):
            plan = self.plan(kinds[kind], partition)
            index = made.setdefault((kind, id(plan)), len(plans))  # plans are remembered: equal ones are one
            if index == len(plans):
                works.append(kinds[kind])
                plans.append(plan)
            which.append(index)
        return which

    def _varies(self, work: Work) -> bool:
        """Whether tasks of this work may emit differently, by their partition."""
        rows = int(work.rows_out + 1e-9)
        return work.rows_out - rows > 1e-9 or (self.law.turns and len(self.law.shares) > 1 and rows < 8 * len(self.law.shares))

    def _quick(self, work: Work, plan: tuple[Emission, ...]) -> Quick | None:
        if len(plan) != 1 or self.devices or self.files or (self.python and self.cost.python_copies):
            return None
        out = sum(b for _, _, b in plan[0].blocks)
        return Quick(self.memory_bytes, out, plan[0].blocks, work, self._cpus(work))

    def _cpus(self, work: Work) -> float:
        """CPUs that a task keeps busy on average: as many as it weighs, but for the time that it sleeps."""
        asleep = sum(s.seconds for s in work.steps if s.work_class == "sleep") / work.seconds if work.seconds else 0.0
        return self.weight * (1.0 - asleep) + self.spec.resources.cpus * asleep

    def _seconds_by_step(self, work: Work, plan: tuple[Emission, ...], node: NodeSpec) -> list[float]:
        count = sum(len(e.blocks) for e in plan)
        out = sum(b for e in plan for _, _, b in e.blocks)
        overhead = self.cost.task_s + self.fetch.seconds(0, 0) + self.emit_s(work, count, out) + self.bridge_s(work)
        return [*(s.seconds for s in work.steps), overhead]

    def bridge_s(self, work: Work) -> float:
        """Seconds that a task's rows need between the engine's language and Python."""
        cost = self.cost
        seconds = work.bridge_rows * cost.bridge_row_s
        return seconds + work.bridge_bytes / cost.bridge_bytes_per_s if cost.bridge_bytes_per_s else seconds

    def held_bytes(self, bytes_in: int, plan: Sequence[Emission]) -> int:
        """What a task holds beside the store: working memory, output on its way out, copies for another language."""
        if self.traits.generator:
            leaving = max((b for e in plan for _, _, b in e.blocks), default=0)
        else:
            leaving = max(sum(b for _, _, b in e.blocks) for e in plan)
            if self.files and self.cost.merge_bytes:
                leaving = min(leaving, round(self.cost.merge_bytes))
        copies = 0
        if self.python and self.cost.python_copies:
            copies = round(self.cost.python_copies * max(bytes_in, sum(b for e in plan for _, _, b in e.blocks)))
        return self.memory_bytes + leaving + copies

    def factors(self, work: Work, partition: int, attempt: int) -> Sequence[float]:
        """A random multiplier a step; none where no duration is drawn."""
        return self.draws.factors(work.cvs, partition, attempt) if work.cvs else ()

    def phases(self, run: TaskRun, node: Node, overhead: float) -> Sequence[tuple[WorkClass, float]]:
        """Seconds by work class, in order, with the worker's overheads as CPU time."""
        if self.plain and node.flat_law:
            return self._one_phase(run, node, overhead)
        factors = run.factors or (1.0,) * len(run.work.steps)
        seconds: dict[WorkClass, float] = {"sleep": self.restart_s} if self.restart_s else {}
        if self.weight:
            seconds["cpu"] = overhead
        felt = seconds.get("cpu", 0.0)
        cold = self.cost.cold if run.worker.cold else 1.0
        if self.law.first_s and run.worker.cold:
            seconds["cpu"] = seconds.get("cpu", 0.0) + self.law.first_s
        for step, factor in zip(run.work.steps, factors, strict=True):
            if step.work_class == "cpu":
                factor *= cold
                felt += step.seconds * factor * step.sensitivity
            seconds[step.work_class] = seconds.get(step.work_class, 0.0) + step.seconds * factor
        run.worker.cold = False
        run.felt = felt / seconds["cpu"] if seconds.get("cpu") else 1.0
        if "device" in seconds:
            extra = 0.0 if self.weight else overhead
            seconds["device"] = device_seconds(node.spec.gpus, seconds["device"], run.work.moved_bytes) + extra
        return [(c, s * node.slow) for c, s in seconds.items() if s > 0] or [("sleep", 0.0)]

    def _one_phase(self, run: TaskRun, node: Node, seconds: float) -> Sequence[tuple[WorkClass, float]]:
        """The same where all is CPU time that nobody disturbs."""
        worker, factors, cold = run.worker, run.factors, 1.0
        if worker.cold:
            worker.cold, cold = False, self.cost.cold
            seconds += self.law.first_s
        for i, step in enumerate(run.work.steps):
            seconds += step.seconds * ((factors[i] if factors else 1.0) * cold)
        seconds *= node.slow
        return (("cpu", seconds),) if seconds > 0 else (("sleep", 0.0),)


class Quick:
    """What equal source tasks share that need nothing but one stretch of one slot and emit all at their end."""

    __slots__ = ("blocks", "bytes", "cpus", "memory", "work")

    def __init__(self, memory: int, size: int, blocks: tuple[tuple[int, int, int], ...], work: Work, cpus: float) -> None:
        self.memory = memory
        self.bytes = size
        self.blocks = blocks
        self.work = work
        self.cpus = cpus
