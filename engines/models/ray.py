"""Ray Data's streaming execution: blocks flow between operators of tasks and actor pools, bounded by an object store budget.

What the model knows, with its source (Ray 2.44 unless said otherwise; "the paper" is arXiv 2501.12407):

* A pipeline may fill ``budget_fraction`` of the object store with blocks queued or in the making (half of it:
  ``DataContext.override_object_store_memory_limit_fraction``, resource_manager.py).
* ``op_reservation`` of the budget is reserved in equal parts for the operators, the rest is shared
  (``op_resource_reservation_ratio`` = 0.5, ReservationOpResourceAllocator).
* A running task is expected to add what its operator's tasks produced on average, at most ``generator_buffer`` blocks of it
  before it ended (``_max_num_blocks_in_streaming_gen_buffer`` = 2); before any block exists, blocks of the target size.
* With ``op_reservation`` = 0 and ``budget_policy`` the source alone is held back: it may start a task only while the budget has
  room for all of that task's output (the adaptive policy of the paper, section 4); other operators run whenever a slot is free.
* The executor's loop waits for all running tasks at once, for 0.1 s at most, reads all that happened, then sends tasks
  (``process_completed_tasks``, ``ray.wait(num_returns=len(tasks), timeout=0.1)``, Ray 2.10 to 2.60): `windtunnel.sim.world.rounds`.
* Among operators that may run, the one farthest downstream goes first. Actors take two tasks at most
  (``max_tasks_in_flight_per_actor`` = 2 × max concurrency) and of them those first whose input is on their node
  (``actor_locality_enabled``; the world fetches one ahead); a pool grows by one actor a decision while all are busy.
* A task that needs a device runs in a fresh worker process: ``max_calls`` is 1 for tasks with GPUs (docs of ``ray.remote``).
* A memory monitor looks every 250 ms and, above ``memory_usage_threshold`` (0.95) of a node's memory, kills the worker whose lease was
  granted last: an actor's with its start, a task's with its own (time-based policy, the default since Ray 2.56; docs, "Out-of-memory
  prevention"; ``RAY_worker_killing_policy_by_group`` chose the latest task of the caller with most, which is the same where one
  driver calls all). The task is retried without limit, after 1 s, 2 s, 4 s … 60 s at most (``task_oom_retry_delay_base_ms``), and
  actors of a pool are restarted (``max_restarts`` = -1). Where nothing but the task that is too large runs, a run says out of memory.
* Blocks lost with a node are computed again from their lineage (``max_retries`` = 3 of a task, and its inputs recursively).

Fusion of neighbouring operators is left to ``fuse``, off by default: operators declared apart stay apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.ledger import Task
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.models.switches import DOWNSTREAM_FIRST, PAGE_CACHE, RECOMPUTE
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.engines.models.views import Offered
from windtunnel.engines.physical import program
from windtunnel.model import Action, Block, Event, Job, Stage, View, Wake, Woken, WorkerLost
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Concurrency, MapBatches
from windtunnel.spec.units import parse_bytes

RETRY_S, LONGEST_RETRY_S = 1.0, 60.0  # task_oom_retry_delay_base_ms, and the cap of the docs

TRAITS = Traits(
    generator=True,
    prefetch=True,
    page_cache=True,
    kill=0.95,
    constants=(
        Constant(name="launch_s", value=0.8e-3, source="executor: sending a task, from the plateau of ray_data in scalability",
                 fitted="scalability: ray_data at 32 nodes"),
        Constant(name="done_s", value=0.4e-3, source="and to read that it ended", fitted="scalability: ray_data at 32 nodes"),
        Constant(name="block_s", value=0.1e-3, source="bookkeeping of one more block, a share of done_s"),
        Constant(name="round_s", value=0.1, source="process_completed_tasks: ray.wait for all running tasks, for 0.1 s at most"),
        Constant(name="task_s", value=24e-3, source="lease, dispatch and reply: a slot is free for so long between two tasks",
                 fitted="partition_size: 1 row; scalability: ray_data at 1 node"),
        Constant(name="emit_bytes_per_s", value=2.0e9, source="a task that makes a tensor and copies it to the object store",
                 fitted="scalability: ray_data at 4 nodes"),
        Constant(name="startup_s", value=0.15, source="plan and executor of one more data set, on warm workers",
                 fitted="scalability: ray_data at 1 node"),
        Constant(name="device_restart_s", value=0.42, source="start of a worker process and its imports",
                 fitted="memory_pipelining: ray at 16 GB"),
        Constant(name="actor_start_s", value=2.0, source="start of a worker process, its imports and the actor's constructor"),
        Constant(name="worker_memory_bytes", value=100e6, source="an idle Ray worker with Arrow imported"),
        Constant(name="driver_memory_bytes", value=0.6e9, source="driver, GCS, raylet, agents of an idle Ray 2.60, as PSS"),
    ),
)  # fmt: skip


class Ray(Streaming):
    """The model; see the module for the rules and their sources."""

    actors_yield = False

    def __init__(
        self,
        *,
        budget_fraction: float = 0.5,
        op_reservation: float = 0.5,
        budget_policy: bool = True,
        generator_buffer: int = 2,
        backpressure: bool = True,
        autoscale: bool = True,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        concurrency: dict[str, int] | None = None,
        materialize: bool = False,
        block: int | str = "128MiB",
        executor: str = "data",
        tasks_in_flight: int = 2,
        locality: bool = True,
        downstream_first: bool = True,
        recompute: bool = True,
    ) -> None:
        self.chooses = locality
        held_back = backpressure and not materialize and executor == "data"
        super().__init__(
            backpressure=held_back, autoscale=autoscale, ahead=False, locality=locality, downstream_first=downstream_first,
            recompute=recompute,
        )  # fmt: skip
        self._in_flight = tasks_in_flight
        self._fraction = budget_fraction
        self._reservation = op_reservation
        self._policy = budget_policy
        self._buffer = generator_buffer
        self._offer = (num_cpus, num_gpus)
        self._caps = concurrency or {}
        self._materialize = materialize
        self._block_bytes = parse_bytes(block)

    def start(self, job: Job, view: View) -> list[Action]:
        """As `Streaming`, within the offered CPUs and devices."""
        count = len(job.stages)
        self._resting: dict[int, Task] = {}  # killed for memory, by number
        self._kills: dict[int, int] = {}  # how often before
        self._held = [0] * count  # bytes that a stage's blocks take until their readers are done
        self._ended = [0] * count  # tasks
        self._kept: list[list[Action]] = [[] for _ in range(count)]  # releases of materialised inputs, by their reader
        self._budget = view.store_limit_bytes * self._fraction
        self._reserved = self._budget * self._reservation / count
        self._limit = [min((self._caps[o] for o in s.operators if o in self._caps), default=1 << 60) for s in job.stages]
        return super().start(job, Offered(view, *self._offer))

    def _sides_complete(self, index: int) -> bool:
        inputs_done = not self._materialize or all(self._complete[i.stage] for i in self._job.stages[index].inputs)
        return inputs_done and super()._sides_complete(index)

    # -- memory ------------------------------------------------------------------------------------------------------

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As `Streaming`; tasks that were killed for memory come back after a while."""
        if type(event) is Woken and event.key in self._resting:
            task = self._resting.pop(event.key)
            self._waiting[task.stage] -= 1
            self._hand_out(task)
        return super().on_event(event, view)

    def _worker_lost(self, event: WorkerLost) -> list[Action]:
        if not event.for_memory:
            return super()._worker_lost(event)
        worker = self._ledger.workers.get(event.worker)
        killed = worker.tasks[0] if worker is not None and worker.tasks else -1
        orphans, actions = self._ledger.orphans(event)
        for task in orphans:
            self._running[task.stage] -= 1
            if task.id != killed:
                self._hand_out(task)
                continue
            times = self._kills[killed] = self._kills.get(killed, -1) + 1
            self._resting[killed] = task
            self._waiting[task.stage] += 1  # its stage is not complete
            actions.append(Wake(killed, min(RETRY_S * 2.0**times, LONGEST_RETRY_S)))
        return actions

    # -- actors ------------------------------------------------------------------------------------------------------

    def _bring_near(self, index: int, node: int) -> None:
        """Of the tasks that a pool has in flight, an actor gets one whose input is on its node, if there is one."""
        ready, blocks = self._ready[index], self._ledger.blocks
        window = min(len(ready), self._in_flight * len(self._ledger.actors[index]))
        for position in range(window):
            task = ready[position]
            if task.blocks and blocks[task.blocks[0]].node == node:
                if position:
                    del ready[position]
                    ready.appendleft(task)
                return

    # -- budgets -----------------------------------------------------------------------------------------------------

    def _new_block(self, block: Block) -> None:
        super()._new_block(block)
        self._held[block.stage] += block.bytes

    def _task_done(self, task: Task) -> list[Action]:
        self._ended[task.stage] += 1
        for block_id in task.blocks:
            block = self._ledger.blocks[block_id]
            if self._ledger.readers[block_id] == 1:
                self._held[block.stage] -= block.bytes
        actions = super()._task_done(task)
        if not self._materialize:
            return actions
        self._kept[task.stage] += actions
        return []

    def _on_complete(self, stage: Stage) -> list[Action]:
        """A materialised input stays until all of its readers' outputs are there."""
        kept, self._kept[stage.index] = self._kept[stage.index], []
        return kept + super()._on_complete(stage)

    def _average_block(self, index: int) -> float:
        made = self._emitted_blocks[index]
        return self._emitted_bytes[index] / made if made else float(self._block_bytes)

    def _task_output(self, index: int) -> float:
        """Bytes that one task of a stage is expected to make."""
        if not self._ended[index]:
            return self._buffer * self._average_block(index)
        return self._emitted_bytes[index] / self._ended[index]

    def _pending(self, index: int) -> float:
        """Bytes that one running task may still add before its reader has to take them."""
        return min(self._task_output(index), self._buffer * self._average_block(index))

    def _usage(self, index: int) -> float:
        return self._held[index] + self._running[index] * self._pending(index)

    def _admits(self, index: int) -> bool:
        """Whether one more task of a stage may start."""
        if self._running[index] >= self._limit[index]:
            return False
        if not self._pushes[index]:
            return True
        if self._reservation > 0:
            return self._within_reservation(index)
        if self._policy:
            return self._within_budget(index)
        total = sum(self._usage(i) for i, pushes in enumerate(self._pushes) if pushes)
        return self._running[index] == 0 == self._held[index] or total + self._pending(index) <= self._budget

    def _within_budget(self, index: int) -> bool:
        """A source pays for all that its task will make; what others make replaces what they read."""
        if self._job.stages[index].inputs:
            return True
        sources = [s.index for s in self._job.stages if not s.inputs]
        used = sum(h for h, pushes in zip(self._held, self._pushes, strict=True) if pushes)
        promised = sum(self._running[s] * self._task_output(s) for s in sources)
        return used + promised == 0 or used + promised + self._task_output(index) <= self._budget

    def _within_reservation(self, index: int) -> bool:
        used = [self._usage(i) if pushes else 0.0 for i, pushes in enumerate(self._pushes)]
        shared = self._budget * (1 - self._reservation) - sum(max(u - self._reserved, 0.0) for u in used)
        own = max(self._reserved - used[index], 0.0) + max(shared, 0.0) / max(sum(self._pushes), 1)
        return used[index] == 0 or self._pending(index) <= own


