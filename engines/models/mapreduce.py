"""Hadoop MapReduce: a JVM a task, map output sorted onto local disk, reducers fetch and merge, job output replicated.

What the model knows, with its source (Hadoop 3.4 mapred-default.xml unless said otherwise):

* Every exchange is a job's shuffle; everything between operators goes through disk.
* A task runs in a JVM of its own (``mapreduce.job.jvm.numtasks`` = 1).
* Map output beyond the sort buffer (``mapreduce.task.io.sort.mb`` = 100 MB, spilled at 0.80) is written in spills and merged:
  once more to disk and back. Reducers merge what they fetched the same way (``io.sort.factor`` = 10 keeps it to one pass).
* Four attempts a task (``mapreduce.map.maxattempts``); the output of a job is replicated (``dfs.replication`` = 3).
* Reducers have no place where they would rather run (RMContainerAllocator asks for any host).
* Slow start: reducers begin to hold slots and to fetch before the maps end: `windtunnel.engines.models.slowstart`.
"""

from __future__ import annotations

from collections import deque

from windtunnel.engines.api import Option
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.ledger import Task
from windtunnel.engines.models.slowstart import POLL_S, Early, most_reducers
from windtunnel.engines.models.spark import plan
from windtunnel.engines.models.switches import OVERLAP, PAGE_CACHE, RECOMPUTE
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.model import Action, Event, Feed, Job, Stage, Tick, View
from windtunnel.spec.units import parse_count

TRAITS = Traits(
    outputs="disk",
    overlap=True,
    page_cache=True,
    constants=(
        Constant(name="startup_s", value=8.0, source="submission, splits, application master; a small local job took 7.2 s"),
        Constant(name="launch_s", value=1e-3, source="container request and launch in the application master"),
        Constant(name="done_s", value=0.5e-3, source="as launch_s"),
        Constant(name="task_s", value=1.0, source="start and warm-up of a JVM a task"),
        Constant(name="merge_bytes", value=80e6, source="sort buffer of 100 MB spilled at 0.80"),
        Constant(name="worker_memory_bytes", value=1e9, source="mapreduce.map.memory.mb = 1024"),
        Constant(name="bridge_bytes_per_s", value=0.3e9, source="lines through the pipes of Hadoop Streaming"),
        Constant(name="bridge_row_s", value=1e-6, source="as above"),
    ),
)  # fmt: skip


