"""Bulk-synchronous execution: a stage begins when its inputs are complete, and all its output is materialised.

The model of Valiant's BSP ("A bridging model for parallel computation", CACM 33(8), 1990) as batch engines use it: tasks of a
stage run in any order on free slots; nothing of the next stage starts before the last of them ended. Stages that do not depend
on each other may overlap. Blocks stay until every consumer stage is complete, so that any task can be repeated.
"""

from __future__ import annotations

import math
from collections import deque

from windtunnel.engines.api import Option
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.gates import Gates
from windtunnel.engines.models.ledger import MAX_ATTEMPTS, Again, Ledger, Task
from windtunnel.engines.models.switches import LOCALITY, NOT_RECOMPUTED, PAGE_CACHE, RECOMPUTE
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
    Wake,
    WaveDone,
    WaveRefused,
    Woken,
    WorkerJoined,
    WorkerLost,
)


class Bulk:
    """The model. ``prefetch``: one task queued behind the running one hides the round trip. ``locality``: tasks would rather run on the
    node of their first input. ``recompute``: lost blocks are made again; else their loss is the end."""

    tick_s = 0.0

    def __init__(self, *, prefetch: bool = True, locality: bool = True, recompute: bool = True) -> None:
        self._prefetch = prefetch
        self._locality = locality
        self._recompute = recompute

    def start(self, job: Job, view: View) -> list[Action]:
        """Start the pool and the stages without inputs."""
        self._job = job
        self._ledger = Ledger(job, view)
        for stage in job.stages:
            if why := self._ledger.feasible(stage, view):
                return [Fail(why, stage.name)]
        self._pending: dict[int, deque[Task]] = {}
        self._left = [0] * len(job.stages)  # tasks not done yet
        self._tasks = [0] * len(job.stages)
        self._complete = [False] * len(job.stages)
        self._output: list[list[int]] = [[] for _ in job.stages]
        self._sides: dict[int, tuple[tuple[int, ...], ...]] = {}
        self._waiting: set[int] = set()
        self._unopened: set[int] = set()  # stages whose inputs are complete, but for blocks that are being made again
        self._unended = len(job.stages)
        actions = self._ledger.start_pool(view)
        if job.recorded:
            self._gates = self._ledger.gates = Gates(job, stagewise=True)
            return actions + self._opened(self._gates.begin())
        sources = [s for s in job.stages if not s.inputs]
        if len(sources) == 1 and view.waves and (wave := self._wave(sources[0])) is not None:
            return [*actions, wave]
        for stage in sources:
            actions += self._begin(stage)
        return actions

    def on_event(self, event: Event, view: View) -> list[Action]:
        """One event; ends with launching what the free slots allow."""
        ledger = self._ledger
        actions: list[Action] = []
        if isinstance(event, TaskDone):
            if event.blocks and ledger.emitted_last(event.blocks):
                self._output[event.blocks[0].stage] += [b.id for b in event.blocks]
            else:
                for block in event.blocks:
                    actions += self._emitted(block)
            actions += self._task_done(ledger.done(event.task))
        elif isinstance(event, BlockReady):
            actions += self._emitted(event.block)
            if not self._unopened and not actions:
                return actions
        elif isinstance(event, WorkerJoined):
            ledger.joined(event.worker)
        elif isinstance(event, TaskFailed):
            if fail := ledger.failed(event.task, event):
                return [fail]
            self._again(ledger.tasks[event.task])
        elif isinstance(event, WorkerLost):
            actions = self._worker_lost(event)
        elif isinstance(event, NodeLost):
            actions = self._node_lost(event)
        elif isinstance(event, NodeJoined):
            actions = ledger.node_joined(event.node)
        elif isinstance(event, NodeLeaving):
            ledger.node_leaving(event.node)
        elif isinstance(event, DeviceLost):
            ledger.device_lost(event.node)
        elif isinstance(event, Woken):
            if (woken := self._gates.woken(event.key)) is not None:
                actions = self._open(self._job.stages[woken])
        elif isinstance(event, WaveDone):
            actions = self._wave_done(event)
        elif isinstance(event, WaveRefused):
            actions = self._begin(self._job.stages[event.stage])
        return actions + self._launch() if not actions or not isinstance(actions[-1], (Fail, Finish)) else actions

    # -- stages ------------------------------------------------------------------------------------------------------

    def _begin(self, stage: Stage) -> list[Action]:
        """Create all tasks of a stage whose inputs are complete."""
        tasks = self._tasks_of(stage)
        self._pending[stage.index] = deque(tasks)
        if stage.recorded:  # the first submitted goes first, whichever was ready first (Spark: FIFOSchedulingAlgorithm)
            self._pending = dict(sorted(self._pending.items()))
        self._left[stage.index] = self._tasks[stage.index] = len(tasks)
        if not tasks:
            return self._end(stage)
        self._sides[stage.index] = self._side_blocks(stage)
        actions: list[Action] = []
        if stage.state.kind == "actor":
            actions += self._start_actors(stage, len(tasks))
        return actions

    def _tasks_of(self, stage: Stage) -> list[Task]:
        ledger = self._ledger
        if stage.recorded:
            return self._recorded_tasks(stage)
        main = [i for i in stage.inputs if i.mode != "broadcast"]
        if not main:
            return [ledger.new_task(stage.index, p, (p,)) for p in range(stage.partitions or 0)]
        if main[0].mode == "forward":
            return self._forward_tasks(stage.index, self._output[main[0].stage])
        return ledger.partition_tasks(stage, [self._output[i.stage] for i in main])[0]

    def _recorded_tasks(self, stage: Stage) -> list[Task]:
        """One a partition, with the blocks of the tasks that it lists."""
        ledger = self._ledger
        blocks: list[list[int]] = [[] for _ in range(stage.partitions or 0)]
        for given in stage.inputs:
            if given.mode == "listed":
                made: dict[int, list[int]] = {}
                for block_id in self._output[given.stage]:
                    made.setdefault(ledger.order[block_id][0], []).append(block_id)
                for mine, parts in zip(blocks, given.parts, strict=True):
                    mine += [b for p in parts for b in made.get(p, ())]
        return [ledger.new_task(stage.index, p, (p,), tuple(ids)) for p, ids in enumerate(blocks)]

    def _forward_tasks(self, stage: int, blocks: list[int]) -> list[Task]:
        """One task for each upstream task, with all its blocks."""
        ledger = self._ledger
        groups: dict[int, list[int]] = {}
        for block_id in ledger.in_order(blocks):
            groups.setdefault(ledger.blocks[block_id].task, []).append(block_id)
        tasks = ((ledger.tasks[source], ids) for source, ids in groups.items())
        return [ledger.new_task(stage, t.partition, t.order, tuple(ids)) for t, ids in tasks]

    def _side_blocks(self, stage: Stage) -> tuple[tuple[int, ...], ...]:
        sides = [i.stage for i in stage.inputs if i.mode == "broadcast"]
        return tuple(self._ledger.in_order(self._output[s]) for s in sides)

    def _start_actors(self, stage: Stage, tasks: int) -> list[Action]:
        """A fixed pool for the whole stage: the largest that its bounds, its tasks and the free resources allow."""
        limit = stage.concurrency.maximum if stage.concurrency and stage.concurrency.maximum else tasks
        actions: list[Action] = []
        while len(actions) < min(limit, tasks):
            action = self._ledger.start_actor(stage.index)
            if action is None:
                break
            actions.append(action)
        return actions

    def _end(self, stage: Stage) -> list[Action]:
        """All tasks of a stage ended: release what it read, begin what waited for it."""
        ledger = self._ledger
        self._complete[stage.index] = True
        actions: list[Action] = []
        if stage.index in self._waiting:
            self._waiting.discard(stage.index)
            actions.append(Note("barrier", stage.index, False))
        actions += self._dismiss(stage.index)
        for source in dict.fromkeys(i.stage for i in stage.inputs):
            actions += ledger.consumed(self._output[source])
        if stage.recorded:
            return actions + self._recorded_end(stage)
        if stage.index == len(self._job.stages) - 1:
            return [*actions, Finish(ledger.in_order(self._output[stage.index]))]
        for index in ledger.consumers[stage.index]:
            follower = self._job.stages[index]
            if all(self._complete[i.stage] for i in follower.inputs):
                actions += self._open(follower)
        return actions

    def _recorded_end(self, stage: Stage) -> list[Action]:
        """A stage of a recorded job ended: the job's end with the last of them, or what may begin now."""
        ledger = self._ledger
        self._unended -= 1
        if not self._unended:
            return [Finish(tuple(b for s in self._job.sinks for b in ledger.in_order(self._output[s])))]
        if ledger.lineage is None:
            del self._pending[stage.index]
        return self._opened(self._gates.ended(stage.index))

    def _opened(self, free: tuple[list[int], list[Wake]]) -> list[Action]:
        """Begin the recorded stages that may, and wait for the driver where it is its turn."""
        opened, actions = free[0], list[Action](free[1])
        for index in opened:
            actions += self._open(self._job.stages[index])
        return actions

    def _dismiss(self, stage: int) -> list[Action]:
        """The actors of a complete stage stop, once none of them makes lost blocks again."""
        ledger = self._ledger
        actors = ledger.actors.get(stage, [])
        if not self._complete[stage] or self._pending[stage] or any(ledger.workers[a].tasks for a in actors):
            return []
        return ledger.stop_actors(stage)

    def _open(self, stage: Stage) -> list[Action]:
        """Begin a stage unless blocks that it reads are being made again."""
        if self._ledger.lacks(b for i in stage.inputs for b in self._output[i.stage]):
            self._unopened.add(stage.index)
            return []
        self._unopened.discard(stage.index)
        return self._begin(stage)

    # -- waves -------------------------------------------------------------------------------------------------------

    @property
    def _plenty(self) -> float:
        """With more tasks than this waiting, workers get one ahead."""
        return 2 * len(self._ledger.workers) if self._prefetch else math.inf

    def _wave(self, stage: Stage) -> Action | None:
        """The only source, whose tasks are all alike to the pool: nothing has to be decided launch by launch."""
        if stage.state.kind == "actor" or not stage.partitions:
            return None
        self._source = stage
        return self._ledger.wave_of(stage, self._plenty)

    def _wave_done(self, event: WaveDone) -> list[Action]:
        stage = self._source
        self._waiting.add(stage.index)
        if event.blocks is None:
            return [Note("barrier", stage.index, False), Finish(event.result)]
        self._ledger.wave_done(event, stage, event.blocks)
        self._output[stage.index] = [b.id for b in event.blocks]
        self._pending[stage.index] = deque()
        self._sides[stage.index] = ()
        return self._end(stage)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _emitted(self, block: Block) -> list[Action]:
        again = self._ledger.emitted(block)
        if again is None:
            self._output[block.stage].append(block.id)
            return []
        return self._made_again(block, again)

    def _task_done(self, task: Task) -> list[Action]:
        if task.again:
            return [*self._dismiss(task.stage), *self._ledger.consumed(task.blocks)]
        self._left[task.stage] -= 1
        if self._left[task.stage] == 0:
            return self._end(self._job.stages[task.stage])
        if not self._pending[task.stage] and task.stage not in self._waiting:
            self._waiting.add(task.stage)
            return [Note("barrier", task.stage, True)]
        return []

    def _again(self, task: Task) -> None:
        """A task goes to the front of its stage, or waits until its lost inputs are made again."""
        if not self._ledger.waits(task):
            self._pending[task.stage].appendleft(task)

    def _node_lost(self, event: NodeLost) -> list[Action]:
        """Tasks of the node run elsewhere, its blocks are made again by the stages they come from, and their readers wait."""
        orphans, redos, actions = self._ledger.node_lost(event)
        if redos and not self._recompute:
            return [self._ledger.give_up(redos[0], NOT_RECOMPUTED)]
        for task in orphans:
            if task.attempt >= MAX_ATTEMPTS:
                return [self._ledger.give_up(task, f"its worker died {MAX_ATTEMPTS} times")]
        for index, pending in self._pending.items():
            queue, self._pending[index] = pending, deque()
            for task in reversed(queue):
                self._again(task)
        for task in (*orphans, *redos):
            self._again(task)
        return actions

    def _made_again(self, block: Block, again: Again) -> list[Action]:
        if again.old is None:
            return [Release((block.id,))]
        output = self._output[block.stage]
        if again.old in output:
            output[output.index(again.old)] = block.id
        for index, sides in self._sides.items():
            self._sides[index] = tuple(tuple(block.id if b == again.old else b for b in side) for side in sides)
        for task in again.ready:
            self._pending[task.stage].appendleft(task)
        actions: list[Action] = []
        for index in sorted(self._unopened):
            actions += self._open(self._job.stages[index])
        return actions

    def _worker_lost(self, event: WorkerLost) -> list[Action]:
        orphans, actions = self._ledger.orphans(event)
        for task in orphans:
            self._again(task)
        return actions

    def _launch(self) -> list[Action]:
        """Fill free workers; where nothing runs and yet a task waits, see that somebody can take it."""
        actions, ledger = self._fill(), self._ledger
        if not actions and not ledger.running and ledger.lineage is not None and not ledger.starting:
            waiting = next((i for i, tasks in self._pending.items() if tasks), None)
            if waiting is not None:
                actions = ledger.make_room(waiting)
                actions += self._fill()
        return actions

    def _beside(self, task: Task) -> tuple[int, ...]:
        """Blocks on the node of whose first one a task would rather run."""
        return task.blocks

    def _fill(self) -> list[Action]:
        """Stages in order; queue one ahead only while plenty of tasks wait (the end stays balanced)."""
        ledger = self._ledger
        actions: list[Action] = []
        plenty = self._plenty
        for index, pending in self._pending.items():
            if ledger.lacks(b for side in self._sides.get(index, ()) for b in side):
                continue
            while pending:
                ahead = len(pending) > plenty
                worker = ledger.worker_for(index, ahead, self._beside(pending[0]) if self._locality else ())
                if worker is None:
                    break
                actions.append(ledger.launch(pending.popleft(), worker, self._sides.get(index, ())))
        return actions


ENTRY = ModelEntry(
    name="bulk",
    build=Bulk,
    options=(
        Option(name="prefetch", default=True, doc="queue one task behind a worker's running one", choices=(True, False)),
        LOCALITY,
        RECOMPUTE,
    ),
    features={"barrier": "a stage begins when its inputs are complete; all its output is materialised"},
    traits=EMBEDDED,
    world={"page_cache": PAGE_CACHE},
)
