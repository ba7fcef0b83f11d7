"""The simulated world: obeys any execution model on a virtual clock. It decides nothing and knows no engine by name.

SimPy keeps the time, with bare callbacks and events that are used again: a worker is its own timer, the driver has one, and
processors, disks and links keep one each. The driver is a server: it handles one message after the other, each with its own
service time, and pays for every launch. What workers do with a task is in `execution`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from windtunnel.engines.models.traits import EMBEDDED, Traits
from windtunnel.errors import RunFailed
from windtunnel.model import (
    Action,
    Block,
    Cancel,
    Event,
    ExecutionModel,
    Fail,
    Feed,
    Finish,
    Job,
    Launch,
    Note,
    Persist,
    Release,
    StartWorker,
    StopWorker,
    Tick,
    Wake,
    Wave,
    Woken,
    WorkerJoined,
)
from windtunnel.records.record import Recorder
from windtunnel.sim.clock import Timer
from windtunnel.sim.costs.laws import StageLaw
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.hardware.gpu import check_device_memory
from windtunnel.sim.world.faults import Faults
from windtunnel.sim.world.garbage import uncollected
from windtunnel.sim.world.journal import Journal
from windtunnel.sim.world.tasks import StageRun, TaskRun, Worker
from windtunnel.sim.world.wave import Waves
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import Location

GENERATED = Location()


class SimWorld(Waves):
    """One run of one job. ``now`` is virtual seconds since its start. ``waves`` False: every task takes the general path."""

    def __init__(
        self,
        cluster: ClusterSpec,
        job: Job,
        laws: Sequence[StageLaw],
        recorder: Recorder,
        *,
        cost: EngineCost,
        seed: int = 0,
        store_bytes: int | None = None,
        block_bytes: int = 32 * 2**20,
        spans: bool | None = None,
        traits: Traits = EMBEDDED,
        location: Location = GENERATED,
        waves: bool = True,
    ) -> None:
        self._job = job
        stages = [StageRun(s, law, cost, block_bytes, seed, traits) for s, law in zip(job.stages, laws, strict=True)]
        with uncollected():
            super().__init__(cluster, stages, Journal(recorder, stages, spans), cost, store_bytes, location)
        self._inbox: deque[tuple[float, Event]] = deque()
        self._driver = Timer(self.clock, self._handle)
        self._driver_busy = False
        self._driver_free_s = cost.startup_s
        self._driver_idle_s = 0.0
        self._failure: Fail | None = None
        self._result: tuple[int, ...] | None = None
        self._pool_weight = max((s.weight for s in stages if s.spec.state.kind == "stateless"), default=1.0)
        self.waves = waves and not self.volatile
        self._faults = Faults(self, cluster, seed) if self.volatile or cluster.faults else None
        if traits.terminate or traits.kill:
            self.watch_memory()
        for fault in cluster.faults:
            if fault.kind == "node_joins":
                self.absent(cluster.node_index(fault.target))

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, model: ExecutionModel) -> Sequence[Block]:
        """Run to the end; the result's blocks in order. Raises RunFailed and OutOfMemory."""
        self._model = model
        try:
            with uncollected():
                self._obey(model.start(self._job, self))
                if self._faults is not None:
                    self._faults.arm()
                if model.tick_s > 0:
                    Timer(self.clock, self._tick).arm(model.tick_s)
                self.clock.run()
                if not self.clock.stopped:
                    self._stalled()
        finally:
            self.journal.close(self.makespan_s, self._machines, self._network.bytes)
            end = max(self.now, self._driver_free_s)
            self.usage.look(end, self._driver_s(end))
            self.usage.close(self.journal.recorder, self.makespan_s)
        if self._failure is not None:
            raise _failed(self._failure)
        if self._result_blocks is not None:
            return self._result_blocks
        return [b for i in self._result or () if (b := self._blocks[i]) is not None]

    @property
    def makespan_s(self) -> float:
        """When the driver had the result."""
        return max(self.now, self._driver_free_s) + self._cost.finish_s

    def _stalled(self) -> NoReturn:
        """No event is due, and the job is not done."""
        if gone := self.missing():
            raise RunFailed(f"what is left of the cluster cannot finish the job: {gone}, and no task runs or can begin")
        raise RunFailed(
            "the model stopped releasing work before the job was complete: no task runs and no event is due; "
            "this is a fault of the execution model, or the cluster has no slot for some stage"
        )

    def _tick(self, timer: Timer) -> None:
        if self.clock.idle:  # nothing but the clock itself goes on
            self._stalled()
        self._send(Tick(), 0.0)
        timer.arm(self._model.tick_s)

    def _woken(self, timer: Timer) -> None:
        self._send(Woken(timer.arg), 0.0)

    # -- the driver --------------------------------------------------------------------------------------------------

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message to the driver. An idle driver takes it up at once and answers ``service_s`` later; else it queues."""
        now = self.clock.now
        if self._driver_free_s <= now and not self._inbox:
            self._driver_idle_s += now - self._driver_free_s
            self._driver_free_s = now + service_s
            if self._result is None and self._failure is None:
                self._obey(self._model.on_event(event, self))
            return
        self._inbox.append((service_s, event))
        if not self._driver_busy:
            self._driver_busy = True
            self._driver.arm(self._driver_free_s - now)

    def _handle(self, _: Timer) -> None:
        """The driver is free for the next message of its queue."""
        inbox = self._inbox
        now = self.clock.now
        if self._driver_free_s > now:
            self._driver.arm(self._driver_free_s - now)
            return
        service_s, event = inbox.popleft()
        self._driver_free_s = now + service_s
        if self._result is None and self._failure is None:
            self._obey(self._model.on_event(event, self))
        if inbox:
            self._driver.arm(self._driver_free_s - now)
        else:
            self._driver_busy = False

    def _look(self) -> None:
        self.usage.look(self.now, self._driver_s(self.now))

    def _driver_s(self, now: float) -> float:
        """Seconds that the driver was busy until then, without its start."""
        return max(0.0, min(now, self._driver_free_s) - self._cost.startup_s - self._driver_idle_s)

    # -- actions -----------------------------------------------------------------------------------------------------

    def _obey(self, actions: Sequence[Action]) -> None:
        for action in actions:
            kind = type(action)
            if kind is Launch:
                self._launch(action)  # type: ignore[arg-type]
            elif kind is Release:
                if spent := self._release(action.blocks):  # type: ignore[union-attr]
                    self._driver_free_s = max(self._driver_free_s, self.clock.now) + spent
            else:
                self._obey_rare(action)

    def _obey_rare(self, action: Action) -> None:
        if isinstance(action, StartWorker):
            self._start_worker(action)
        elif isinstance(action, StopWorker):
            self._stop_worker(action)
        elif isinstance(action, Note):
            self.journal.note(action, self.now)
        elif isinstance(action, Wave):
            self._wave(action)
        elif isinstance(action, Cancel):
            self.cancel(action)
        elif isinstance(action, Feed):
            self.feed(action)
        elif isinstance(action, Persist):
            self.persist(action)
        elif isinstance(action, Wake):
            Timer(self.clock, self._woken, action.key).arm(action.after_s)
        elif isinstance(action, Fail):
            self._failure = action
            self.clock.stopped = True
        elif isinstance(action, Finish):
            self._result = action.blocks
            self.clock.stopped = True

    def _start_worker(self, action: StartWorker) -> None:
        cost, node, now = self._cost, self._machines[action.node], self.clock.now
        worker = Worker(self.clock, self._joined, node, action.stage)
        self._workers[action.worker] = worker
        worker.arg = action.worker
        if cost.worker_memory_bytes:
            node.memory.take(cost.worker_memory_bytes, "a worker process")
        delay = max(cost.startup_s - now, 0.0) + node.spec.startup_s
        if action.stage < 0:
            worker.weight = self._pool_weight
            delay += cost.worker_start_s
        else:
            stage = self._stages[action.stage]
            worker.weight = stage.weight
            delay += cost.actor_start_s
            delay += self._load(stage, worker, delay)
        node.weight += worker.weight
        worker.arm(delay)

    def _load(self, stage: StageRun, worker: Worker, delay: float) -> float:
        """Account an actor's state; the seconds it takes to load."""
        state, resources = stage.spec.state, stage.spec.resources
        if resources.gpus > 0 and worker.node.spec.gpus.memory_bytes:
            check_device_memory(worker.node.spec.gpus, state.memory_bytes, 0.0, stage.name)
        else:
            worker.node.memory.take(state.memory_bytes, f"the state of {stage.name!r}")
        begin = self.now + delay
        self.journal.loaded(stage, worker.arg, begin, begin + state.load_s)
        return state.load_s

    def _joined(self, worker: Worker) -> None:
        """A worker's first event: it is up."""
        if worker.alive:
            worker.joined_s = self.clock.now
            self._is_up(worker)
            self._send(WorkerJoined(worker.arg), 0.0)

    def _stop_worker(self, action: StopWorker) -> None:
        worker = self._workers.pop(action.worker)
        self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        worker.alive = worker.up = False
        if worker.mapped:
            self._let_go(worker)
        worker.node.weight -= worker.weight
        worker.node.memory.give(self._cost.worker_memory_bytes)
        if worker.stage >= 0:
            stage = self._stages[worker.stage].spec
            if not (stage.resources.gpus > 0 and worker.node.spec.gpus.memory_bytes):
                worker.node.memory.give(stage.state.memory_bytes)

    def _launch(self, launch: Launch) -> None:
        worker = self._workers.get(launch.worker)
        if worker is None:
            return  # lost a moment ago: its model will hear of it
        now = self.clock.now
        free = self._driver_free_s
        ready = (free if free > now else now) + self._cost.launch_s
        self._driver_free_s = ready
        if launch.attempt:
            self.journal.recorder.count("retries")
        if worker.launch is None and worker.up and not worker.queue:
            self._begin(worker, launch, ready)
        else:
            worker.queue.append((ready, launch))
            if self._traits.prefetch and launch.blocks and worker.ahead is None:
                worker.ahead = run = TaskRun(self._stages[launch.stage], launch, worker)
                run.ahead = True
                self._fetch(run)


def _failed(fail: Fail) -> RunFailed:
    where = f"operator {fail.operator!r}" if fail.operator else "the job"
    part = f", partition {fail.partition}" if fail.partition is not None else ""
    return RunFailed(f"{where}{part} failed: {fail.reason}", operator=fail.operator, partition=fail.partition)
