"""What every embedded model must keep track of: workers and their slots, tasks and attempts, blocks and who still needs them.

A `Ledger` is bookkeeping without policy: it knows who could take a task (`Slots`) and writes down what was launched, finished or
lost. When to launch what is the model's business. Integers and slots only: it is the hot path of simulations with millions of
tasks.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from windtunnel.engines.models.gates import Gates
from windtunnel.engines.models.lineage import Lineage
from windtunnel.engines.models.slots import Slots, Worker
from windtunnel.model import (
    Action,
    Block,
    Cancel,
    Fail,
    Job,
    Launch,
    NodeLost,
    NodeView,
    Release,
    Stage,
    TaskFailed,
    View,
    Wave,
    WaveDone,
    WorkerLost,
)

MAX_ATTEMPTS = 4  # as Spark's spark.task.maxFailures (4.x default)
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
    again: bool = False  # it makes lost blocks again: see `lineage`


@dataclass(slots=True)
class Again:
    """A block that was made again: the lost one whose place it took (None: spare), and the tasks that need not wait any more."""

    old: int | None
    ready: list[Task]


class Ledger(Slots):
    """Slots, tasks and blocks of one job."""

    def __init__(self, job: Job, view: View, *, actors_yield: bool = False) -> None:
        super().__init__(job, view, actors_yield=actors_yield)
        self.tasks: dict[int, Task] = {}
        self.blocks: dict[int, Block] = {}
        self.order: dict[int, Order] = {}
        self.readers: dict[int, int] = {}  # block → consumer stages that still need it
        self.consumers = [job.consumers(s.index) for s in job.stages]
        self.lineage = Lineage(self) if view.volatile else None
        self.gates: Gates | None = None  # of a recorded job: who reads which block
        self._next_task = 0
        self.running = 0
        self.attempts_lost = 0

    # -- waves -------------------------------------------------------------------------------------------------------

    def wave_of(self, stage: Stage, plenty: float) -> Wave | None:
        """A wave of a source stage, if every pool worker can take a task of it at any time."""
        need = stage.resources
        if need.gpus or need.custom or not float(need.cpus * 1024).is_integer():  # sums of such numbers are exact
            return None
        if any(w.stage >= 0 for w in self.workers.values()):
            return None
        if need.cpus and any(n * need.cpus > self._cpus[k] for k, n in Counter(w.node for w in self.workers.values()).items()):
            return None
        return Wave(stage.index, self._next_task, plenty)

    def wave_done(self, event: WaveDone, stage: Stage, blocks: Sequence[Block]) -> None:
        """Everything that its launches and ends would have left here."""
        for p in range(stage.partitions or 0):
            self.new_task(stage.index, p, (p,))
        for block in blocks:
            self.emitted(block)
        for worker_id in event.idle:
            self.workers[worker_id].up = True
            self._coming[-1].discard(worker_id)
            if self._idle_on is not None:
                self._idle_on[self.workers[worker_id].node].append(worker_id)
        like = self._like[stage.index]
        for other, queue in self._idle_for.items():
            queue.extend(event.queues[0] if other == like else event.idle)
        self._behind[like].extend(event.queues[1])

    # -- tasks -------------------------------------------------------------------------------------------------------

    def new_task(self, stage: int, partition: int, order: Order, blocks: tuple[int, ...] = (), split: int = 0) -> Task:
        """A task not launched yet."""
        task = Task(self._next_task, stage, partition, order, blocks, split)
        self._next_task += 1
        self.tasks[task.id] = task
        if self.lineage is not None:
            self.lineage.launched(task)
        return task

    def launch(self, task: Task, worker: Worker, sides: tuple[tuple[int, ...], ...] = ()) -> Launch:
        """Write down that ``task`` goes to ``worker``."""
        tasks, stage = worker.tasks, task.stage
        if worker.stage >= 0:
            if not tasks:
                self._work(worker, 1)
        elif not tasks:
            worker.held = stage
            self._take(stage, worker.node, 1)
            self._behind[self._like[stage]].append(worker.id)
        tasks.append(task.id)
        if worker.stage >= 0:
            self._actor_has(worker)
        task.worker = worker.id
        self.running += 1
        return Launch(task.id, stage, task.partition, worker.id, task.attempt, task.blocks, task.split, sides, task.emitted,
                      task.again)  # fmt: skip

    def emitted(self, block: Block) -> Again | None:
        """A task emitted ``block``; where a lost block was made again, what that means."""
        task = self.tasks[block.task]
        if task.again:
            return self._emitted_again(task, block)
        if self.lineage is not None:
            self.lineage.made(block, task.emitted)
        self.blocks[block.id] = block
        self.order[block.id] = (*task.order, task.emitted)
        self.readers[block.id] = self._readers_of(block, task)
        task.emitted += 1
        task.output_bytes += block.bytes
        return None

    def emitted_last(self, blocks: Sequence[Block]) -> bool:
        """A task emitted these with its end, and maybe others before: as `emitted` one by one. False: it must be one by one."""
        task = self.tasks[blocks[0].task]
        if task.again or self.lineage is not None:
            return False
        known, order, readers = self.blocks, self.order, self.readers
        of_task, count, number = task.order, self._readers_of(blocks[0], task), task.emitted
        for block in blocks:
            known[block.id] = block
            order[block.id] = (*of_task, number)
            readers[block.id] = count
            number += 1
        task.emitted = number
        task.output_bytes += sum([b.bytes for b in blocks])
        return True

    def _readers_of(self, block: Block, task: Task) -> int:
        return len(self.consumers[task.stage]) if self.gates is None else self.gates.readers(block, task.partition)

    def _emitted_again(self, task: Task, block: Block) -> Again:
        assert self.lineage is not None
        old = self.lineage.emitted(task, block)
        task.emitted += 1
        if old is None or old not in self.readers:  # nobody lost it, or nobody needs it any more
            if old is not None:
                self.lineage.missing.pop(old, None)
            return Again(None, [])
        self.blocks[block.id] = block
        self.readers[block.id] = self.readers.pop(old)
        self.order[block.id] = self.order.pop(old, (*task.order, task.emitted - 1))
        self.blocks.pop(old, None)
        return Again(old, self.lineage.replaced(old, block))

    def done(self, task_id: int) -> Task:
        """A task ended: its worker is free for another."""
        task = self._ended(task_id)
        if self.lineage is not None:
            task.blocks = self.lineage.current(task.blocks)
            if task.again:
                self.lineage.done(task)
        return task

    def _ended(self, task_id: int) -> Task:
        """A task ended, in whatever way: its worker has one less."""
        task = self.tasks[task_id]
        self.running -= 1
        worker = self.workers[task.worker]
        worker.tasks.remove(task_id)
        if worker.stage >= 0:
            if not worker.tasks:
                self._work(worker, -1)
            self._actor_has(worker)
        elif worker.tasks:
            self._behind[self._like[worker.held]].append(worker.id)
        else:
            self._take(worker.held, worker.node, -1)
            worker.held = -1
            self._idle(worker)
        return task

    def cancel(self, task_id: int) -> Cancel:
        """A task's worker shall drop it and is free for another."""
        worker = self.tasks[task_id].worker
        self._ended(task_id)
        return Cancel(task_id, worker)

    def failed(self, task_id: int, event: TaskFailed) -> Fail | None:
        """A task raised: frees its worker; None when it may be launched again."""
        task = self._ended(task_id)
        task.worker = -1
        if event.input_lost:
            return None
        task.attempt += 1
        reason, retriable, operator = event.reason, event.retriable, event.operator
        return self.give_up(task, reason, operator) if not retriable or task.attempt >= MAX_ATTEMPTS else None

    def give_up(self, task: Task, reason: str, operator: str | None = None) -> Fail:
        """The end of a job whose task cannot succeed."""
        return Fail(reason, operator or self.job.stages[task.stage].name, task.partition)

    def consumed(self, block_ids: Iterable[int]) -> list[Action]:
        """A consumer stage needs these no more; a `Release` of those that nobody needs."""
        free = []
        if self.lineage is not None:
            block_ids = self.lineage.current(tuple(block_ids))
        readers = self.readers
        for block_id in block_ids:
            left = readers[block_id] - 1
            if left > 0:
                readers[block_id] = left
            else:
                free.append(block_id)
                del readers[block_id]
                self.blocks.pop(block_id, None)
                self.order.pop(block_id, None)
        return [Release(tuple(free))] if free else []

    def partition_inputs(
        self, outputs: Sequence[Iterable[int]], unread: list[int] | None = None
    ) -> dict[int, tuple[tuple[int, ...], int]]:
        """Blocks by partition that every input has one for, and how many are of the first input; ``unread`` gets the others."""
        shares: list[dict[int, list[int]]] = []
        for blocks in outputs:
            share: dict[int, list[int]] = {}
            for block_id in self.in_order(blocks):
                share.setdefault(self.blocks[block_id].partition, []).append(block_id)
            shares.append(share)
        inputs: dict[int, tuple[tuple[int, ...], int]] = {}
        for p in sorted(set().union(*shares)):
            parts = [share.get(p, []) for share in shares]
            ids = tuple(b for part in parts for b in part)
            if all(parts):
                inputs[p] = ids, len(parts[0])
            elif unread is not None:
                unread += ids
        return inputs

    def partition_tasks(self, stage: Stage, outputs: Sequence[Iterable[int]]) -> tuple[list[Task], list[int]]:
        """A task for each partition that every input has a block for, and the blocks that no task reads."""
        unread: list[int] = []
        inputs = self.partition_inputs(outputs, unread)
        return [self.new_task(stage.index, p, (p,), ids, split) for p, (ids, split) in inputs.items()], unread

    def lost(self, worker_id: int, counts: bool = True) -> tuple[list[Task], list[Action]]:
        """A worker died: its tasks to launch again, and the action that replaces it. ``counts``: as an attempt of what it ran."""
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return [], []
        self.attempts_lost += 1
        self.drop(worker)
        orphans = [self.tasks[t] for t in worker.tasks]
        self.running -= len(orphans)
        for position, task in enumerate(orphans):
            task.worker = -1
            if position == 0 and counts:  # only the first was running
                self._died(task)
        if worker.stage >= 0:
            self._short[worker.stage] += 1
            return orphans, self._replace_actors()
        return orphans, [self._start(worker.node, -1)]

    def _died(self, task: Task) -> None:
        """A task's worker died with it: one attempt less is left for it, and for whoever makes the same again."""
        task.attempt += 1
        if task.again and self.lineage is not None:
            self.lineage.died(task)

    def orphans(self, event: WorkerLost) -> tuple[list[Task], list[Action]]:
        """What a worker's death leaves: tasks to launch again, the last one first, and its replacement; or the job's end."""
        tasks, actions = self.lost(event.worker, not event.for_memory)
        for task in tasks:
            if task.attempt >= MAX_ATTEMPTS:
                return [], [self.give_up(task, f"its worker died {MAX_ATTEMPTS} times")]
        return tasks[::-1], actions

    # -- nodes come and go -------------------------------------------------------------------------------------------

    def node_lost(self, event: NodeLost) -> tuple[list[Task], list[Task], list[Action]]:
        """A node is gone: its tasks to launch again, tasks that make its blocks again, and actors that replace its own."""
        assert self.lineage is not None, "a world that loses nodes must say that it is volatile"
        gone = [w for w in self.workers.values() if w.node == event.node]
        orphans: list[Task] = []
        for worker in gone:
            del self.workers[worker.id]
            for position, task_id in enumerate(worker.tasks):
                task = self.tasks[task_id]
                task.worker = -1
                if position == 0:
                    self._died(task)
                orphans.append(task)
            if worker.stage >= 0:
                self.actors[worker.stage].remove(worker.id)
        self.running -= len(orphans)
        for books in (self._cpus, self._unheld, self._gpus, self._custom):
            books.pop(event.node, None)
        if self._idle_on is not None:
            self._idle_on.pop(event.node, None)
        for parked in self._parked.values():
            parked.pop(event.node, None)
        redos = self.lineage.lose(event.lost)
        self._short += Counter(w.stage for w in gone if w.stage >= 0)
        return orphans[::-1], redos, self._replace_actors()

    def _replace_actors(self) -> list[Action]:
        """Actors in place of lost ones, as far as there is room; the others when a node joins."""
        actions: list[Action] = []
        for stage in sorted(self._short):
            while self._short[stage] and (action := self.start_actor(stage)) is not None:
                self._short[stage] -= 1
                actions.append(action)
        return actions

    def node_joined(self, node: NodeView) -> list[Action]:
        """A node is there: pool workers on it."""
        self._cpus[node.node] = self._unheld[node.node] = node.cpus
        self._gpus[node.node], self._custom[node.node] = node.gpus, dict(node.custom)
        if self._idle_on is not None:
            self._idle_on[node.node] = deque()
        return [*self._replace_actors(), *(self._start(node.node, -1) for _ in range(self._pool_per_node(node)))]

    def node_leaving(self, node: int) -> None:
        """A node has room for nothing any more; what runs there ends."""
        if node in self._cpus:
            self._cpus[node] = self._unheld[node] = -math.inf

    def device_lost(self, node: int) -> None:
        """One device less; who held it is reported lost separately."""
        if node in self._gpus:
            self._gpus[node] -= 1

    def waits(self, task: Task) -> bool:
        """Whether an input of ``task`` is being made again; it is handed out again when that is done."""
        return self.lineage is not None and self.lineage.holds(task)

    def lacks(self, blocks: Iterable[int]) -> bool:
        """Whether some of these blocks are being made again."""
        return self.lineage is not None and bool(self.lineage.missing) and any(b in self.lineage.missing for b in blocks)

    def in_order(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        """Block ids by the order of their lineage."""
        return tuple(sorted(block_ids, key=self.order.__getitem__))
