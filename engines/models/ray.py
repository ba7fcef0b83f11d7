"""Ray Data's streaming execution: blocks flow between operators of tasks and actor pools, bounded by an object store budget.

What the model knows, with its source (Ray 2.44 unless said otherwise; "the paper" is arXiv 2501.12407):

* Who may send one more task is a policy of the release: `windtunnel.engines.models.ray_budgets`, which the options ``policy``, ``release``,
  ``op_reservation``, ``budget_fraction`` and ``generator_buffer`` choose and tell.
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

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from windtunnel.engines.models.ledger import Task
from windtunnel.engines.models.pools import one_more
from windtunnel.engines.models.ray_budgets import (
    MODERN,
    Operator,
    Paced,
    Policy,
    Reserved,
    Threshold,
    rules,
)
from windtunnel.engines.models.slots import Worker
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.models.views import Offered
from windtunnel.engines.physical import program
from windtunnel.model import Action, Block, Event, Job, Launch, Note, Stage, Tick, View, Wake, Woken, WorkerLost
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Concurrency, MapBatches
from windtunnel.spec.units import parse_bytes

RETRY_S, LONGEST_RETRY_S = 1.0, 60.0  # task_oom_retry_delay_base_ms, and the cap of the docs
ROUND_S = 0.1  # ray.wait's timeout
LIMITS_S = 1.0  # GLOBAL_LIMITS_UPDATE_INTERVAL_S: the coordinator's first answer is that there is nothing (2.60)


class Ray(Streaming):
    """The model; see the module for the rules and their sources."""

    actors_yield = False

    def __init__(
        self,
        *,
        policy: str | None = None,
        release: str | None = None,
        budget_fraction: float | None = None,
        op_reservation: float = 0.5,
        budget_policy: bool | None = None,
        generator_buffer: int = 2,
        limits_s: float | None = None,
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
        self._plain = executor == "core"
        self.in_rounds = not self._plain
        super().__init__(
            backpressure=backpressure and not materialize and not self._plain, autoscale=autoscale, ahead=False, locality=locality,
            downstream_first=downstream_first, recompute=recompute,
        )  # fmt: skip
        self._rules = rules(policy, release, op_reservation, budget_policy)
        self.tick_s = ROUND_S if self._rules.policy == "paced" else 0.0
        self._in_flight = tasks_in_flight
        self._fraction = budget_fraction
        self._reservation = op_reservation
        self._buffer = generator_buffer
        modern = self._rules.release == MODERN and self.in_rounds
        self._known_s = (LIMITS_S if modern else 0.0) if limits_s is None else limits_s
        self._offer = (num_cpus, num_gpus)
        self._caps = concurrency or {}
        self._materialize = materialize
        self._block_bytes = parse_bytes(block)

    def start(self, job: Job, view: View) -> list[Action]:
        """As `Streaming`, within the offered CPUs and devices."""
        count = len(job.stages)
        self._resting: dict[int, Task] = {}  # killed for memory, by number
        self._kills: dict[int, int] = {}  # how often before
        self._kept: list[list[Action]] = [[] for _ in range(count)]  # releases of materialised inputs, by their reader
        self._sent_s: dict[int, float] = {}
        self._round_over = self._plain
        offered = Offered(view, *self._offer)
        actions = super().start(job, offered)
        self._operators = [self._operator(s) for s in job.stages]
        self._policy = self._policy_of(offered)
        return actions

    def _operator(self, stage: Stage) -> Operator:
        actors, needs = stage.state.kind == "actor", stage.resources
        pool = stage.concurrency.minimum if stage.concurrency else 1
        return Operator(
            cpus=0.0 if actors else needs.cpus, gpus=needs.gpus, actors=actors, bounded=self._pushes[stage.index],
            most=min((self._caps[o] for o in stage.operators if o in self._caps), default=math.inf), least_pool_cpus=pool * needs.cpus,
        )  # fmt: skip

    def _policy_of(self, view: View) -> Policy:
        policy, release, usual = self._rules
        cpus, gpus = sum(n.cpus for n in view.nodes), sum(n.gpus for n in view.nodes)
        memory = view.store_limit_bytes * (usual if self._fraction is None else self._fraction)
        unknown = 0.0 if release == MODERN else float(self._block_bytes)
        if policy == "reserved":
            return Reserved(operators=self._operators, cpus=cpus, memory=memory, ratio=self._reservation, buffer=self._buffer,
                            unknown=unknown, modern=release == MODERN)  # fmt: skip
        kind = Paced if policy == "paced" else Threshold
        return kind(operators=self._operators, cpus=cpus, gpus=gpus, memory=memory, buffer=self._buffer, unknown=unknown)

    def _sides_complete(self, index: int) -> bool:
        inputs_done = not self._materialize or all(self._complete[i.stage] for i in self._job.stages[index].inputs)
        return inputs_done and super()._sides_complete(index)

    # -- rounds ------------------------------------------------------------------------------------------------------

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As `Streaming`; tasks are sent at the end of a round (a `Tick`); those that were killed for memory come back after a while."""
        self._now_s = view.now
        if type(event) is Woken and event.key in self._resting:
            task = self._resting.pop(event.key)
            self._waiting[task.stage] -= 1
            self._hand_out(task)
        self._round_over = type(event) is Tick
        return super().on_event(event, view)

    def readable(self, view: View) -> Sequence[float]:
        """Bytes of each operator's blocks that the executor reads now."""
        if not isinstance(self._policy, Reserved) or not self._backpressure:
            return [math.inf] * len(self._operators)
        self._refresh()
        return self._policy.readable(view.now)

    def _refresh(self) -> None:
        """What the policy must know of running tasks and actors."""
        for index, op in enumerate(self._operators):
            op.running = self._running[index]
            # what reads materialised inputs is a data set of its own, which there is not yet
            op.complete = self._complete[index] or (self._materialize and not self._sides_complete(index))
            op.pool_cpus = len(self._ledger.actors.get(index, ())) * self._job.stages[index].resources.cpus

    def _launch(self, actions: list[Action]) -> None:
        """Send what the policy admits, one task after the other; when nothing runs, one all the same."""
        if self._plain:
            super()._launch(actions)
            return
        if not self._round_over:
            return
        self._refresh()
        before, stuck = len(actions), set[int]()
        while (index := self._next(stuck)) is not None:
            if not self._send(index, actions):
                stuck.add(index)
        for index, held in enumerate(self._held_back):
            now = bool(self._ready[index]) and index not in stuck
            if now != held:
                self._held_back[index] = now
                actions.insert(before, Note("blocked", index, now))
        if not any(type(a) is Launch for a in actions[before:]) and not self._ledger.running and not self._ledger.starting:
            actions += self._launch_one_anyway()

    def _next(self, stuck: set[int]) -> int | None:
        """The operator that sends a task next: of those that may, the earliest or the one whose blocks take least memory."""
        if self._now_s < self._known_s:
            return None
        ops, policy = self._operators, self._policy
        able = [i for i, ready in enumerate(self._ready) if ready and i not in stuck and self._sides_complete(i)]
        if not self._backpressure:
            able = [i for i in able if ops[i].running < ops[i].most]
            return max(able, default=None) if self._downstream_first else min(able, default=None)
        if isinstance(policy, Paced):
            return next((i for i in able if policy.admits_at(i, self._now_s)), None)
        able = [i for i in able if policy.admits(i)]
        return min(able, key=policy.usage, default=None) if self._downstream_first else min(able, default=None)

    def _send(self, index: int, actions: list[Action]) -> bool:
        """Send one task of an operator; False where no worker can take it."""
        ready, ledger = self._ready[index], self._ledger
        worker = ledger.worker_for(index, False, ready[0].blocks if self.local else ())
        if worker is None:
            if index in ledger.actors and self._autoscale:
                actions += one_more(ledger, self._job.stages[index], self._unsettled)
            return False
        if self.chooses and index in ledger.actors:
            self._bring_near(index, worker.node)
        self._hand(ready.popleft(), worker, actions)
        return True

    def _launch_one(self) -> list[Action]:
        for index in self._order:
            if self._ready[index] and self._sides_complete(index):
                worker = self._ledger.worker_for(index, False)
                if worker is not None:
                    actions: list[Action] = []
                    self._hand(self._ready[index].popleft(), worker, actions)
                    return actions
        return []

    def _hand(self, task: Task, worker: Worker, actions: list[Action]) -> None:
        """A task goes to a worker, and the policy hears of it."""
        index, op = task.stage, self._operators[task.stage]
        self._running[index] += 1
        op.running, op.sent = op.running + 1, op.sent + 1
        op.read_bytes += sum([self._ledger.blocks[b].bytes for b in task.blocks])
        self._sent_s[task.id] = self._now_s
        actions.append(self._ledger.launch(task, worker, self._sides(index)))

    # -- memory ------------------------------------------------------------------------------------------------------

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

    # -- what the policy hears of ---------------------------------------------------------------------------------------

    def _new_block(self, block: Block) -> None:
        super()._new_block(block)
        op = self._operators[block.stage]
        op.made_blocks, op.made_bytes = op.made_blocks + 1, op.made_bytes + block.bytes
        if self._forward_readers[block.stage]:
            op.held_bytes += block.bytes

    def _task_done(self, task: Task) -> list[Action]:
        op = self._operators[task.stage]
        op.ended += 1
        op.ended_blocks += task.emitted
        op.ended_bytes += task.output_bytes
        op.busy_s += self._now_s - self._sent_s.pop(task.id, self._now_s)
        for block_id in task.blocks:
            block = self._ledger.blocks[block_id]
            if self._ledger.readers[block_id] == 1 and task.stage in self._forward_readers[block.stage]:
                self._operators[block.stage].held_bytes -= block.bytes
        actions = super()._task_done(task)
        if not self._materialize:
            return actions
        self._kept[task.stage] += actions
        return []

    def _on_complete(self, stage: Stage) -> list[Action]:
        """A materialised input stays until all of its readers' outputs are there."""
        kept, self._kept[stage.index] = self._kept[stage.index], []
        return kept + super()._on_complete(stage)


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
