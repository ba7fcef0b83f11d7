"""The simulated world: obeys any execution model on a virtual clock. It decides nothing and knows no engine by name.

SimPy keeps the time, with bare callbacks and events that are used again: a worker is its own timer, the driver has one, and
processors, disks and links keep one each. The driver is a server: it handles one message after the other, each with its own
service time, and pays for every launch. Tasks that need only one slot of one resource (`Quick`) take a short way through.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence

from simpy.core import Environment
from windtunnel.sim.costs import EngineCost
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.hardware.gpu import check_device_memory
from windtunnel.sim.hardware.network import Network
from windtunnel.sim.journal import Journal
from windtunnel.sim.laws import StageLaw
from windtunnel.sim.tasks import Node, Quick, StageRun, TaskRun, Worker

from windtunnel.cluster import ClusterSpec
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
    MemoryPressure,
    NodeView,
    Note,
    Release,
    StartWorker,
    StopWorker,
    TaskDone,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from windtunnel.record import Recorder

STORE_FRACTION = 0.3  # of usable memory, as the embedded engines
WIDE_FETCH = 8  # sources above which the up links of a fetch count as no bottleneck


class SimWorld:
    """One run of one job. ``now`` is virtual seconds since its start."""

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
    ) -> None:
        self.env = Environment()
        specs = [group for group in cluster.nodes for _ in range(group.count)]
        self.nodes = tuple(NodeView(i, s.cpus, s.gpus.count, s.usable_memory_bytes) for i, s in enumerate(specs))
        limits = _store_limits([s.usable_memory_bytes for s in specs], store_bytes)
        self.store_limit_bytes = sum(limits)
        self.stored_bytes = 0
        self._cost = cost
        self._machines = [Node(self.env, i, s, limit, cost) for i, (s, limit) in enumerate(zip(specs, limits, strict=True))]
        network = cluster.network
        self._network = Network(self.env, [s.nic_bytes_per_s for s in specs], network.oversubscription, network.latency_s)
        self._job = job
        self._stages = [StageRun(s, law, cost, block_bytes, seed) for s, law in zip(job.stages, laws, strict=True)]
        self.journal = Journal(recorder, self._stages, spans)
        self._workers: dict[int, Worker] = {}
        self._blocks: list[Block | None] = []
        self._inbox: deque[tuple[float, Event]] = deque()
        self._driver = Timer(self.env, self._handle)
        self._driver_busy = False
        self._driver_free_s = cost.startup_s
        self._pressed = False
        self._failure: Fail | None = None
        self._result: tuple[int, ...] | None = None

    @property
    def now(self) -> float:
        """Virtual seconds since the start of the run."""
        return float(self.env.now)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, model: ExecutionModel) -> list[Block]:
        """Run to the end; the result's blocks in order. Raises RunFailed and OutOfMemory."""
        self._model = model
        collecting = gc.isenabled()
        gc.disable()  # the hot path makes no cycles; scanning its many live objects would cost a fifth of the time
        try:
            self._obey(model.start(self._job, self))
            if model.tick_s > 0:
                Timer(self.env, self._tick).arm(model.tick_s)
            self._loop()
        finally:
            if collecting:
                gc.enable()
            self.journal.close(self.makespan_s, self._machines, self._network.bytes)
        if self._failure is not None:
            raise _failed(self._failure)
        return [b for i in self._result or () if (b := self._blocks[i]) is not None]

    @property
    def makespan_s(self) -> float:
        """When the driver had the result."""
        return max(self.now, self._driver_free_s) + self._cost.finish_s

    def _loop(self) -> None:
        env = self.env
        step = env.step
        queue = env._queue
        while self._result is None and self._failure is None:
            if not queue:
                raise RunFailed(
                    "the model stopped releasing work before the job was complete: no task runs and no event is due; "
                    "this is a fault of the execution model, or the cluster has no slot for some stage"
                )
            step()

    def _tick(self, timer: Timer) -> None:
        self._send(Tick(), 0.0)
        timer.arm(self._model.tick_s)

    # -- the driver --------------------------------------------------------------------------------------------------

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message to the driver. An idle driver takes it up at once and answers ``service_s`` later; else it queues."""
        now = self.env._now
        if self._driver_free_s <= now and not self._inbox:
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
        now = self.env._now
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

    # -- actions -----------------------------------------------------------------------------------------------------

    def _obey(self, actions: Sequence[Action]) -> None:
        for action in actions:
            kind = type(action)
            if kind is Launch:
                self._launch(action)  # type: ignore[arg-type]
            elif kind is Release:
                self._release(action.blocks)  # type: ignore[union-attr]
            else:
                self._obey_rare(action)

    def _obey_rare(self, action: Action) -> None:
        if isinstance(action, StartWorker):
            self._start_worker(action)
        elif isinstance(action, StopWorker):
            self._stop_worker(action)
        elif isinstance(action, Note):
            self.journal.note(action, self.now)
        elif isinstance(action, Fail):
            self._failure = action
        elif isinstance(action, Finish):
            self._result = action.blocks

    def _start_worker(self, action: StartWorker) -> None:
        node = self._machines[action.node]
        worker = Worker(self.env, self._on_worker, node, action.stage)
        self._workers[action.worker] = worker
        worker.arg = action.worker
        node.memory.take(self._cost.worker_memory_bytes, "a worker process")
        delay = max(self._cost.startup_s - self.now, 0.0) + node.spec.startup_s
        delay += self._cost.worker_start_s if action.stage < 0 else self._cost.actor_start_s
        stage = self._stages[action.stage] if action.stage >= 0 else None
        if stage is not None:
            worker.weight = stage.weight
            delay += self._load(stage, worker, delay)
        else:
            worker.weight = max((s.weight for s in self._stages if s.spec.state.kind == "stateless"), default=1.0)
        node.weight += worker.weight
        Timer(self.env, self._joined, worker).arm(delay)

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

    def _joined(self, timer: Timer) -> None:
        worker: Worker = timer.arg
        if worker.alive:
            worker.up = True
            self._send(WorkerJoined(worker.arg), 0.0)

    def _stop_worker(self, action: StopWorker) -> None:
        worker = self._workers.pop(action.worker)
        self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        worker.alive = worker.up = False
        worker.node.weight -= worker.weight
        worker.node.memory.give(self._cost.worker_memory_bytes)
        if worker.stage >= 0:
            stage = self._stages[worker.stage].spec
            if not (stage.resources.gpus > 0 and worker.node.spec.gpus.memory_bytes):
                worker.node.memory.give(stage.state.memory_bytes)

    def lose_worker(self, number: int) -> None:
        """A worker dies now; what it was doing is gone and its model is told."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        if worker.run is not None:
            worker.node.memory.give(worker.run.memory)
        elif worker.launch is not None:
            quick = self._stages[worker.launch.stage].quick[worker.launch.partition]
            assert quick is not None
            worker.node.memory.give(quick.memory + quick.bytes)
        self._dismiss(worker)
        self.journal.recorder.count("workers_lost")
        self._send(WorkerLost(number), self._cost.done_s)

    def _release(self, ids: tuple[int, ...]) -> None:
        for i in ids:
            block = self._blocks[i]
            if block is None:
                continue
            self._blocks[i] = None
            node = self._machines[block.node]
            if block.on_disk:
                node.disk.used -= block.bytes
            else:
                node.store.free(block.bytes)
                self.stored_bytes -= block.bytes
        if self._pressed and self.stored_bytes < 0.9 * self.store_limit_bytes:
            self._pressed = False
        self.journal.stored.note(self.env._now, self.stored_bytes)

    def _launch(self, launch: Launch) -> None:
        worker = self._workers.get(launch.worker)
        if worker is None:
            return  # lost a moment ago: its model will hear of it
        now = self.env._now
        free = self._driver_free_s
        ready = (free if free > now else now) + self._cost.launch_s
        self._driver_free_s = ready
        if launch.attempt:
            self.journal.recorder.count("retries")
        if worker.launch is None and worker.up:
            self._begin(worker, launch, ready)
        else:
            worker.queue.append((ready, launch))

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker, launch: Launch, ready: float) -> None:
        """The worker is free: it starts ``launch`` at ``ready`` (now or a moment later)."""
        stage = self._stages[launch.stage]
        now = self.env._now
        worker.launch = launch
        worker.ready_s = ready
        node = worker.node
        if stage.law.source and launch.attempt == 0 and node.flat_law and node.weight <= node.cpus:
            if not stage.quick:
                stage.prepare_quick(node.spec)
            quick = stage.quick[launch.partition]
            if quick is not None:
                worker.started_s = start = ready if ready > now else now
                memory = node.memory
                memory.used += quick.memory + quick.bytes
                if memory.used > memory.peak:
                    memory.take(0, stage.name)
                worker.arm(start - now + stage.seconds[launch.partition])
                return
        run = worker.run = TaskRun(stage, launch, worker)
        if ready > now:
            worker.arm(ready - now)
        else:
            self._fetch(run)

    def _on_worker(self, worker: Worker) -> None:
        """A worker's own timer fired: a launch arrived, a phase ended, or a quick task is done."""
        if not worker.alive:
            return
        run = worker.run
        if run is None:
            self._quick_done(worker)
        elif run.phases:
            self._phase_done(run)
        else:
            self._fetch(run)

    def _quick_done(self, worker: Worker) -> None:
        launch = worker.launch
        assert launch is not None
        stage = self._stages[launch.stage]
        quick = stage.quick[launch.partition]
        assert quick is not None
        node = worker.node
        store = node.store
        index = node.index
        if store.used + quick.bytes > store.limit:
            self._quick_spills(worker, stage, quick)
            return
        node.memory.used -= quick.memory  # the output's bytes stay, now in the store
        store.used += quick.bytes
        store.peak = max(store.peak, store.used)
        self.stored_bytes += quick.bytes
        blocks = self._blocks
        number = len(blocks)
        done = [
            Block(number + i, launch.stage, partition, launch.task, rows, size, index)
            for i, (partition, rows, size) in enumerate(quick.blocks)
        ]
        blocks += done
        self.journal.quick_done(worker, stage, quick, self.env._now)
        self._end(worker, launch, done)

    def _quick_spills(self, worker: Worker, stage: StageRun, quick: Quick) -> None:
        """Its output does not fit in the store: go on as a general task that is about to emit."""
        launch = worker.launch
        assert launch is not None
        run = worker.run = TaskRun(stage, launch, worker)
        run.work, run.plan = quick.work, stage.plan(quick.work, launch.partition)
        run.factors = stage.factors(quick.work, launch.partition, 0)
        run.phases, run.phase = [("sleep", stage.seconds[launch.partition])], 1
        run.started_s = run.fetched_s = worker.started_s
        run.memory = quick.memory + quick.bytes
        self._emit(run)

    def _end(self, worker: Worker, launch: Launch, blocks: list[Block]) -> None:
        worker.launch = worker.run = None
        now = self.env._now
        if now >= self.journal.stored.next_s:
            self.journal.stored.note(now, self.stored_bytes)
        self._send(TaskDone(launch.task, blocks), self._cost.done_s)
        if worker.queue and worker.launch is None and worker.alive:
            ready, following = worker.queue.popleft()
            self._begin(worker, following, ready)

    # -- tasks on the general path -----------------------------------------------------------------------------------

    def _fetch(self, run: TaskRun) -> None:
        """Bring the inputs here: over the network from other nodes, from disk where they were spilled."""
        run.started_s = run.worker.started_s = self.env._now
        node, launch = run.worker.node, run.launch
        remote: dict[int, int] = {}
        from_disk: dict[int, int] = {}
        rows = size = 0
        for i in launch.blocks:
            block = self._blocks[i]
            assert block is not None, f"task {launch.task} reads block {i}, which was released"
            rows += block.rows
            size += block.bytes
            self._locate(block, node, remote, from_disk)
        for side in launch.sides:
            for i in side:
                block = self._blocks[i]
                assert block is not None, f"task {launch.task} reads block {i}, which was released"
                if i not in node.cached:
                    node.cached.add(i)
                    self._locate(block, node, remote, from_disk)
        self._work_out(run, rows, size)
        copied = sum(remote.values())
        run.memory += copied
        node.memory.take(run.memory, run.stage.name)
        run.pending = 1
        for source, count in sorted(from_disk.items()):
            run.pending += 1
            self._machines[source].disk.read(count, self._fetched, run)
        wide = len(remote) > WIDE_FETCH
        for source, count in [(-1, copied)] if wide else sorted(remote.items()):
            run.pending += 1
            self._network.transfer(source, node.index, count, self._fetched, run)
        self._fetched(run)

    def _locate(self, block: Block, node: Node, remote: dict[int, int], from_disk: dict[int, int]) -> None:
        if block.on_disk:
            from_disk[block.node] = from_disk.get(block.node, 0) + block.bytes
        if block.node != node.index:
            remote[block.node] = remote.get(block.node, 0) + block.bytes

    def _work_out(self, run: TaskRun, rows: int, size: int) -> None:
        stage, launch, node = run.stage, run.launch, run.worker.node
        if stage.law.source:
            rows, size = stage.law.source[launch.partition]
        inputs = len(launch.blocks)
        run.work = stage.work(rows, size, max(inputs, 1))
        run.plan = stage.plan(run.work, launch.partition)
        run.factors = stage.factors(run.work, launch.partition, launch.attempt)
        out = [sum(b for _, _, b in e.blocks) for e in run.plan]
        count = sum(len(e.blocks) for e in run.plan)
        run.phases = stage.phases(run, node.spec, inputs, 0 if stage.law.source else size, count, sum(out))
        if "device" in stage.classes:
            batch = size / max(run.work.batches, 1) + max(out)
            check_device_memory(node.spec.gpus, stage.spec.state.memory_bytes, batch, stage.name)
        run.memory = stage.memory_bytes + max(out)

    def _fetched(self, run: TaskRun) -> None:
        run.pending -= 1
        if run.pending == 0 and run.worker.alive:
            run.fetched_s = self.env._now
            self._phase(run)

    def _phase(self, run: TaskRun) -> None:
        """Begin the phase at hand of the emission at hand."""
        work_class, seconds = run.phases[run.phase]
        before = run.plan[run.emission - 1].fraction if run.emission else 0.0
        seconds *= run.plan[run.emission].fraction - before
        node = run.worker.node
        if work_class == "cpu" and not (node.flat_law and node.weight <= node.spec.cpus):
            node.cpu.add(seconds, run.stage.weight, self._phase_done, run)
        else:
            run.worker.arm(seconds)

    def _phase_done(self, run: TaskRun) -> None:
        if not run.worker.alive:
            return
        run.phase += 1
        if run.phase < len(run.phases):
            self._phase(run)
        else:
            self._emit(run)

    def _emit(self, run: TaskRun) -> None:
        """Store the blocks of the emission at hand; one that does not fit is written to disk first."""
        launch, node = run.launch, run.worker.node
        last = run.emission == len(run.plan) - 1
        pieces = run.plan[run.emission].blocks
        at = run.at - sum(len(e.blocks) for e in run.plan[: run.emission])
        for partition, rows, size in pieces[at:]:
            run.at += 1
            if run.at <= launch.skip_blocks:
                continue
            if not node.store.put(size):
                self._spill(run, Block(-1, launch.stage, partition, launch.task, rows, size, node.index, True))
                return
            self.stored_bytes += size
            self._made(run, Block(-1, launch.stage, partition, launch.task, rows, size, node.index), last)
        self.journal.stored.note(self.env._now, self.stored_bytes)
        if last:
            self._task_done(run)
        else:
            run.emission += 1
            run.phase = 0
            self._phase(run)

    def _made(self, run: TaskRun, block: Block, last: bool) -> None:
        block.id = len(self._blocks)
        self._blocks.append(block)
        if last:
            run.blocks.append(block)
        else:
            self._send(BlockReady(block), self._cost.block_s)

    def _spill(self, run: TaskRun, block: Block) -> None:
        begin = self.env._now
        if not self._pressed:
            self._pressed = True
            self._send(MemoryPressure(self.stored_bytes, self.store_limit_bytes), self._cost.block_s)

        def written(_: object) -> None:
            if not run.worker.alive:
                return
            run.spill_s += self.env._now - begin
            self.journal.spilled(run, block, begin, self.env._now)
            self._made(run, block, run.emission == len(run.plan) - 1)
            self._emit(run)

        run.worker.node.disk.write(block.bytes, written, None)

    def _task_done(self, run: TaskRun) -> None:
        run.worker.node.memory.give(run.memory)
        self.journal.task_done(run, self.env._now)
        self._end(run.worker, run.launch, run.blocks)


def _store_limits(memory: list[int], total: int | None) -> list[int]:
    """The object store's bytes on each node: its share of ``total`` by memory."""
    if total is None:
        return [int(STORE_FRACTION * m) for m in memory]
    return [total * m // sum(memory) for m in memory]


def _failed(fail: Fail) -> RunFailed:
    where = f"operator {fail.operator!r}" if fail.operator else "the job"
    part = f", partition {fail.partition}" if fail.partition is not None else ""
    return RunFailed(f"{where}{part} failed: {fail.reason}", operator=fail.operator, partition=fail.partition)
