"""Spark's execution: stages between barriers, narrow operators fused, shuffles through local disk, executors, a bridge to Python.

What the model knows, with its source (Spark 4.0 docs, configuration.html and rdd-programming-guide.html, unless said otherwise):

* A stage begins when its parents are complete; tasks of a stage run in any order on free cores (`Bulk`).
* Neighbouring narrow operators are one task. Where their resources differ, a shuffle into ``shuffle_partitions`` parts lies
  between them: resources are requested by stage (stage-level scheduling, ``RDD.withResources`` after a ``repartition``).
* Executors of ``executor_cores``, ``executor_memory`` and ``executor_gpus``; without ``executors`` a standalone master starts as
  many on a node as cores, devices and memory (all but 1 GiB) allow. A task takes one core of an executor.
* Shuffle output is written to local files through the page cache and read while the reduce task works.
  What exceeds a task's share of execution memory (``memory_fraction`` 0.6 of the heap over its cores) is spilled and merged:
  written and read once more.
* A shuffle into at most ``spark.shuffle.sort.bypassMergeThreshold`` (200) partitions writes a file each, then puts them together
  (BypassMergeSortShuffleWriter). An operator's state is loaded once a Python worker, which is used again; ``reload``: by every task.
* Rows of Python operators are pickled to a Python worker and back; while a partition is written, the worker holds its rows and
  their pickle, and the JVM the bytes (``_reserialize`` in RDD.repartition batches rows by ten; pyspark/rdd.py).
* Adaptive execution joins small shuffle partitions up to 64 MiB (``spark.sql.adaptive.advisoryPartitionSizeInBytes``).
* A reducer would rather run on a node that holds a fifth of its input or more, if map and reduce tasks are fewer than 1,000
  (``spark.shuffle.reduceLocality.enabled``; DAGScheduler's REDUCER_PREF_LOCS_FRACTION, SHUFFLE_PREF_MAP_THRESHOLD); it does not wait
  for it (``spark.locality.wait`` is left out).
* With ``speculation``, slow tasks get a copy on another node (`windtunnel.engines.models.speculation`).
* A task is tried ``max_failures`` (4) times; shuffle files that are lost with a node are made again by their stage (stage retry).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.ledger import Task
from windtunnel.engines.models.speculation import TICK_S, Speculation
from windtunnel.engines.models.switches import LOCALITY, OVERLAP, PAGE_CACHE, RECOMPUTE
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.engines.models.views import Executors
from windtunnel.engines.physical import Partitioner, program
from windtunnel.model import (
    Action,
    Event,
    Job,
    Launch,
    Release,
    Stage,
    StageInput,
    TaskDone,
    TaskFailed,
    Tick,
    View,
)
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_bytes, parse_count, parse_size

MEMORY_FRACTION = 0.6
ADVISORY_BYTES = 64 * 2**20
#: DAGScheduler's REDUCER_PREF_LOCS_FRACTION, and SHUFFLE_PREF_MAP_THRESHOLD and _REDUCE_THRESHOLD
LEAST_SHARE = 0.2
MOST_TASKS = 1000

TRAITS = Traits(
    outputs="disk",
    overlap=True,
    page_cache=True,
    jvm_bridge=True,
    concatenate=200,
    constants=(
        Constant(name="startup_s", value=4.0, source="application and executors: cold start of a local session on two CPUs"),
        Constant(name="launch_s", value=1.5e-3, source="task serialization and dispatch in the driver"),
        Constant(name="done_s", value=0.5e-3, source="status update in the driver"),
        Constant(name="task_s", value=10e-3, source="task deserialization, shuffle and result handling in the executor"),
        Constant(name="emit_bytes_per_s", value=1.0e9, source="shuffle serialization and checksum of byte arrays"),
        Constant(name="bridge_bytes_per_s", value=0.42e9, source="pickled rows through a socket, each way, one core",
                 fitted="memory_pipelining: spark at 12 and 16 GB"),
        Constant(name="bridge_row_s", value=1.5e-6, source="pickling and unpickling a small row"),
        Constant(name="python_copies", value=2.0, source="a partition's rows and their pickle in the Python worker"),
        Constant(name="worker_memory_bytes", value=150e6, source="a Python worker and its share of the executor's JVM"),
        Constant(name="driver_memory_bytes", value=1.5e9, source="driver JVM and Python, standalone master and worker"),
    ),
)  # fmt: skip


class Spark(Bulk):
    """The model; see the module for the rules and their sources."""

    def __init__(
        self,
        *,
        executors: int | None = None,
        executor_cores: int | None = None,
        executor_memory: int | str | None = None,
        executor_gpus: float = 0,
        adaptive: bool = True,
        speculation: bool = False,
        speculation_quantile: float = 0.9,
        speculation_multiplier: float = 3.0,
        locality: bool = True,
        recompute: bool = True,
    ) -> None:
        super().__init__(prefetch=False, locality=locality, recompute=recompute)
        self._speculation = Speculation(speculation_quantile, speculation_multiplier) if speculation else None
        self.tick_s = TICK_S if speculation else 0.0
        memory = None if executor_memory is None else parse_bytes(executor_memory)
        self._executors = (executors, executor_cores, memory, executor_gpus)
        self._adaptive = adaptive
        # The inputs that were asked about last, and beside which block they are read.
        self._placed: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    def start(self, job: Job, view: View) -> list[Action]:
        """As `Bulk`, on the executors."""
        return super().start(job, Executors(view, *self._executors))

    # -- locality ------------------------------------------------------------------------------------------------------

    def _beside(self, task: Task) -> tuple[int, ...]:
        """A block on the node that holds most of a reducer's input, if that is enough of it."""
        if all(i.mode != "partition" for i in self._job.stages[task.stage].inputs):
            return task.blocks
        if task.blocks is not self._placed[0]:  # another task, or a lost input was made again
            self._placed = task.blocks, self._most(task)
        return self._placed[1]

    def _most(self, task: Task) -> tuple[int, ...]:
        stage, blocks = self._job.stages[task.stage], self._ledger.blocks
        if max([stage.partitions or 0, *(self._tasks[i.stage] for i in stage.inputs)]) >= MOST_TASKS:
            return ()
        by_node: dict[int, int] = {}
        for block in task.blocks:
            by_node[blocks[block].node] = by_node.get(blocks[block].node, 0) + blocks[block].bytes
        best = max(by_node, key=lambda node: (by_node[node], -node), default=-1)
        if best < 0 or by_node[best] < LEAST_SHARE * sum(by_node.values()):
            return ()
        return (next(b for b in task.blocks if blocks[b].node == best),)

    # -- speculation -------------------------------------------------------------------------------------------------

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As `Bulk`; of a task and its copy, what comes from the second to end is thrown away."""
        speculation = self._speculation
        if speculation is None:
            return super().on_event(event, view)
        if isinstance(event, (TaskDone, TaskFailed)) and event.task in speculation.cancelled:
            return [Release(tuple(b.id for b in event.blocks))] if isinstance(event, TaskDone) and event.blocks else []
        actions = super().on_event(event, view)
        if isinstance(event, Tick):
            speculation.tick()
            actions += self._copies(speculation)
        return actions

    def _wave(self, stage: Stage) -> Action | None:
        return None if self._speculation else super()._wave(stage)  # a wave tells nothing of single tasks

    def _fill(self) -> list[Action]:
        actions = super()._fill()
        if self._speculation is not None:
            for action in actions:
                if isinstance(action, Launch) and not action.again:
                    self._speculation.launched(action.task, action.stage)
        return actions

    def _copies(self, speculation: Speculation) -> list[Action]:
        """Copies of slow tasks, as far as there are free cores on other nodes."""
        ledger = self._ledger
        actions: list[Action] = []
        for index, left in enumerate(self._left):
            sides = self._sides.get(index, ())
            if not left or index in ledger.actors or ledger.lacks(b for side in sides for b in side):
                continue
            for slow in speculation.slow(index, self._tasks[index]):
                task = ledger.tasks[slow]
                worker = ledger.elsewhere(index, ledger.workers[task.worker].node)
                if worker is None:
                    break
                copy = ledger.new_task(index, task.partition, task.order, task.blocks, task.split)
                copy.attempt = task.attempt + 1
                speculation.copied(slow, copy.id, index)
                actions.append(ledger.launch(copy, worker, sides))
        return actions

    def _task_done(self, task: Task) -> list[Action]:
        loser = None if self._speculation is None or task.again else self._speculation.ended(task.id, task.stage)
        cancel: list[Action] = [] if loser is None else [self._ledger.cancel(loser)]
        return cancel + super()._task_done(task)

    def _again(self, task: Task) -> None:
        if self._speculation is None or self._speculation.stopped(task.id, task.stage) is None:  # else its copy runs on
            super()._again(task)

    # -- adaptive execution ------------------------------------------------------------------------------------------

    def _tasks_of(self, stage: Stage) -> list[Task]:
        tasks = super()._tasks_of(stage)
        shuffled = len(stage.inputs) == 1 and stage.inputs[0].mode == "partition"
        return self._coalesced(tasks) if self._adaptive and shuffled and not stage.ordered and not stage.resources.gpus else tasks

    def _coalesced(self, tasks: list[Task]) -> list[Task]:
        """Neighbouring small partitions in one task, but no fewer tasks than cores (parallelismFirst)."""
        ledger = self._ledger
        sizes = [sum(ledger.blocks[b].bytes for b in t.blocks) for t in tasks]
        goal = min(ADVISORY_BYTES, sum(sizes) / max(len(ledger.workers), 1))
        merged: list[Task] = []
        size = 0.0
        for task, bytes_in in zip(tasks, sizes, strict=True):
            if merged and size + bytes_in <= goal:
                merged[-1].blocks += task.blocks
                merged[-1].split = len(merged[-1].blocks)
                del ledger.tasks[task.id]
                size += bytes_in
            else:
                merged.append(task)
                size = float(bytes_in)
        return merged


def plan(job: Job, chosen: Mapping[str, Any], cluster: ClusterSpec) -> Job:
    """Stage boundaries without a shuffle become shuffles, as a change of resources asks for in Spark."""
    partitions = chosen["shuffle_partitions"]
    stages = [_reloading(s) if chosen.get("reload") else s for s in job.stages]
    for stage in job.stages:
        for position, given in enumerate(stage.inputs):
            source = stages[given.stage]
            if given.mode != "forward" or source.output_partitions:
                continue
            count = int(partitions or _tasks(stages, source))
            payload = replace(program(source), partitioner=Partitioner(kind="hash", partitions=count))
            stages[source.index] = replace(source, output_partitions=count, payload=(payload,))
            inputs = list(stages[stage.index].inputs)
            inputs[position] = StageInput(stage=given.stage, mode="partition")
            stages[stage.index] = replace(stages[stage.index], inputs=tuple(inputs), partitions=count)
    return replace(job, stages=tuple(stages))


def _reloading(stage: Stage) -> Stage:
    """A stage whose tasks load its state, each for itself."""
    return (
        replace(stage, state=replace(stage.state, kind="stateless"), concurrency=None) if stage.state.kind == "actor" else stage
    )


def costs(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A task's share of execution memory: spark.memory.fraction of the heap over the executor's cores."""
    if chosen["executor_memory"] is None or not chosen["executor_cores"]:
        return {}
    return {"merge_bytes": MEMORY_FRACTION * parse_bytes(chosen["executor_memory"]) / chosen["executor_cores"]}


