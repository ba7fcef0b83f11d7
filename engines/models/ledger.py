"""What every embedded model must keep track of: workers and their slots, tasks and attempts, blocks and who still needs them.

A `Ledger` is bookkeeping without policy: it answers "which worker could take a task of this stage" and writes down what was
launched, finished or lost. When to launch what is the model's business. Integers and slots only: it is the hot path of
simulations with millions of tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from windtunnel.model import Action, Block, Fail, Job, Launch, Release, Stage, StartWorker, StopWorker, View, WorkerLost

MAX_ATTEMPTS = 4  # as Spark's spark.task.maxFailures (4.x default)
MOST_REFUSED = 64  # workers looked at for one task, so that a full cluster costs no search through all of it
Order = tuple[int, ...]


@dataclass(slots=True)
class Task:
    """A unit of work, launched once an attempt."""

    id: int
    stage: int
    partition: int
    order: Order
    blocks: tuple[int, ...] = ()
    split: int = 0
    attempt: int = 0
    emitted: int = 0
    worker: int = -1
    output_bytes: int = 0


@dataclass(slots=True)
class Worker:
    """A process. ``stage`` ≥ 0: an actor of that stage. ``tasks`` are those sent to it, running one first."""

    id: int
    node: int
    stage: int
    up: bool = False
    stopping: bool = False
    tasks: list[int] = field(default_factory=list)
    held: int = -1  # stage whose resources a pool worker occupies


class Ledger:
    """Slots, tasks and blocks of one job."""

    def __init__(self, job: Job, view: View) -> None:
        self.job = job
        self.tasks: dict[int, Task] = {}
        self.blocks: dict[int, Block] = {}
        self.order: dict[int, Order] = {}
        self.readers: dict[int, int] = {}  # block → consumer stages that still need it
        self.workers: dict[int, Worker] = {}
        # Pool workers by number of tasks (0, 1). Entries may be stale: they are checked, and dropped, when looked at.
        self._by_load: tuple[deque[int], deque[int]] = (deque(), deque())
        # The same by node, for tasks that would rather run beside their input; None on a single node.
        self._idle_on: dict[int, deque[int]] | None = {n.node: deque() for n in view.nodes} if len(view.nodes) > 1 else None
        self.actors: dict[int, list[int]] = {s.index: [] for s in job.stages if s.state.kind == "actor"}
        self.consumers = [job.consumers(s.index) for s in job.stages]
        self._needs = [(s.resources.cpus, s.resources.gpus, s.resources.custom) for s in job.stages]
        self._cpus = {n.node: n.cpus for n in view.nodes}
        self._gpus = {n.node: n.gpus for n in view.nodes}
        self._custom = {n.node: dict(n.custom) for n in view.nodes}
        self._simple = all(not s.resources.custom for s in job.stages)
        self._next_task = 0
        self._next_worker = 0
        self.running = 0
        self.attempts_lost = 0

    # -- workers -----------------------------------------------------------------------------------------------------

    def start_pool(self, view: View) -> list[Action]:
        """One pool worker a CPU slot of the smallest stateless stage, and one a device where such a stage wants devices."""
        stateless = [s.resources for s in self.job.stages if s.state.kind == "stateless"]
        smallest = min((r.cpus for r in stateless if r.cpus > 0), default=1.0)
        wants_device = any(r.gpus > 0 for r in stateless)
        free_riders = any(r.cpus == 0 and r.gpus == 0 for r in stateless)
        actions: list[Action] = []
        for node in view.nodes:
            count = int(min(self._cpus[node.node] / smallest, 4 * node.cpus) + 1e-9) + (int(node.gpus) if wants_device else 0)
            actions += [self._start(node.node, -1) for _ in range(max(count, 1 if free_riders else 0))]
        return actions

    def start_actor(self, stage: int) -> Action | None:
        """An actor on the first node with room; it holds its resources while it lives."""
        for node in self._cpus:
            if self._fits(stage, node):
                self._take(stage, node, 1)
                action = self._start(node, stage)
                self.actors[stage].append(action.worker)
                return action
        return None

    def _start(self, node: int, stage: int) -> StartWorker:
        worker = Worker(self._next_worker, node, stage)
        self._next_worker += 1
        self.workers[worker.id] = worker
        return StartWorker(worker.id, node, stage)

    @property
    def starting(self) -> bool:
        """Whether a worker is on its way: its arrival will be an event."""
        return any(not w.up for w in self.workers.values())

    def joined(self, worker_id: int) -> None:
        """A worker is up."""
        worker = self.workers[worker_id]
        worker.up = True
        if worker.stage < 0:
            self._idle(worker)

    def _idle(self, worker: Worker) -> None:
        self._by_load[0].append(worker.id)
        if self._idle_on is not None:
            self._idle_on[worker.node].append(worker.id)

    def stop_actors(self, stage: int) -> list[Action]:
        """Stop all actors of a stage."""
        actions: list[Action] = [StopWorker(w) for w in self.actors.get(stage, ())]
        for worker_id in self.actors.get(stage, ()):
            self._forget_actor(worker_id)
        self.actors[stage] = []
        return actions

    def stop_actor(self, worker_id: int) -> Action:
        """Stop one idle actor."""
        self.actors[self.workers[worker_id].stage].remove(worker_id)
        self._forget_actor(worker_id)
        return StopWorker(worker_id)

    def _forget_actor(self, worker_id: int) -> None:
        worker = self.workers.pop(worker_id)
        self._take(worker.stage, worker.node, -1)

    def lost(self, worker_id: int) -> tuple[list[Task], list[Action]]:
        """A worker died: its tasks to launch again, and the action that replaces it."""
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return [], []
        self.attempts_lost += 1
        if worker.held >= 0:
            self._take(worker.held, worker.node, -1)
        orphans = [self.tasks[t] for t in worker.tasks]
        self.running -= len(orphans)
        for position, task in enumerate(orphans):
            task.worker = -1
            task.attempt += 1 if position == 0 else 0  # only the first was running
        if worker.stage >= 0:
            self.actors[worker.stage].remove(worker_id)
            self._take(worker.stage, worker.node, -1)
            again = self.start_actor(worker.stage)
            return orphans, [again] if again else []
        return orphans, [self._start(worker.node, -1)]

    # -- resources ---------------------------------------------------------------------------------------------------

    def _fits(self, stage: int, node: int) -> bool:
        cpus, gpus, custom = self._needs[stage]
        if self._cpus[node] + 1e-9 < cpus or self._gpus[node] + 1e-9 < gpus:
            return False
        return self._simple or all(self._custom[node].get(tag, 0.0) + 1e-9 >= amount for tag, amount in custom)

    def _take(self, stage: int, node: int, sign: int) -> None:
        cpus, gpus, custom = self._needs[stage]
        self._cpus[node] -= sign * cpus
        self._gpus[node] -= sign * gpus
        for tag, amount in custom:
            self._custom[node][tag] = self._custom[node].get(tag, 0.0) - sign * amount

    def feasible(self, stage: Stage, view: View) -> str | None:
        """Why no node could ever run a task of ``stage``, or None."""
        r = stage.resources
        for node in view.nodes:
            tags = dict(node.custom)
            if node.cpus >= r.cpus and node.gpus >= r.gpus and all(tags.get(t, 0) >= a for t, a in r.custom):
                return None
        custom = "".join(f", {amount:g} {tag}" for tag, amount in r.custom)
        return f"stage {stage.name!r} asks for {r.cpus:g} CPUs, {r.gpus:g} devices{custom} a task; no node has that much"

    def worker_for(self, stage: int, *, ahead: bool, task: Task | None = None) -> Worker | None:
        """A worker that can take a task of ``stage`` now; ``ahead`` allows one queued behind a running task.

        One on the node of ``task``'s first block is preferred, where a task is named and the cluster has several nodes.
        """
        if stage in self.actors:
            return self._actor_for(stage)
        if task is not None and task.blocks and self._idle_on is not None:
            near = self._first(stage, 0, self._idle_on.get(self.blocks[task.blocks[0]].node))
            if near is not None:
                return near
        if self._by_load[0] and (idle := self._first(stage, 0)) is not None:
            return idle
        return self._first(stage, 1) if ahead else None

    def _first(self, stage: int, load: int, among: deque[int] | None = None) -> Worker | None:
        """A pool worker with ``load`` tasks that can take one of ``stage``; entries that became stale are dropped on the way."""
        queue = self._by_load[load] if among is None else among
        workers, needs, refused = self.workers, self._needs, 0
        while queue and refused < MOST_REFUSED:
            worker = workers.get(queue[0])
            if worker is None or len(worker.tasks) != load:
                queue.popleft()
            elif self._fits(stage, worker.node) if load == 0 else needs[worker.held] == needs[stage]:
                return worker
            else:
                queue.rotate(-1)
                refused += 1
        return None

    def _actor_for(self, stage: int) -> Worker | None:
        """The least loaded actor with fewer than two tasks."""
        best: Worker | None = None
        for worker_id in self.actors[stage]:
            worker = self.workers[worker_id]
            if worker.up and len(worker.tasks) < 2 and (best is None or len(worker.tasks) < len(best.tasks)):
                best = worker
        return best

    # -- tasks -------------------------------------------------------------------------------------------------------

    def new_task(self, stage: int, partition: int, order: Order, blocks: tuple[int, ...] = (), split: int = 0) -> Task:
        """A task not launched yet."""
        task = Task(self._next_task, stage, partition, order, blocks, split)
        self._next_task += 1
        self.tasks[task.id] = task
        return task

    def launch(self, task: Task, worker: Worker, sides: tuple[tuple[int, ...], ...] = ()) -> Launch:
        """Write down that ``task`` goes to ``worker``."""
        if worker.stage < 0:
            if not worker.tasks:
                worker.held = task.stage
                self._take(task.stage, worker.node, 1)
                self._by_load[1].append(worker.id)
        worker.tasks.append(task.id)
        task.worker = worker.id
        self.running += 1
        return Launch(task.id, task.stage, task.partition, worker.id, task.attempt, task.blocks, task.split, sides, task.emitted)

    def emitted(self, block: Block) -> None:
        """A task emitted ``block``."""
        task = self.tasks[block.task]
        self.blocks[block.id] = block
        self.order[block.id] = (*task.order, task.emitted)
        self.readers[block.id] = len(self.consumers[block.stage])
        task.emitted += 1
        task.output_bytes += block.bytes

    def done(self, task_id: int) -> Task:
        """A task ended: its worker is free for another."""
        task = self.tasks[task_id]
        self.running -= 1
        self._free(task)
        return task

    def failed(self, task_id: int, reason: str, retriable: bool, operator: str | None) -> Fail | None:
        """A task raised: frees its worker; None when it may be launched again."""
        task = self.done(task_id)
        task.worker = -1
        task.attempt += 1
        return self.give_up(task, reason, operator) if not retriable or task.attempt >= MAX_ATTEMPTS else None

    def give_up(self, task: Task, reason: str, operator: str | None = None) -> Fail:
        """The end of a job whose task cannot succeed."""
        return Fail(reason, operator or self.job.stages[task.stage].name, task.partition)

    def _free(self, task: Task) -> None:
        worker = self.workers[task.worker]
        worker.tasks.remove(task.id)
        if worker.stage >= 0:
            return
        if not worker.tasks:
            self._take(worker.held, worker.node, -1)
            worker.held = -1
        if worker.tasks:
            self._by_load[1].append(worker.id)
        else:
            self._idle(worker)

    def consumed(self, block_ids: Iterable[int]) -> list[Action]:
        """A consumer stage needs these no more; a `Release` of those that nobody needs."""
        free = []
        for block_id in block_ids:
            self.readers[block_id] -= 1
            if self.readers[block_id] <= 0:
                free.append(block_id)
                del self.readers[block_id], self.blocks[block_id], self.order[block_id]
        return [Release(tuple(free))] if free else []

    def partition_tasks(self, stage: Stage, outputs: Sequence[Iterable[int]]) -> tuple[list[Task], list[int]]:
        """A task for each partition that every input has a block for, and the blocks that no task reads."""
        shares: list[dict[int, list[int]]] = []
        for blocks in outputs:
            share: dict[int, list[int]] = {}
            for block_id in self.in_order(blocks):
                share.setdefault(self.blocks[block_id].partition, []).append(block_id)
            shares.append(share)
        tasks: list[Task] = []
        unread: list[int] = []
        for p in range(stage.partitions or 0):
            parts = [share.get(p, []) for share in shares]
            ids = tuple(b for part in parts for b in part)
            if all(parts):
                tasks.append(self.new_task(stage.index, p, (p,), ids, len(parts[0])))
            else:
                unread += ids
        return tasks, unread

    def orphans(self, event: WorkerLost) -> tuple[list[Task], list[Action]]:
        """What a worker's death leaves: tasks to launch again, the last one first, and its replacement; or the job's end."""
        if needed := [b for b in event.lost_blocks if b in self.blocks]:
            why = f"{len(needed)} blocks were lost with worker {event.worker}; this model does not recompute blocks"
            return [], [Fail(why)]
        tasks, actions = self.lost(event.worker)
        for task in tasks:
            if task.attempt >= MAX_ATTEMPTS:
                return [], [self.give_up(task, f"its worker died {MAX_ATTEMPTS} times")]
        return tasks[::-1], actions

    def in_order(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        """Block ids by the order of their lineage."""
        return tuple(sorted(block_ids, key=self.order.__getitem__))