#: what differs where no executor stands between the driver and plain tasks
CORE = (
    Constant(name="round_s", value=0.0, source="the driver takes what is ready one by one: ray.wait(num_returns=1)"),
    Constant(name="launch_s", value=2e-3, source="driver's time a plain task, from their plateau in the scalability table",
             fitted="scalability: ray_tasks at 32 nodes"),
    Constant(name="done_s", value=1e-3, source="as launch_s", fitted="scalability: ray_tasks at 32 nodes"),
    Constant(name="task_s", value=90e-3, source="lease on the node of its input, dispatch and reply",
             fitted="scalability: ray_tasks at 1 node"),
    Constant(name="startup_s", value=0.0, source="there is no plan and no executor to set up"),
)  # fmt: skip


def pool_of(needs_cpus: float, cpus: int, pools: int) -> tuple[int, float]:
    """(actors, CPUs that each claims) of a stateful kernel whose pool the plan leaves open, tuned: an actor a CPU of the cluster.

    An actor holds what it claims while it lives, so that the actors of all ``pools`` together claim half of what they need, and leave a
    whole CPU to read with: else Ray waits for ever.
    """
    actors = max(1, int(cpus / needs_cpus))
    return actors, min(needs_cpus / 2, (cpus - 1) / actors) / pools


