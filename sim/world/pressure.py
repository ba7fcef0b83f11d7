"""What becomes of a node whose tasks want more memory than the engine allows: its worker dies, or one process after the other.

Between `gathering` and `losses`. Workers may pause before it comes to that (Dask). Two laws of the end: a node that is one worker loses
it with all its results at once (Dask's nanny); or a monitor looks every `LOOK_S` and kills the process that began last (Ray). A task
takes all its memory when it begins here, in truth while it runs: so the monitor is taken to see what is too much before the system does.
"""

from __future__ import annotations

from windtunnel.errors import OutOfMemory
from windtunnel.model import Launch
from windtunnel.sim.clock import Timer
from windtunnel.sim.hardware.node import Node
from windtunnel.sim.world.gathering import Gathering
from windtunnel.sim.world.tasks import Worker
from windtunnel.spec.units import format_bytes

LOOK_S = 0.25  # RAY_memory_monitor_refresh_ms
MONITOR_S = 0.1  # how often a paused worker looks at its memory: distributed.worker.memory.monitor-interval


class Pressure(Gathering):
    """The part of the world that watches memory."""

    def lose_node(self, node: int) -> None:
        """It is gone with all that is on it."""
        raise NotImplementedError

    def join_node(self, node: int) -> None:
        """It is there again, empty."""
        raise NotImplementedError

    def lose_worker(self, number: int, for_memory: bool = False) -> None:
        """A process dies."""
        raise NotImplementedError

    def watch_memory(self) -> None:
        """From now on, a node whose tasks bring it above the engine's limit loses its worker with all its results, or one process."""
        traits = self._traits
        for machine in self._machines:
            machine.memory.limit = round((traits.terminate or traits.kill) * machine.memory.limit)
            machine.memory.watcher = self._over if traits.terminate else self._noticed

    # -- workers that wait ------------------------------------------------------------------------------------------------

    def _paused(self, worker: Worker, launch: Launch, ready: float) -> bool:
        """Whether a worker must wait, because its node is short of memory and others there run."""
        node = worker.node
        if not self._short(node):
            return False
        self.journal.recorder.count("pauses")
        worker.queue.insert(0, (ready, launch))
        if not node.paused:
            Timer(self.clock, self._look_again, node).arm(MONITOR_S)
        node.paused.append(worker)
        return True

    def _look_again(self, timer: Timer) -> None:
        node: Node = timer.arg
        if self._short(node):
            timer.arm(MONITOR_S)
            return
        paused, node.paused = node.paused, []
        for worker in paused:
            if worker.alive and worker.launch is None and worker.queue:
                ready, launch = worker.queue.pop(0)
                self._begin(worker, launch, ready)

    def _short(self, node: Node) -> bool:
        return node.memory.used > self._pauses * node.spec.usable_memory_bytes and self._busy(node)

    def _busy(self, node: Node) -> bool:
        """Whether a task runs on a node."""
        return any(w.launch is not None for w in self._workers.values() if w.node is node)

    # -- the whole node ------------------------------------------------------------------------------------------------

    def _over(self, node: int) -> bool:
        machine = self._machines[node]
        if not self._busy(machine):  # it would be too much for a new worker too
            return False
        if not machine.doomed:
            machine.doomed = True
            Timer(self.clock, self._terminate, node).arm(0.0)
        return True

    def _terminate(self, timer: Timer) -> None:
        node: int = timer.arg
        machine = self._machines[node]
        machine.doomed = False
        if not machine.alive:
            return
        self.journal.recorder.count("workers_terminated")
        self.journal.recorder.span("fault", f"worker out of memory on node {node}", self.clock.now, self.clock.now)
        self.lose_node(node)
        machine.memory.look_out()
        self.join_node(node)

    # -- one process after the other -----------------------------------------------------------------------------------

    def _noticed(self, node: int) -> bool:
        machine = self._machines[node]
        if not machine.doomed:
            machine.doomed = True
            Timer(self.clock, self._look_at, machine).arm(LOOK_S - self.clock.now % LOOK_S)
        return True

    def _look_at(self, timer: Timer) -> None:
        """The monitor's turn: the process that began last dies, unless it is the last one, which nothing could help."""
        machine: Node = timer.arg
        machine.doomed = False
        memory = machine.memory
        memory.look_out()
        if memory.used <= memory.limit or not machine.alive:
            return
        busy = [(self._since(w), n) for n, w in self._workers.items() if w.node is machine and w.launch is not None]
        if not busy:
            return
        if len(busy) == 1:
            raise OutOfMemory(
                f"node {machine.index} ran out of memory: its last task brings it to {format_bytes(memory.used)}, above the threshold "
                f"of {format_bytes(memory.limit)} at which workers are killed, and would be begun again for ever; give it more memory, a "
                "smaller object store, or fewer rows a task"
            )
        self.journal.recorder.count("workers_killed_for_memory")
        self.lose_worker(max(busy)[1], for_memory=True)
        machine.doomed = True
        timer.arm(LOOK_S)

    def _since(self, worker: Worker) -> float:
        """When its lease was granted: an actor's with its start."""
        return worker.joined_s if worker.stage >= 0 else worker.started_s