def _tasks(stages: list[Stage], stage: Stage) -> int:
    """Tasks of a stage: those of its source along forward edges."""
    while stage.partitions is None:
        stage = stages[stage.inputs[0].stage]
    return stage.partitions


ENTRY = ModelEntry(
    name="spark",
    build=Spark,
    plan=plan,
    costs=costs,
    traits=TRAITS,
    world={
        "partitions": Option(
            name="shuffle_partitions", check=parse_count, default=None, doc="tasks after a shuffle; default as many as before it"
        ),
        "compression": Option(name="compression", default=1.0, doc="size of shuffle files over the size of their rows (lz4)"),
        "replication": Option(name="replication", default=1, doc="copies of the job's output in a distributed file system"),
        "page_cache": PAGE_CACHE,
        "overlap": OVERLAP,
        "concatenate": Option(
            name="bypass_merge_threshold",
            default=200,
            doc="most partitions for which a map task writes a file each and then puts them together; 0: never",
        ),
    },
    plan_options=(
        Option(
            name="reload",
            default=False,
            choices=(True, False),
            doc="every task loads a stateful operator's state (mapPartitions, iterator UDF), not once a worker process",
        ),
    ),
    options=(
        Option(name="executors", check=parse_count, default=None, doc="executors of the application; default as many as fit"),
        Option(name="executor_cores", check=parse_count, default=None, doc="cores of an executor; default all of its node"),
        Option(
            name="executor_memory", check=parse_size, default=None, doc="heap of an executor; default no limit on how many fit"
        ),
        Option(name="executor_gpus", default=0.0, doc="devices of an executor; default those of its node"),
        Option(name="adaptive", default=True, doc="join small shuffle partitions", choices=(True, False)),
        Option(name="speculation", default=False, doc="copy slow tasks of a stage on other nodes", choices=(True, False)),
        Option(name="speculation_quantile", default=0.9, doc="share of a stage's tasks that must be done before"),
        Option(name="speculation_multiplier", default=3.0, doc="slow is longer than so many times their median"),
        LOCALITY,
        RECOMPUTE,
    ),
    features={
        "barrier": "a stage begins when its parents are complete",
        "shuffle": "through local files and the page cache",
        "bridge": "rows of Python operators are pickled to a worker process and back",
    },
)
