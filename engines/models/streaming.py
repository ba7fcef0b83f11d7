"""Streaming execution: every stage runs at once; blocks flow to the next stage as soon as they exist.

The "streaming batch" model of Ray Data (arXiv 2501.12407) in its simplest sound form:

* *backpressure*: a stage may launch only while what it has emitted, and its consumers have not finished, stays below the output of
  a task and one more block a CPU (or ``queued_blocks`` blocks) and its share of the store; each running task counts as what those
  that ended have emitted on average;
* *operator scheduling*: of the stages that could launch, the one farthest downstream goes first: it empties queues that hold
  the others back, so the bottleneck is fed and memory stays low;
* *actor pools*: a stateful stage starts with its minimum; one more actor starts while all are busy with tasks queued and blocks
  are waiting, if that leaves room for the tasks of every other stage; an idle one stops when its pool gets no more work;
* *yielding*: an actor without a device holds CPUs only while it runs a task: stages that share the CPUs take turns as their queues
  ask for, without a model being loaded anew;
* *liveness*: when nothing runs or starts and only backpressure holds tasks, the farthest downstream stage launches one anyway.

An edge into a stage that waits for something that depends on the same source cannot push back (it would wait for itself).
"""

from __future__ import annotations

import math
from collections import deque

from windtunnel.engines.api import Option
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.graph import collected, forward_readers, pushes_back
from windtunnel.engines.models.handout import Handout
from windtunnel.engines.models.ledger import MAX_ATTEMPTS, Again, Ledger, Task
from windtunnel.engines.models.pools import first_actors, one_more
from windtunnel.engines.models.switches import AHEAD, DOWNSTREAM_FIRST, LOCALITY, NOT_RECOMPUTED, PAGE_CACHE, RECOMPUTE, YIELDING
from windtunnel.engines.models.traits import EMBEDDED
from windtunnel.model import (
    Action,
    Block,
    BlockReady,
    DeviceLost,
    Event,
    Fail,
    Finish,
    Job,
    NodeJoined,
    NodeLeaving,
    NodeLost,
    Note,
    Release,
    Stage,
    TaskDone,
    TaskFailed,
    View,
    Woken,
    WorkerJoined,
    WorkerLost,
)
from windtunnel.spec.units import parse_count

LEAST_QUEUED = 8  # blocks, on the smallest cluster


