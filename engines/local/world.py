"""The local world: carries a model's actions out with worker processes and feeds it what happens, on the wall clock.

It decides nothing. It owns processes, pipes, block ids and paths; it knows no operator. Pool workers outlive a job, so that a
second run starts warm; actors live as long as their model keeps them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.engines import physical
from windtunnel.engines.failures import sentence
from windtunnel.engines.local.alarms import Alarms
from windtunnel.engines.local.messages import EndMessage, JobMessage, LoadMessage, Reply, TaskMessage
from windtunnel.engines.local.processes import Process, begin, reap, tell
from windtunnel.engines.local.store import BlockInfo, Usage, create_session
from windtunnel.errors import RunFailed
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
    Stage,
    StartWorker,
    StopWorker,
    TaskDone,
    TaskFailed,
    Tick,
    Wake,
    WorkerJoined,
    WorkerLost,
)
from windtunnel.records.record import Recorder

_SHORT_WAIT_S = 0.001  # queue spans shorter than this are left out: the pipe's own round trip


@dataclass(slots=True)
class _Stored:
    """A block's place."""

    path: str
    bytes: int
    on_disk: bool


class LocalWorld:
    """Worker processes and a block store on this machine. One job at a time; not thread-safe."""

    volatile = False  # the only node is lost with the run
    waves = False

    def __init__(self, nodes: Sequence[NodeView], store_bytes: int, spill_dir: Path | None = None) -> None:
        self._nodes = tuple(nodes)
        self._limit = store_bytes
        self._memory, self._spill = create_session(spill_dir)
        self._usage = Usage(self._memory, create=True)
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, Process] = {}
        self._next_number = 0
        self._reset(None, Recorder())

    # -- the model's view --------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """This machine."""
        return self._nodes

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._start

    @property
    def stored_bytes(self) -> int:
        """Bytes of blocks in shared memory."""
        return self._usage.bytes

    @property
    def store_limit_bytes(self) -> int:
        """The store's budget."""
        return self._limit

    @property
    def folder(self) -> Path:
        """The session's folder of shared-memory blocks."""
        return self._memory

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers alive."""
        return tuple(p.popen.pid for p in self._processes.values())

    # -- running -----------------------------------------------------------------------------------------------------

    def warm(self, count: int) -> None:
        """Start ``count`` pool processes and wait until they answer."""
        for _ in range(count - len(self._processes)):
            self._spawn()
        while not all(p.up for p in self._processes.values()):
            self._poll(None)
            if len(self._processes) < count:
                raise RunFailed("a worker process ended while it started; its message is on standard error")

    def run(
        self, job: Job, model: ExecutionModel, recorder: Recorder, output: Path, *, block_bytes: int
    ) -> list[tuple[str, bool]]:
        """Run a job to its end; paths of the result's blocks in order. Raises RunFailed."""
        self._reset(job, recorder)
        message = JobMessage(
            tuple(physical.program(s) for s in job.stages), block_bytes, str(output), tuple(_load_s(s) for s in job.stages),
            tuple(0 if s.resources.gpus else s.state.memory_bytes for s in job.stages),
        )  # fmt: skip
        self._job_message = pickle.dumps(message, protocol=5)
        self._tick_s = model.tick_s
        try:
            self._obey(model.start(job, self))
            self._loop(model)
            if self._failure is not None:
                raise RunFailed(_sentence(self._failure), operator=self._failure.operator, partition=self._failure.partition)
            return [(self._blocks[b].path, self._blocks[b].on_disk) for b in self._result or ()]
        finally:
            self._end_job()

    def forget(self) -> None:
        """Remove the result's blocks (after they were mapped)."""
        self._release(tuple(self._blocks))

    def _reset(self, job: Job | None, recorder: Recorder) -> None:
        self._job = job
        self._recorder = recorder
        self._start = time.perf_counter()
        self._blocks: dict[int, _Stored] = {}
        self._next_block = 0
        self._by_worker: dict[int, Process] = {}
        self._events: deque[Event] = deque()
        self._alarms = Alarms()
        self._result: tuple[int, ...] | None = None
        self._failure: Fail | None = None
        self._notes: dict[tuple[str, int], float] = {}
        self._last_sample = 0.0

    def _loop(self, model: ExecutionModel) -> None:
        while self._result is None and self._failure is None:
            if not self._events:
                if (
                    not self._tick_s
                    and not self._alarms
                    and all(p.up and p.loaded and not p.tasks for p in self._by_worker.values())
                ):
                    raise RunFailed("the execution model has stopped: nothing runs or starts, and the job is not finished")
                self._events.extend(self._poll(self._tick_s or None))
                self._events.extend(self._alarms.ring())
            while self._events and self._result is None and self._failure is None:
                self._obey(model.on_event(self._events.popleft(), self))

    def _obey(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._ACTIONS[type(action)](self, action)

    # -- actions -----------------------------------------------------------------------------------------------------

    def _start_worker(self, action: StartWorker) -> None:
        process = self._spare() or self._spawn()
        process.worker, process.stage = action.worker, action.stage
        self._by_worker[action.worker] = process
        tell(process, self._job_message)
        if action.stage >= 0:
            process.loaded = False
            tell(process, pickle.dumps(LoadMessage(action.stage)))
        elif process.up:
            self._events.append(WorkerJoined(action.worker))

    def _spare(self) -> Process | None:
        return next((p for p in self._processes.values() if p.worker < 0), None)

    def _stop_worker(self, action: StopWorker) -> None:
        """An idle one goes back to the spares without its state; a loading or running one is killed."""
        process = self._by_worker.pop(action.worker, None)
        if process is None:
            return
        if process.tasks or not process.loaded:
            self._dismiss(process)
            return
        tell(process, pickle.dumps(EndMessage()))
        process.worker = process.stage = -1

    def _launch(self, action: Launch) -> None:
        process = self._by_worker.get(action.worker)
        if process is None:
            return  # died a moment ago: its WorkerLost event is in the queue
        paths = self._blocks
        message = TaskMessage(
            action.task,
            action.stage,
            action.partition,
            tuple(paths[b].path for b in action.blocks),
            action.split if action.split < len(action.blocks) else 0,
            tuple(tuple(paths[b].path for b in side) for side in action.sides),
            action.skip_blocks,
        )
        process.tasks[action.task] = (action, time.perf_counter())
        if action.attempt:
            self._recorder.count("retries")
        tell(process, pickle.dumps(message, protocol=5))

    def _released(self, action: Release) -> None:
        self._release(action.blocks)

    def _release(self, blocks: Sequence[int]) -> None:
        for block_id in blocks:
            stored = self._blocks.pop(block_id)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stored.path)
            if not stored.on_disk:
                self._usage.add(0, -stored.bytes)

    def _note(self, action: Note) -> None:
        key, now = (action.kind, action.stage), time.perf_counter() - self._start
        if action.begin:
            self._notes[key] = now
        elif key in self._notes:
            assert self._job is not None
            self._recorder.span(action.kind, self._job.stages[action.stage].name, self._notes.pop(key), now)

    def _wake(self, action: Wake) -> None:
        self._alarms.arm(action)

    def _failed(self, action: Fail) -> None:
        self._failure = action

    def _finish(self, action: Finish) -> None:
        self._result = action.blocks

    _ACTIONS: dict[type, Callable[..., None]] = {
        StartWorker: _start_worker, StopWorker: _stop_worker, Launch: _launch, Release: _released,
        Note: _note, Wake: _wake, Fail: _failed, Finish: _finish,
    }  # fmt: skip

    # -- events ------------------------------------------------------------------------------------------------------

    def _poll(self, timeout_s: float | None) -> list[Event]:
        """Wait for replies; every readable pipe gives one."""
        wait_s = self._alarms.wait_s(timeout_s)
        ready = self._selector.select(wait_s)
        if not ready:
            return [Tick()] if wait_s == timeout_s else []
        events: list[Event] = []
        for key, _ in ready:
            process: Process = key.data
            try:
                reply: Reply = pickle.loads(process.pipe.recv_bytes())
            except (EOFError, ConnectionError):
                events += self._lost(process)
                continue
            if (event := self._event(process, reply)) is not None:
                events.append(event)
        self._sample()
        return events

    def _event(self, process: Process, reply: Reply) -> Event | None:
        if reply.kind == "joined":
            return self._joined(process, reply)
        if process.worker < 0 or self._job is None:
            return None
        if reply.kind == "failed":
            if reply.task < 0:
                return self._load_failed(process, reply)
            self._done(process, reply)
            return TaskFailed(reply.task, reply.reason, operator=reply.operator)
        launch = process.tasks[reply.task][0]
        blocks = [self._store(info, launch) for info in reply.blocks]
        if reply.kind == "block":
            return BlockReady(blocks[0])
        self._done(process, reply)
        return TaskDone(reply.task, blocks)

    def _joined(self, process: Process, reply: Reply) -> Event | None:
        process.up = True
        if process.stage >= 0 and not reply.spans:
            return None  # the process is up; its state is not loaded yet
        if reply.spans:
            process.loaded = True
            self._recorder.count("loads")
            self._spans(process, reply, -1, 0)
        return WorkerJoined(process.worker) if process.worker >= 0 else None

    def _load_failed(self, process: Process, reply: Reply) -> Event | None:
        self._failure = Fail(f"its state could not be loaded: {reply.reason}", reply.operator)
        return None

    def _store(self, info: BlockInfo, launch: Launch) -> Block:
        block = Block(self._next_block, launch.stage, info.partition, launch.task, info.rows, info.bytes, 0, info.on_disk)
        self._next_block += 1
        self._blocks[block.id] = _Stored(info.path, info.bytes, info.on_disk)
        self._recorder.count("blocks")
        self._recorder.count("spilled_bytes" if info.on_disk else "bytes_shm", info.bytes)
        return block

    def _done(self, process: Process, reply: Reply) -> None:
        launch, sent = process.tasks.pop(reply.task)
        self._recorder.count("tasks")
        if reply.spans:
            begin = reply.spans[0][2]
            waited_from = max(sent, process.next_start)
            if begin - waited_from > _SHORT_WAIT_S:
                self._span("queue", "", waited_from, begin, process, launch.partition, launch.attempt, 0, 0)
            self._spans(process, reply, launch.partition, launch.attempt, launch)
        process.next_start = time.perf_counter()

    def _spans(self, process: Process, reply: Reply, partition: int, attempt: int, launch: Launch | None = None) -> None:
        assert self._job is not None
        stage = self._job.stages[launch.stage if launch else process.stage]
        for kind, operator, start, end, rows, size in reply.spans:
            self._span(kind, operator or stage.operators[-1], start, end, process, partition, attempt, rows, size)

    def _span(
        self,
        kind: str,
        operator: str,
        start: float,
        end: float,
        process: Process,
        partition: int,
        attempt: int,
        rows: int,
        size: int,
    ) -> None:
        spans = self._recorder.spans
        row = (kind, operator, partition, process.number, attempt, start - self._start, end - self._start, rows, size)
        spans.append(row) if len(spans) < self._recorder.max_spans else self._recorder.count("spans_dropped")

    def _sample(self) -> None:
        """Bytes in the store, at most a hundred times a second."""
        now = time.perf_counter() - self._start
        if self._job is not None and now - self._last_sample >= 0.01:
            self._last_sample = now
            self._recorder.sample("store_bytes", now, self.stored_bytes)

    def _lost(self, process: Process) -> list[Event]:
        """A worker died: forget it, remove what it wrote and never told."""
        self._selector.unregister(process.pipe)
        process.pipe.close()
        process.popen.wait()
        del self._processes[process.number]
        known = {stored.path for stored in self._blocks.values()}
        for folder in (self._memory, self._spill):
            for path in folder.glob(f"{process.number + 1}-*"):
                if str(path) not in known:
                    path.unlink(missing_ok=True)
        in_use = process.worker >= 0 and self._by_worker.pop(process.worker, None) is not None
        if self._job is not None:
            self._recorder.count("workers_lost")
        return [WorkerLost(process.worker)] if in_use else []

    # -- processes ---------------------------------------------------------------------------------------------------

    def _spawn(self) -> Process:
        process = begin(self._next_number, self._memory, self._spill, self._limit)
        self._next_number += 1
        self._processes[process.number] = process
        self._selector.register(process.pipe, selectors.EVENT_READ, process)
        return process

    def _dismiss(self, process: Process) -> None:
        """End a process; one in the middle of a task is killed."""
        self._processes.pop(process.number, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(process.pipe)
        if process.tasks or not process.up or not process.loaded:
            process.popen.kill()
        else:
            tell(process, pickle.dumps(None))
        process.pipe.close()
        reap(process.popen)

    def _end_job(self) -> None:
        """Keep idle pool processes for the next job; end the rest."""
        end = pickle.dumps(EndMessage())
        for process in list(self._processes.values()):
            if process.tasks or not process.up or not process.loaded:
                self._dismiss(process)
            else:
                tell(process, end)
                process.worker = process.stage = -1
        for (kind, stage), since in self._notes.items():
            assert self._job is not None
            self._recorder.span(kind, self._job.stages[stage].name, since, time.perf_counter() - self._start)  # type: ignore[arg-type]
        if self._failure is not None or self._result is None:
            self._release(tuple(self._blocks))
        self._job = None

    def close(self) -> None:
        """End all processes and remove the session's folders; idempotent."""
        for process in list(self._processes.values()):
            self._dismiss(process)
        self._selector.close()
        for folder in (self._memory, self._spill):
            shutil.rmtree(folder, ignore_errors=True)


def _load_s(stage: Stage) -> float:
    return stage.state.load_s if stage.state.kind == "actor" else -1.0


def _sentence(fail: Fail) -> str:
    return sentence(fail.operator, fail.partition, fail.reason) if fail.operator else f"the job failed: {fail.reason}"
