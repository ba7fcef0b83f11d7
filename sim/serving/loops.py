"""Single-threaded processes on nodes with finitely many CPUs: event loops that serve one piece of work after another, or all at once.

The module owns how CPU time is shared, between the requests of a process and between the processes of a node, and the law of
contention: a process that holds n requests spends ``c × (1 + k × n)`` of its own CPU on one where a process that holds none
spends c. It knows no request and no deployment.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.hardware.cpu import Done, Shared
from windtunnel.sim.serving.cores import Cores
from windtunnel.spec.cluster import NodeSpec


class Machine:
    """A node. ``crowded``: its processes could keep more CPUs busy than it has, so that they slow each other down.

    Work that begins on a machine that is not crowded runs at full speed to its end. ``free_cpus`` and ``free_gpus`` are what no
    replica has reserved.
    """

    __slots__ = (
        "alive",
        "clock",
        "cores",
        "cpus",
        "crowded",
        "free_cpus",
        "free_gpus",
        "index",
        "link",
        "sharers",
        "slow",
        "spec",
        "weight",
    )

    def __init__(self, clock: Clock, index: int, spec: NodeSpec) -> None:
        self.clock, self.index, self.spec = clock, index, spec
        self.cpus = float(spec.cpus)
        self.free_cpus, self.free_gpus = self.cpus, float(spec.gpus.count)
        self.weight = 0.0
        self.sharers: dict[SharedLoop, None] = {}  # busy processes with shared time
        self.crowded = False
        self.slow = 1.0  # a straggler takes so many times as long
        self.link = 1.0  # a slow network takes so many times as long
        self.alive = True
        self.cores = Cores(clock, self.cpus)

    def share(self, loop: SharedLoop, busy: bool) -> None:
        """A process with shared time becomes busy or idle."""
        if busy:
            self.sharers[loop] = None
            if self.crowded:
                self.cores.join(loop)
        else:
            del self.sharers[loop]
            self.cores.rest(loop)

    def host(self, weight: float) -> None:
        """A process that may keep ``weight`` CPUs busy comes (or goes, when negative)."""
        before = self.crowded
        self.weight += weight
        self.crowded = self.weight > self.cpus + 1e-9
        if self.crowded and not before:
            for loop in self.sharers:
                self.cores.join(loop)


class Loop(Timer):
    """A process that does one thing at a time, first come first served. It holds ``held`` requests that it has not answered, or,
    where it is a replica's, as many as ``calls``.

    ``begun_s`` is when the piece of work that just finished began, and ``share`` the part of it that was not overhead; ``busy_s``
    sums CPU seconds.
    """

    __slots__ = (
        "_arg",
        "_begun",
        "_done",
        "_queue",
        "_running",
        "_share",
        "begun_s",
        "busy_s",
        "calls",
        "contention",
        "dead",
        "held",
        "machine",
        "share",
        "weight",
    )

    def __init__(self, machine: Machine, weight: float, contention: float) -> None:
        super().__init__(machine.clock, self._finish)
        self.machine, self.weight, self.contention = machine, weight, contention
        self.held = 0
        self.calls: dict[Any, None] | None = None
        self.dead = False
        self.begun_s = self.busy_s = self._begun = 0.0
        self.share = self._share = 1.0
        self._running = False
        self._queue: deque[tuple[float, float, Done, Any]] = deque()
        self._done: Done
        self._arg: Any = None
        machine.host(weight)

    def run(self, own: float, overhead: float, done: Done, arg: Any) -> None:
        """``own`` seconds of work plus ``overhead`` under the law of contention; ``done(arg)`` when they are over."""
        if self.dead:
            return
        if self._running:
            self._queue.append((own, overhead, done, arg))
        else:
            self._begin(own, overhead, done, arg)

    def _begin(self, own: float, overhead: float, done: Done, arg: Any) -> None:
        self._running = True
        self._done, self._arg, self._begun = done, arg, self.clock.now
        machine = self.machine
        total = own + overhead * self._slowed() if overhead else own
        self._share = own / total if total else 1.0
        seconds = total * machine.slow
        self.busy_s += seconds
        if machine.crowded and self.weight:
            machine.cores.run(self, seconds)
        else:
            clock = self.clock  # what `arm` does, without its call
            clock.arm(self, seconds)

    def _slowed(self) -> float:
        """By the law of contention."""
        return 1.0 + self.contention * (self.held if self.calls is None else len(self.calls))

    def _finish(self, _: Any) -> None:
        if self.dead:
            return
        done, arg = self._done, self._arg
        begun, share = self._begun, self._share
        if self._queue:
            self._begin(*self._queue.popleft())
        else:
            self._running = False
            self.machine.cores.rest(self)
        self.begun_s = begun
        self.share = share
        done(arg)

    def ended(self) -> None:
        """What it was given a CPU for is done."""
        self._finish(self)

    def touch(self) -> None:
        """Its share of a CPU has changed; what it does is told by `Cores` itself."""

    def kill(self) -> None:
        """The process ends; nothing that it had begun or queued is ever done."""
        self.dead = True
        self._queue.clear()
        self.machine.cores.forget(self)
        self.machine.host(-self.weight)


class SharedLoop(Loop):
    """A process whose requests share its CPU equally, as threads do."""

    __slots__ = ("_jobs",)

    def __init__(self, machine: Machine, weight: float, contention: float) -> None:
        super().__init__(machine, weight, contention)
        self._jobs = Shared(machine.clock, self._rate)

    def run(self, own: float, overhead: float, done: Done, arg: Any) -> None:
        """As `Loop.run`."""
        if self.dead:
            return
        machine = self.machine
        total = own + overhead * self._slowed()
        seconds = total * machine.slow
        self.busy_s += seconds
        if not self._running:
            self._running = True
            machine.share(self, True)
        self._jobs.add(seconds, 1.0, self._leave, (self.clock.now, own / total if total else 1.0, done, arg))

    def touch(self) -> None:
        """Its speed may have changed."""
        self._jobs.touch()

    def _rate(self, load: float) -> float:
        return (self.machine.cores.speed(self) if self.machine.crowded else 1.0) / load

    def _leave(self, job: tuple[float, float, Done, Any]) -> None:
        if self.dead:
            return
        if self._running and not self._jobs.load:
            self._running = False
            self.machine.share(self, False)
        self.begun_s, self.share, done, arg = job
        done(arg)

    def kill(self) -> None:
        """As `Loop.kill`."""
        if self._running:
            self._running = False
            self.machine.share(self, False)
        super().kill()


class TurnLoop(Loop):
    """An event loop that reads all connections that have something, then works on what it read, turn after turn.

    Who is read first is a matter of the kernel: epoll keeps a list of connections that were ready, in which one that was read keeps
    its place, though it has nothing any more, until the next look finds it so (level-triggered, fs/eventpoll.c, v6.18: `ep_send_events`
    adds it again at the end, `ep_poll_callback` adds only what is not in the list). So a request that comes just after a look, on a
    connection that had nothing at that look, waits for all others: it is read last in the next turn, though it came first.
    Clients take the connection that was free last, as the load generator does.
    """

    __slots__ = ("_connections", "_free", "_listed", "_serving", "_turn")

    def __init__(self, machine: Machine, weight: float, contention: float) -> None:
        super().__init__(machine, weight, contention)
        self._free: list[int] = []
        self._connections = self._serving = 0
        self._listed: dict[int, tuple[float, float, Done, Any] | None] = {}  # by connection, with what has come on it
        self._turn: deque[int] = deque()  # connections of the rest of the turn, whose work is in the queue

    def run(self, own: float, overhead: float, done: Done, arg: Any) -> None:
        """As `Loop.run`."""
        if self.dead:
            return
        if self._free:
            connection = self._free.pop()
        else:
            connection = self._connections = self._connections + 1
        if self._running:
            self._listed[connection] = (own, overhead, done, arg)
        else:
            self._listed = {connection: None}
            self._serving = connection
            self._begin(own, overhead, done, arg)

    def _finish(self, event: Any) -> None:
        if self.dead:
            return
        self._free.append(self._serving)
        if not self._turn:
            self._look()
        if self._turn:
            self._serving = self._turn.popleft()
        super()._finish(event)

    def _look(self) -> None:
        """The next turn: every connection that has something, in the list's order; they make up the list from now on."""
        ready = [(connection, work) for connection, work in self._listed.items() if work is not None]
        self._listed = dict.fromkeys([connection for connection, _ in ready])
        for connection, work in ready:
            self._turn.append(connection)
            self._queue.append(work)


LOOPS: dict[str, type[Loop]] = {"fifo": Loop, "sharing": SharedLoop, "turns": TurnLoop}
