"""A world that does everything in random order, kills workers at random, and checks that a model keeps the protocol.

Tasks are deterministic, as the protocol asks: a repeated attempt emits the same blocks. What is checked on the way: inputs are
there when a task is launched, a worker holds at most two tasks, nothing is released twice or while somebody needs it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from windtunnel.model import (
    Action,
    Block,
    BlockReady,
    Event,
    ExecutionModel,
    Fail,
    Finish,
    Job,
    Launch,
    NodeView,
    Note,
    Release,
    StartWorker,
    StopWorker,
    TaskDone,
    TaskFailed,
    WorkerJoined,
    WorkerLost,
)


@dataclass
class FakeWorker:
    """A worker and the launches it holds, the first of them running."""

    number: int
    stage: int
    up: bool = False
    launches: list[Launch] = field(default_factory=list)


class RandomWorld:
    """Runs a job with a model. ``deaths`` workers are killed, ``failures`` tasks fail once and may be repeated."""

    volatile = waves = False
    now = 0.0

    def __init__(self, job: Job, seed: int, *, cpus: int = 3, gpus: int = 0, deaths: int = 0, failures: int = 0) -> None:
        self.nodes = (NodeView(0, cpus, gpus, 2**30),)
        self.stored_bytes, self.store_limit_bytes = 0, 2**20
        self._job, self._random = job, random.Random(seed)
        self._deaths, self._failures = deaths, failures
        self._workers: dict[int, FakeWorker] = {}
        self.blocks: dict[int, Block] = {}
        self.released: set[int] = set()
        self.launched: list[Launch] = []
        self.done: list[Launch] = []
        self.notes: list[Note] = []
        self.result: tuple[int, ...] | None = None
        self.failure: Fail | None = None
        self.most_queued = 0
        self._emitted: dict[int, int] = {}  # task → blocks told

    def run(self, model: ExecutionModel) -> None:
        """To the end; AssertionError when the model breaks the protocol or stops half way."""
        self._obey(model.start(self._job, self))
        for _ in range(100_000):
            if self.result is not None or self.failure is not None:
                return
            event = self._next_event()
            assert event is not None, "nothing runs, nothing joins, and the job is not finished"
            self._obey(model.on_event(event, self))
        raise AssertionError("no end after 100,000 events")

    # -- what happens next -------------------------------------------------------------------------------------------

    def _next_event(self) -> Event | None:
        joining = [w for w in self._workers.values() if not w.up]
        running = [w for w in self._workers.values() if w.up and w.launches]
        if not joining and not running:
            return None
        worker = self._random.choice(joining + running)
        if self._deaths and self._random.random() < 0.1:
            self._deaths -= 1
            del self._workers[worker.number]
            return WorkerLost(worker.number)
        if not worker.up:
            worker.up = True
            return WorkerJoined(worker.number)
        return self._progress(worker)

    def _progress(self, worker: FakeWorker) -> Event:
        launch = worker.launches[0]
        told = self._emitted.get(launch.task, 0)
        left = self._output(launch)[told:]
        if len(left) > 1 and self._random.random() < 0.5:
            return BlockReady(self._tell(launch, left[0]))
        worker.launches.pop(0)
        if self._failures and self._random.random() < 0.2:
            self._failures -= 1
            return TaskFailed(launch.task, "a passing failure", retriable=True)
        self.done.append(launch)
        return TaskDone(launch.task, [self._tell(launch, partition) for partition in left])

    def _output(self, launch: Launch) -> list[int]:
        """Partitions of the blocks that this task emits, whichever attempt; the first task of a stage fills partition 0."""
        dice = random.Random(f"{launch.stage}:{launch.partition}:{launch.task}")
        count = self._job.stages[launch.stage].output_partitions
        if count:
            return sorted({0, *(p for p in range(count) if dice.random() < 0.8)})
        return [0] * dice.randint(1, 3)

    def _tell(self, launch: Launch, partition: int) -> Block:
        block = Block(len(self.blocks), launch.stage, partition, launch.task, 10, 1000)
        self.blocks[block.id] = block
        self._emitted[launch.task] = self._emitted.get(launch.task, 0) + 1
        self.stored_bytes += block.bytes
        return block

    # -- actions -----------------------------------------------------------------------------------------------------

    def _obey(self, actions: list[Action]) -> None:
        for action in actions:
            assert self.result is None, f"{action} after the end"
            if isinstance(action, StartWorker):
                assert action.worker not in self._workers
                self._workers[action.worker] = FakeWorker(action.worker, action.stage)
            elif isinstance(action, StopWorker):
                assert not self._workers.pop(action.worker).launches, "a busy worker was stopped"
            elif isinstance(action, Launch):
                self._launch(action)
            elif isinstance(action, Release):
                self._release(action.blocks)
            elif isinstance(action, Note):
                self.notes.append(action)
            elif isinstance(action, Fail):
                self.failure = action
            elif isinstance(action, Finish):
                self.result = action.blocks

    def _launch(self, launch: Launch) -> None:
        worker = self._workers[launch.worker]
        stage = self._job.stages[launch.stage]
        assert worker.up, "launched on a worker that has not joined"
        assert worker.stage == (launch.stage if stage.state.kind == "actor" else -1), "an actor's task went elsewhere"
        assert len(worker.launches) < 2
        assert launch.skip_blocks == self._emitted.get(launch.task, 0)
        for block in (*launch.blocks, *(b for side in launch.sides for b in side)):
            assert block not in self.released, f"stage {launch.stage} reads block {block}, which was released"
        for source in stage.inputs:
            if source.mode != "forward":
                assert not self._runs(source.stage), f"stage {launch.stage} began before stage {source.stage} ended"
        worker.launches.append(launch)
        self.launched.append(launch)
        busy = [self._job.stages[w.launches[0].stage].resources for w in self._workers.values() if w.launches]
        node = self.nodes[0]
        assert sum(r.cpus for r in busy) <= node.cpus, "CPUs are over-committed"
        assert sum(r.gpus for r in busy) <= node.gpus, "devices are over-committed"

    def _runs(self, stage: int) -> bool:
        return any(held.stage == stage for worker in self._workers.values() for held in worker.launches)

    def _release(self, blocks: tuple[int, ...]) -> None:
        for block in blocks:
            assert block not in self.released, "released twice"
            holders = [h for w in self._workers.values() for h in w.launches]
            assert not any(block in h.blocks or any(block in s for s in h.sides) for h in holders), "released while in use"
            self.released.add(block)
            self.stored_bytes -= self.blocks[block].bytes

    @property
    def alive(self) -> set[int]:
        """Blocks never released."""
        return set(self.blocks) - self.released