class MapReduce(Bulk):
    """The model; see the module for the rules and their sources."""

    def __init__(self, *, slowstart: float = 0.05, recompute: bool = True) -> None:
        super().__init__(prefetch=False, locality=False, recompute=recompute)
        self._slowstart = slowstart

    def start(self, job: Job, view: View) -> list[Action]:
        """As `Bulk`; with the reducers that may begin early."""
        self._early = {s.index: Early(s) for s in job.stages if self._slowstart < 1 and _reduces(s)}
        self._mapped = {i.stage for e in self._early.values() for i in e.stage.inputs}
        self.tick_s = POLL_S if self._early else 0.0
        return super().start(job, view)

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As `Bulk`; reducers ask for map outputs now and then."""
        news = self._news() if isinstance(event, Tick) else []
        return news + super().on_event(event, view)

    def _wave(self, stage: Stage) -> Action | None:
        return None if stage.index in self._mapped else super()._wave(stage)  # a wave tells nothing of single tasks

    # -- reducers before the end of the maps -------------------------------------------------------------------------

    def _news(self) -> list[Action]:
        """What reducers may fetch that were told less when they asked last."""
        ledger = self._ledger
        actions: list[Action] = []
        for early in self._early.values():
            if early.begun or not early.gathering:
                continue
            for source in early.sources:
                output = self._output[source]
                for block_id in output[early.seen[source] :]:
                    early.pieces.setdefault(ledger.blocks[block_id].partition, []).append(block_id)
                early.seen[source] = len(output)
            for task_id, told in early.gathering.items():
                task = ledger.tasks[task_id]
                pieces = early.pieces.get(task.partition, [])
                if len(pieces) > told:
                    early.gathering[task_id] = len(pieces)
                    new = tuple([b for b in pieces[told:] if b in ledger.readers and not ledger.lacks((b,))])
                    actions.append(Feed(task_id, task.worker, new))
        return actions

    def _fill(self) -> list[Action]:
        """Reducers have the first choice of slots, up to their limit (priorities of RMContainerAllocator), then maps."""
        actions: list[Action] = []
        for early in self._early.values():
            if not early.begun and self._due(early):
                actions += self._ramp_up(early)
        return actions + super()._fill() + self._pre_empt()

    def _due(self, early: Early) -> bool:
        """Whether enough maps have ended, and none of an earlier stage must run again."""
        if any(s not in self._pending for s in early.sources) or self._earlier(early, early.sources):
            return False
        total = sum(self._tasks[s] for s in early.sources)
        return early.due(self._slowstart, total, total - sum(self._left[s] for s in early.sources))

    def _ramp_up(self, early: Early) -> list[Action]:
        ledger = self._ledger
        if not early.tasks:
            early.tasks = [ledger.new_task(early.stage.index, p, (p,)) for p in range(early.stage.partitions or 0)]
            early.waiting = deque(early.tasks)
        cpus = early.stage.resources.cpus
        left = [(self._left[s], self._job.stages[s].resources.cpus) for s in early.sources]
        total = sum(self._tasks[s] for s in early.sources)
        unsent = sum(len(self._pending[s]) for s in early.sources)
        share = 1.0 - sum(n for n, _ in left) / max(total, 1)
        limit = most_reducers(self._slots, share, sum(n * c for n, c in left), unsent)
        actions: list[Action] = []
        while early.waiting and (len(early.gathering) + 1) * cpus <= limit + 1e-9:
            worker = ledger.worker_for(early.stage.index, False)
            if worker is None:
                break
            task = early.waiting.popleft()
            launch = ledger.launch(task, worker)
            launch.gathers = True
            early.gathering[task.id] = 0
            actions.append(launch)
        return actions

    @property
    def _slots(self) -> float:
        smallest = min((s.resources.cpus for s in self._job.stages if s.resources.cpus > 0), default=1.0)
        return smallest * sum(1 for w in self._ledger.workers.values() if w.stage < 0)

    def _pre_empt(self) -> list[Action]:
        """A map that must run (again) finds no slot beside reducers that wait for it: the youngest of them give theirs up."""
        ledger = self._ledger
        actions: list[Action] = []
        for early in self._early.values():
            while not early.begun and early.gathering and self._earlier(early):
                if ledger.running > self._gathering or ledger.starting:
                    break
                task = ledger.tasks[next(reversed(early.gathering))]
                del early.gathering[task.id]
                early.waiting.appendleft(task)
                actions += [ledger.cancel(task.id), *super()._fill()]
        return actions

    def _earlier(self, early: Early, but: tuple[int, ...] = ()) -> bool:
        """Whether tasks of stages before it wait for a slot: those of its sources, or again those that these read from."""
        return any(tasks and index < early.stage.index and index not in but for index, tasks in self._pending.items())

    @property
    def _gathering(self) -> int:
        return sum(len(e.gathering) for e in self._early.values() if not e.begun)

    def _begin(self, stage: Stage) -> list[Action]:
        """All maps have ended: reducers that run are told the rest of their inputs, the others may start."""
        early = self._early.get(stage.index)
        if early is None or not early.tasks:
            if early is not None:
                early.begun = True
            return super()._begin(stage)
        early.begun = True
        ledger = self._ledger
        inputs = ledger.partition_inputs([self._output[s] for s in (i.stage for i in stage.inputs)])
        told: list[Action] = []
        pending: deque[Task] = deque()
        waiting = {t.id for t in early.waiting}
        for task in early.tasks:
            if (given := inputs.get(task.partition)) is None:
                if task.id in early.gathering:
                    told.append(ledger.cancel(task.id))
                continue
            task.blocks, task.split = given
            if task.id in early.gathering:
                told.append(Feed(task.id, task.worker, task.blocks, task.split, True))
            elif task.id in waiting:
                pending.append(task)
        self._pending[stage.index] = pending
        self._left[stage.index] = self._tasks[stage.index] = len(inputs)
        self._sides[stage.index] = ()
        return told if inputs else self._end(stage)

    def _again(self, task: Task) -> None:
        early = self._early.get(task.stage)
        if early is None or early.begun or task.again:
            super()._again(task)
        else:
            early.gathering.pop(task.id, None)
            early.waiting.appendleft(task)


def _reduces(stage: Stage) -> bool:
    """Whether a stage is a reduce phase whose tasks are like any others."""
    return bool(stage.inputs) and all(i.mode == "partition" for i in stage.inputs) and stage.state.kind == "stateless"


ENTRY = ModelEntry(
    name="mapreduce",
    build=MapReduce,
    plan=plan,
    traits=TRAITS,
    world={
        "partitions": Option(
            name="shuffle_partitions", check=parse_count, default=None, doc="reduce tasks; default as many as CPUs, or as before"
        ),
        "compression": Option(name="compression", default=1.0, doc="size of files over the size of their rows"),
        "replication": Option(name="replication", default=3, doc="copies of the job's output"),
        "page_cache": PAGE_CACHE,
        "overlap": OVERLAP,
    },
    options=(
        Option(
            name="slowstart",
            default=0.05,
            doc="share of the maps that must have ended before reducers begin to fetch (mapreduce.job.reduce.slowstart.completedmaps); "
            "1: they begin when all have",
        ),
        RECOMPUTE,
    ),
    features={
        "barrier": "reduce computes when all maps have ended; reducers hold slots and fetch before",
        "shuffle": "sorted onto local disk, merged by the reducer",
    },
)