def plan(job: Job, chosen: Mapping[str, Any], cluster: ClusterSpec) -> Job:
    """Real kernels that keep state run in such pools, as the tuned adapter has it."""
    open_pools = [s.index for s in job.stages if _is_open_pool(s)]
    stages = list(job.stages)
    for index in open_pools:
        stage = stages[index]
        actors, claim = pool_of(stage.resources.cpus, cluster.cpus, len(open_pools))
        pool = Concurrency(minimum=actors, maximum=actors)
        stages[index] = replace(stage, resources=replace(stage.resources, cpus=claim), concurrency=pool)
    return replace(job, stages=tuple(stages))


def _is_open_pool(stage: Stage) -> bool:
    real = any(isinstance(s.phase, MapBatches) for s in program(stage).steps)
    needs = stage.resources
    return real and stage.state.kind == "actor" and stage.concurrency is None and needs.cpus > 0 and not needs.gpus


def costs(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Plain tasks have constants of their own."""
    return {c.name: c.value for c in CORE} if chosen["executor"] == "core" else {}


ENTRY = ModelEntry(
    name="ray",
    build=Ray,
    plan=plan,
    traits=TRAITS,
    costs=costs,
    variants={"executor core": CORE},
    world={
        "store_bytes": Option(name="object_store", check=parse_bytes, default=None,
            doc="object store of all nodes; default 30 % of their memory"),
        "block_bytes": Option(name="block", default="128MiB", doc="target block size: a task's output is cut into blocks of about it"),
        "kill": Option(
            name="memory_usage_threshold", default=0.95, doc="share of a node's memory above which workers are killed; 0: never"
        ),
        "page_cache": PAGE_CACHE,
        "prefetch": Option(
            name="prefetch", default=True, choices=(True, False), doc="fetch the inputs of a queued task while its actor is busy"
        ),
        "generator": Option(
            name="generator", default=True, choices=(True, False), doc="a task's output leaves it block by block (streaming generators)"
        ),
        "fuse": Option(name="fuse", default=False, doc="fuse operators with equal resources", choices=(True, False)),
    },
    options=(
        Option(
            name="executor", default="data", choices=("data", "core"),
            doc="data: Ray Data's streaming executor; core: plain tasks that one driver sends and awaits",
        ),
        Option(name="block", default="128MiB", doc="target block size: a task's output is cut into blocks of about it"),
        Option(name="op_reservation", default=0.5, doc="share of the budget that is reserved for the operators in equal parts"),
        Option(name="budget_fraction", default=0.5, doc="share of the object store that queued blocks and running tasks may fill"),
        Option(
            name="budget_policy", default=True, choices=(True, False),
            doc="with op_reservation = 0: hold back the source alone until the budget has room for all that its task will make",
        ),
        Option(name="generator_buffer", default=2, doc="blocks that a running task may have made before they are taken"),
        Option(name="backpressure", default=True, doc="whether budgets hold operators back", choices=(True, False)),
        Option(name="autoscale", default=True, doc="whether actor pools grow above their minimum", choices=(True, False)),
        Option(name="num_cpus", default=None, doc="CPUs offered to the engine; default all"),
        Option(name="num_gpus", default=None, doc="devices offered to the engine; default all"),
        Option(
            name="materialize", default=False, choices=(True, False),
            doc="materialise every operator's output before the next begins (Dataset.materialize): the staged way",
        ),
        Option(
            name="tasks_in_flight", default=2,
            doc="tasks that an actor has in flight, 2 x its max_concurrency: it takes those first whose input is on its node",
        ),
        Option(name="locality", default=True, doc="whether tasks go to the nodes of their inputs", choices=(True, False)),
        DOWNSTREAM_FIRST,
        RECOMPUTE,
        Option(name="concurrency", default=None, doc="most tasks of an operator that run at once, by operator: { load = 4 }"),
    ),
    features={
        "backpressure": "an object store budget, by operator or for the source alone",
        "spill": "blocks beyond the object store go to local disk through the page cache",
    },
)  # fmt: skip
