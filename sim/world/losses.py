"""What a loss does to a simulated cluster: workers, tasks, blocks and links that go with a node, and what is left when it returns.

Between `pressure` and `world`: it takes things away and tells the driver, who recovers as the model says.
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.model import Cancel, DeviceLost, Launch, NodeJoined, NodeLeaving, NodeLost, TaskFailed, WorkerLost
from windtunnel.sim.clock import Timer
from windtunnel.sim.world.pressure import Pressure
from windtunnel.sim.world.tasks import TaskRun, Worker
from windtunnel.spec.cluster import Fault


class Losses(Pressure):
    """The part of the world that faults act on (`windtunnel.sim.world.faults.Breakable`)."""

    def _dismiss(self, worker: Worker) -> None:
        raise NotImplementedError

    def note_fault(self, fault: Fault, begin_s: float, end_s: float) -> None:
        """For the record: a span of kind ``fault``, and a counter."""
        self.journal.recorder.count("faults")
        self.journal.recorder.span("fault", f"{fault.kind} {fault.target}", begin_s, max(end_s, begin_s))

    # -- nodes -------------------------------------------------------------------------------------------------------

    def absent(self, node: int) -> None:
        """A node that joins later is not there at the start."""
        self._machines[node].alive = False
        self.usage.gone(node, self.clock.now)
        self._see_nodes()

    def _see_nodes(self) -> None:
        self.nodes = tuple(v for v, m in zip(self._all_nodes, self._machines, strict=True) if m.alive)

    def lose_node(self, node: int) -> None:
        """Its workers, their tasks, and every block on it are gone; the job's results are with whoever asked for them."""
        machine = self._machines[node]
        if not machine.alive:
            return
        machine.alive = False
        self.usage.gone(node, self.clock.now)
        self._see_nodes()
        last = len(self._stages) - 1
        lost = [i for i, b in enumerate(self._blocks) if b is not None and b.node == node and b.stage != last]
        for number in [n for n, w in self._workers.items() if w.node is machine]:
            worker = self._workers.pop(number)
            self.usage.cut_short(worker, self._stages, self.clock.now)
            worker.alive = worker.up = False
        self._empty(node, lost)
        self.journal.recorder.count("nodes_lost")
        self.journal.recorder.count("blocks_lost", len(lost))
        self._send(NodeLost(node, tuple(lost)), self._cost.done_s)
        self._abort_fetches(set(lost))

    def _empty(self, node: int, lost: list[int]) -> None:
        machine = self._machines[node]
        for i in lost:
            block = self._blocks[i]
            assert block is not None
            if not block.on_disk:
                self.stored_bytes -= block.bytes
            self._stages[block.stage].queued -= block.bytes
            self._blocks[i] = None
        kept = sum(b.bytes for b in self._blocks if b is not None and b.node == node and not b.on_disk)
        machine.store.used = machine.memory.used = kept
        machine.disk.used = 0
        machine.weight = 0.0
        machine.cached.clear()

    def release_node(self, node: int) -> None:
        """It takes no further task; what it has stays."""
        if self._machines[node].alive:
            self._send(NodeLeaving(node), self._cost.done_s)

    def join_node(self, node: int) -> None:
        """A node is there, with nothing on it."""
        machine = self._machines[node]
        if machine.alive:
            return
        machine.alive, machine.slow = True, 1.0
        self.usage.back(node, self.clock.now)
        self._see_nodes()
        self.journal.recorder.count("nodes_joined")
        self._send(NodeJoined(self._all_nodes[node]), self._cost.done_s)

    # -- tasks whose inputs are gone ---------------------------------------------------------------------------------

    def _abort_fetches(self, lost: set[int]) -> None:
        """Tasks elsewhere that still wait for inputs from a lost node go back to the driver."""
        for worker in list(self._workers.values()):
            for ready, launch in list(worker.queue):
                if lost.intersection(launch.blocks):
                    worker.queue.remove((ready, launch))
                    if worker.ahead is not None and worker.ahead.launch is launch:
                        self._drop(worker.ahead)
                        worker.ahead = None
                    self._refuse(launch)
            run = worker.run
            if run is not None and run.pending and run.fetched_s < run.started_s and lost.intersection(run.launch.blocks):
                self._drop(run)
                self._give_back(worker, run.launch)

    def _drop(self, run: TaskRun) -> None:
        run.dropped = True
        run.worker.node.memory.give(run.memory)

    def _give_back(self, worker: Worker, launch: Launch) -> None:
        """A worker could not begin a task: it goes on with the next one."""
        worker.launch = worker.run = None
        if worker.queue:
            ready, following = worker.queue.pop(0)
            self._begin(worker, following, ready)
        self._refuse(launch)

    def _refuse_run(self, run: TaskRun) -> None:
        worker, launch = run.worker, run.launch
        run.dropped = True
        if not run.ahead:
            self._give_back(worker, launch)
            return
        worker.queue = [entry for entry in worker.queue if entry[1] is not launch]
        Timer(self.clock, self._forget_ahead, run).arm(0.0)  # its worker is about to note it as fetched ahead

    def _forget_ahead(self, timer: Timer) -> None:
        run: TaskRun = timer.arg
        if run.worker.ahead is run:
            run.worker.ahead = None
        self._refuse(run.launch)

    def _refuse(self, launch: Launch) -> None:
        self._send(TaskFailed(launch.task, "its input was lost", retriable=True, input_lost=True), self._cost.done_s)

    # -- processes, devices, speeds ----------------------------------------------------------------------------------

    def lose_worker(self, number: int, for_memory: bool = False) -> None:
        """A worker dies now; what it was doing is gone and its model is told."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        self._interrupt(worker)
        self._dismiss(worker)
        self.journal.recorder.count("workers_lost")
        self._send(WorkerLost(number, for_memory), self._cost.done_s)

    def _interrupt(self, worker: Worker) -> None:
        """What a worker was doing is lost; the memory of it is free."""
        memory = worker.node.memory
        self.usage.cut_short(worker, self._stages, self.clock.now)
        for run in (worker.run, worker.ahead):
            if run is not None:
                memory.give(run.memory)
        if worker.run is None and worker.launch is not None:
            quick = self._stages[worker.launch.stage].quick[worker.launch.partition]
            assert quick is not None
            memory.give(quick.memory + quick.bytes)

    def cancel(self, action: Cancel) -> None:
        """A worker drops its task: another takes its place, for whom nothing of the old one is due."""
        worker = self._workers.get(action.worker)
        if worker is None or worker.launch is None or worker.launch.task != action.task:
            return
        self._interrupt(worker)
        self.journal.recorder.count("tasks_cancelled")
        worker.alive = worker.up = False
        heir = self._workers[action.worker] = Worker(self.clock, self._on_worker, worker.node, worker.stage)
        heir.arg, heir.weight, heir.cold, heir.up = worker.arg, worker.weight, worker.cold, True
        if worker.mapped:
            self._let_go(worker)
        heir.queue = worker.queue
        if heir.queue:
            ready, following = heir.queue.pop(0)
            self._begin(heir, following, ready)

    def kill_worker_on(self, node: int) -> None:
        """One busy process of a node dies; an idle one when none is busy."""
        here = [(w.launch is None, n) for n, w in self._workers.items() if w.node.index == node]
        if here:
            self.lose_worker(min(here)[1])

    # -- what is left ----------------------------------------------------------------------------------------------------

    def missing(self) -> str:
        """What was lost and has not come back, in words; empty when all is there."""
        nodes = sum(1 for m in self._machines if not m.alive)
        devices = sum(m.spec.gpus.count - v.gpus for m, v in zip(self._machines, self._all_nodes, strict=True))
        parts = [
            f"{count:g} {name}{'s' if count > 1 else ''} lost" for count, name in ((nodes, "node"), (devices, "device")) if count
        ]
        return " and ".join(parts)

    def lose_device(self, node: int) -> None:
        """One device goes, and with it a process that used it."""
        view = self._all_nodes[node]
        self._all_nodes[node] = replace(view, gpus=max(view.gpus - 1, 0))
        if view.gpus:
            self.usage.device_gone(self.clock.now)
        self._see_nodes()
        self._send(DeviceLost(node), self._cost.done_s)
        for number, worker in self._workers.items():
            stage = worker.stage if worker.stage >= 0 else (worker.launch.stage if worker.launch else -1)
            if worker.node.index == node and stage >= 0 and self._stages[stage].spec.resources.gpus > 0:
                self.lose_worker(number)
                return

    def slow_node(self, node: int, factor: float) -> None:
        """Tasks that begin from now on take ``factor`` times as long on this node."""
        self._machines[node].slow = factor

    def slow_network(self, node: int, factor: float) -> None:
        """The node's links carry ``1 / factor`` of what they could."""
        self._network.scale(node, 1.0 / factor)