class Streaming:
    """The model. ``queued_blocks`` (None: the output of a task and one more block a CPU, `LEAST_QUEUED` at least) and
    ``queued_fraction`` (of the object store, shared by all edges): bounds of queued output.

    ``backpressure``, ``autoscale``, ``locality``, ``yielding``, ``downstream_first`` and ``recompute`` False switch the mechanisms off,
    ``fixed`` True the sharing of CPUs (ablations).
    """

    tick_s = 0.0
    chooses = False  # whether an actor may be given another task than the first
    actors_yield = True  # their CPUs, while they wait for a task

    def __init__(
        self,
        *,
        queued_blocks: int | None = None,
        queued_fraction: float = 0.5,
        backpressure: bool = True,
        autoscale: bool = True,
        ahead: bool = True,
        fixed: bool = False,
        locality: bool = True,
        yielding: bool = True,
        downstream_first: bool = True,
        recompute: bool = True,
    ) -> None:
        self.local = locality
        self._yielding = yielding and self.actors_yield
        self._downstream_first = downstream_first
        self._recompute = recompute
        self._most_queued = queued_blocks
        self._queued_fraction = queued_fraction
        self._backpressure = backpressure
        self._autoscale = autoscale
        self._fixed = fixed
        self._ahead = ahead  # whether a task may be queued behind a worker's running one

    def start(self, job: Job, view: View) -> list[Action]:
        """Start the pool, the minimum of every actor pool, and read."""
        self._job = job
        ledger = self._ledger = Ledger(job, view, actors_yield=self._yielding)
        for stage in job.stages:
            if why := ledger.feasible(stage, view):
                return [Fail(why, stage.name)]
        count = len(job.stages)
        self._ready: list[deque[Task]] = [deque() for _ in range(count)]
        self._running = [0] * count
        self._left_inputs = [0 if s.recorded else len(s.inputs) for s in job.stages]  # inputs not complete yet
        self._undone = [
            s.partitions or 0 if s.recorded else 0 for s in job.stages
        ]  # tasks of recorded stages that have not ended
        self._complete = [False] * count
        self._finished = False
        self._output: list[list[int]] = [[] for _ in range(count)]  # kept for partition and broadcast readers, and the result
        self._queued = [0] * count
        self._queued_bytes = [0] * count
        self._emitted_blocks = [0] * count
        self._emitted_bytes = [0] * count
        self._outputs = [(0, 0, 0)] * count  # tasks that ended, their blocks, their bytes
        self._each = [(1.0, 0.0)] * count  # the same a task, at least one block
        self._pushes = [self._backpressure and pushes_back(job, s.index) for s in job.stages]
        self._edge_bytes = view.store_limit_bytes * self._queued_fraction / max(1, sum(self._pushes))
        self._collects = [collected(job, s.index) for s in job.stages]
        self._held_back = [False] * count
        self._waiting = [0] * count  # tasks whose inputs are being made again
        self._unopened: set[int] = set()  # wide stages whose inputs are complete, but for blocks that are being made again
        self._order = tuple(s.index for s in (reversed(job.stages) if self._downstream_first else job.stages))
        self._side_inputs = [tuple(i.stage for i in s.inputs if i.mode == "broadcast") for s in job.stages]
        self._forward_readers = [forward_readers(job, s.index) for s in job.stages]
        self._unsettled = list(job.stages)  # not complete yet
        cpus = sum(n.cpus for n in view.nodes)
        self._cpus = cpus
        sharing = sum(1 for s in job.stages if s.state.kind == "stateless" and s.resources.cpus)
        self._most_running = max(1, int(cpus / max(1, sharing))) if self._fixed else math.inf
        actions: list[Action] = []
        for stage in job.stages:
            actions += first_actors(ledger, stage)
            if stage.state.kind == "actor" and not ledger.actors[stage.index]:
                why = f"no room for one actor of {stage.name!r}: other actors hold the cluster's CPUs and devices"
                return [Fail(why, stage.name)]
            if not stage.recorded and all(
                i.mode == "broadcast" for i in stage.inputs
            ):  # a source, which may wait for its side inputs
                self._ready[stage.index].extend(ledger.new_task(stage.index, p, (p,)) for p in range(stage.partitions or 0))
        actions += ledger.start_pool(view)
        if job.recorded:
            self._handout = Handout(job, ledger, lambda task: self._hand_out(task, last=True))
            actions += self._handout.begin()
        self._settle(actions)
        return actions

    def on_event(self, event: Event, view: View) -> list[Action]:
        """One event; ends with launching what slots and queues allow."""
        actions: list[Action] = []
        if type(event) is TaskDone:
            self._task_ended(event, actions)
        else:
            self._heard(event, actions)
            if actions and isinstance(actions[-1], Fail):
                return actions
            self._settle(actions)
        if not self._finished:
            self._launch(actions)
        return actions

    def _task_ended(self, event: TaskDone, actions: list[Action]) -> None:
        """A task ended, and its last blocks are there."""
        ledger = self._ledger
        for block in event.blocks:
            self._emit(block, actions)
        task = ledger.done(event.task)
        stage = task.stage
        actions += self._again_done(task) if task.again else self._task_done(task)
        if stage in ledger.actors and self._autoscale and not (self._left_inputs[stage] or self._ready[stage]):
            actions += [
                ledger.stop_actor(w) for w in ledger.idle_actors(stage)
            ]  # its pool gets no more work: others may use the slots
        if not (self._running[stage] or self._ready[stage]) or ledger.lineage is not None:
            self._settle(actions)

    def _heard(self, event: Event, actions: list[Action]) -> None:
        """What happens less often."""
        ledger = self._ledger
        if isinstance(event, BlockReady):
            self._emit(event.block, actions)
        elif isinstance(event, WorkerJoined):
            ledger.joined(event.worker)
        elif isinstance(event, Woken) and self._job.recorded:
            self._handout.woken(event.key)
        elif isinstance(event, TaskFailed):
            if fail := ledger.failed(event.task, event):
                actions.append(fail)
            else:
                self._again(ledger.tasks[event.task])
        elif isinstance(event, WorkerLost):
            actions += self._worker_lost(event)
        elif isinstance(event, NodeLost):
            actions += self._node_lost(event)
        elif isinstance(event, NodeJoined):
            actions += ledger.node_joined(event.node)
        elif isinstance(event, NodeLeaving):
            ledger.node_leaving(event.node)
        elif isinstance(event, DeviceLost):
            ledger.device_lost(event.node)

    # -- blocks and tasks --------------------------------------------------------------------------------------------

    def _emit(self, block: Block, actions: list[Action]) -> None:
        """A block arrived."""
        again = self._ledger.emitted(block)
        if again is None:
            self._new_block(block)
        else:
            actions += self._made_again(block, again)

    def _new_block(self, block: Block) -> None:
        """Forward readers get a task for it at once."""
        ledger, stage = self._ledger, block.stage
        self._emitted_blocks[stage] += 1
        self._emitted_bytes[stage] += block.bytes
        if self._collects[stage]:
            self._output[stage].append(block.id)
        if self._undone[stage]:
            self._handout.made(block)
            return
        readers = self._forward_readers[stage]
        for reader in readers:
            task = ledger.new_task(reader, ledger.tasks[block.task].partition, ledger.order[block.id], (block.id,))
            self._ready[reader].append(task)
        if readers:
            self._queued[stage] += 1
            self._queued_bytes[stage] += block.bytes

    def _task_done(self, task: Task) -> list[Action]:
        ledger, stage = self._ledger, task.stage
        self._running[stage] -= 1
        tasks, blocks, size = self._outputs[stage]
        self._outputs[stage] = tasks, blocks, size = tasks + 1, blocks + task.emitted, size + task.output_bytes
        self._each[stage] = (blocks / tasks if blocks > tasks else 1.0, size / tasks)
        del ledger.tasks[task.id]
        if self._undone[stage]:
            self._undone[stage] -= 1
            self._handout.task_ended(task)
            return ledger.consumed(task.blocks)
        for block_id in task.blocks:
            block = ledger.blocks[block_id]
            if ledger.readers[block_id] == 1 and stage in self._forward_readers[block.stage]:
                self._queued[block.stage] -= 1
                self._queued_bytes[block.stage] -= block.bytes
        return ledger.consumed(task.blocks)

    def _recorded_complete(self, stage: Stage) -> list[Action]:
        """All tasks of a recorded stage ended: what it read as a whole is free, and what waited for it may begin."""
        ledger = self._ledger
        actions = [a for s in self._handout.read_whole(stage) for a in ledger.consumed(self._output[s])]
        actions += self._handout.stage_ended(stage.index)
        if not self._unsettled:
            self._finished = True
            actions.append(Finish(tuple(b for s in self._job.sinks for b in ledger.in_order(self._output[s]))))
        return actions

    def _again(self, task: Task) -> None:
        self._running[task.stage] -= 1
        self._hand_out(task)

    # -- recovery ----------------------------------------------------------------------------------------------------

    def _hand_out(self, task: Task, last: bool = False) -> None:
        """A task goes to the front of its queue (or the ``last`` place), or waits until its lost inputs are made again."""
        if self._ledger.waits(task):
            self._waiting[task.stage] += 1
        elif last:
            self._ready[task.stage].append(task)
        else:
            self._ready[task.stage].appendleft(task)

    def _node_lost(self, event: NodeLost) -> list[Action]:
        """Tasks of the node run elsewhere, its blocks are made again, and whoever reads them waits."""
        orphans, redos, actions = self._ledger.node_lost(event)
        if redos and not self._recompute:
            return [self._ledger.give_up(redos[0], NOT_RECOMPUTED)]
        if dead := next((t for t in orphans if t.attempt >= MAX_ATTEMPTS), None):
            return [self._ledger.give_up(dead, f"its worker died {MAX_ATTEMPTS} times")]
        for index, ready in enumerate(self._ready):
            queue, self._ready[index] = ready, deque()
            for task in reversed(queue):
                self._hand_out(task)
        for task in orphans:
            self._again(task)
        for task in redos:
            self._hand_out(task)
        return actions

    def _made_again(self, block: Block, again: Again) -> list[Action]:
        if again.old is None:
            return [Release((block.id,))]
        output = self._output[block.stage]
        if again.old in output:
            output[output.index(again.old)] = block.id
        for task in again.ready:
            self._waiting[task.stage] -= 1
            self._ready[task.stage].appendleft(task)
        return []

    def _again_done(self, task: Task) -> list[Action]:
        self._running[task.stage] -= 1
        del self._ledger.tasks[task.id]
        return self._ledger.consumed(task.blocks)

    def _worker_lost(self, event: WorkerLost) -> list[Action]:
        orphans, actions = self._ledger.orphans(event)
        for task in orphans:
            self._again(task)
        return actions

    # -- completion --------------------------------------------------------------------------------------------------

    def _settle(self, actions: list[Action]) -> None:
        """Mark stages whose inputs are complete and whose tasks are done; open the barriers that this completes."""
        ready, running = self._ready, self._running
        for stage in self._unsettled:
            index = stage.index
            if ready[index] or running[index] or self._left_inputs[index] or self._undone[index]:
                continue
            if self._waiting[index] or (index in self._unopened and not self._try_open(stage, actions)):
                continue
            self._complete[index] = True
            self._unsettled = [s for s in self._unsettled if s is not stage]
            actions += self._on_complete(stage)

    def _on_complete(self, stage: Stage) -> list[Action]:
        ledger = self._ledger
        actions = ledger.stop_actors(stage.index)
        if stage.recorded:
            return actions + self._recorded_complete(stage)
        for source in dict.fromkeys(i.stage for i in stage.inputs if i.mode == "broadcast"):
            actions += ledger.consumed(self._output[source])
        for reader in ledger.consumers[stage.index]:
            self._left_inputs[reader] -= sum(1 for i in self._job.stages[reader].inputs if i.stage == stage.index)
            follower = self._job.stages[reader]
            if not self._left_inputs[reader] and any(i.mode == "partition" for i in follower.inputs):
                self._unopened.add(reader)
                self._try_open(follower, actions)
        if stage.index == len(self._job.stages) - 1:
            self._finished = True
            actions.append(Finish(ledger.in_order(self._output[stage.index])))
        return actions

    def _try_open(self, stage: Stage, actions: list[Action]) -> bool:
        """Open a wide stage unless blocks that it reads are being made again. True: it was opened and got no task."""
        if self._ledger.lacks(b for i in stage.inputs for b in self._output[i.stage]):
            return False
        self._unopened.discard(stage.index)
        actions += self._open_partitions(stage)
        return not self._ready[stage.index]

    def _open_partitions(self, stage: Stage) -> list[Action]:
        """All inputs of a wide stage are complete: one task a partition that every input has a block for."""
        sources = (i.stage for i in stage.inputs if i.mode == "partition")
        tasks, unread = self._ledger.partition_tasks(stage, [self._output[s] for s in sources])
        self._ready[stage.index].extend(tasks)
        return self._ledger.consumed(unread)

    # -- launching ---------------------------------------------------------------------------------------------------

    def _launch(self, actions: list[Action]) -> None:
        before, ready = len(actions), self._ready
        for index in self._order:
            if ready[index] and self._sides_complete(index):
                self._launch_stage(index, actions)
        if len(actions) == before and not self._ledger.running and not self._ledger.starting:
            actions += self._launch_one_anyway()

    def _launch_stage(self, index: int, actions: list[Action]) -> None:
        """Launch tasks of a stage that has some, as far as workers and backpressure allow."""
        ready, ledger = self._ready[index], self._ledger
        # Behind a running task none waits while nobody knows what a task emits.
        plenty = 2 * len(ledger.workers) if self._ahead and self._outputs[index][0] else math.inf
        sides, at, held = self._sides(index), len(actions), False
        choosy = self.chooses and index in ledger.actors
        while ready:
            if not self._admits(index):
                held = True
                break
            worker = ledger.worker_for(index, len(ready) > plenty, ready[0].blocks if self.local else ())
            if worker is None:
                if index in ledger.actors and self._autoscale:
                    actions += one_more(ledger, self._job.stages[index], self._unsettled)
                break
            if choosy:
                self._bring_near(index, worker.node)
            self._running[index] += 1
            actions.append(ledger.launch(ready.popleft(), worker, sides))
        if held != self._held_back[index]:
            self._held_back[index] = held
            actions.insert(at, Note("blocked", index, held))

    def _bring_near(self, index: int, node: int) -> None:
        """Bring the task that an actor on a node shall get to the front of its queue."""

    def _launch_one_anyway(self) -> list[Action]:
        waiting = next((i for i in self._order if self._ready[i]), None)
        actions = [] if waiting is None else self._ledger.make_room(waiting)
        return actions if actions and self._ledger.starting else actions + self._launch_one()

    def _launch_one(self) -> list[Action]:
        for index in self._order:
            if self._ready[index] and self._sides_complete(index):
                worker = self._ledger.worker_for(index, False)
                if worker is not None:
                    self._running[index] += 1
                    return [self._ledger.launch(self._ready[index].popleft(), worker, self._sides(index))]
        return []

    def _admits(self, index: int) -> bool:
        """Backpressure: whether one more task may run, counting each running one as a task's usual output."""
        running, queued = self._running[index], self._queued[index]
        if running >= self._most_running and self._job.stages[index].state.kind == "stateless":
            return False
        if not self._pushes[index] or queued + running == 0:
            return True
        blocks_each, bytes_each = self._each[index]
        if not self._outputs[index][0]:  # nobody knows yet what a task emits
            emitted = self._emitted_blocks[index]
            bytes_each = self._emitted_bytes[index] / emitted if emitted else 0.0
        limit = max(LEAST_QUEUED, self._cpus * (blocks_each + 1)) if self._most_queued is None else self._most_queued
        coming = running + 1
        return queued + coming * blocks_each <= limit and self._queued_bytes[index] + coming * bytes_each <= self._edge_bytes

    def _sides_complete(self, index: int) -> bool:
        sides = self._side_inputs[index]
        if not sides:
            return True
        return all(self._complete[s] for s in sides) and not self._ledger.lacks(b for s in sides for b in self._output[s])

    def _sides(self, index: int) -> tuple[tuple[int, ...], ...]:
        sides = self._side_inputs[index]
        return tuple([self._ledger.in_order(self._output[s]) for s in sides]) if sides else ()


ENTRY = ModelEntry(
    name="streaming",
    build=Streaming,
    options=(
        Option(
            name="queued_blocks",
            check=parse_count,
            default=None,
            doc="most blocks queued or in the making for consumers; default the output of a task and one more block a CPU, at least 8",
        ),
        Option(name="queued_fraction", default=0.5, doc="share of the object store that queued blocks of all edges may fill"),
        Option(name="backpressure", default=True, doc="whether full queues hold a stage back", choices=(True, False)),
        Option(
            name="fixed", default=False, choices=(True, False),
            doc="whether each stateless stage keeps an equal share of the CPUs, whatever waits for the others (an ablation)",
        ),
        Option(name="autoscale", default=True, doc="whether actor pools grow above their minimum", choices=(True, False)),
        AHEAD, YIELDING, DOWNSTREAM_FIRST, LOCALITY, RECOMPUTE,
    ),
    features={"backpressure": "bounded blocks and bytes queued between stages"},
    traits=EMBEDDED, world={"page_cache": PAGE_CACHE},
)  # fmt: skip
