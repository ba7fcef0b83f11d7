"""A node's CPUs, shared by processes of which more may be runnable than there are CPUs.

Every CPU has a queue, and the processes in one share it equally. As in Linux (v6.6, ``kernel/sched/fair.c``), a process that wakes
goes where the load is least (`select_task_rq_fair`) and a CPU without one takes from the others (`newidle_balance`); the load of a
process is how much of the time it was runnable, with a half-life of 32 ms (``pelt.c``). So a process that is nearly always busy keeps
a CPU almost to itself, and those that run for a moment share the rest: equal shares for all would slow the busiest, and with it the
whole, too much.

The module owns who gets how much, and when work is done; it knows no request.
"""

from __future__ import annotations

import math
from heapq import heapify, heapreplace
from typing import Any, Protocol

from simpy.core import Environment
from windtunnel.sim.hardware.cpu import Timer

HALF_LIFE_S = 0.032
_DECAY = math.log(2.0) / HALF_LIFE_S
_NOTHING = -1.0


class Process(Protocol):
    """Who runs here. ``weight``: CPUs that it may keep busy."""

    weight: float

    def ended(self) -> None:
        """Its work is done."""

    def touch(self) -> None:
        """It gets another share of a CPU."""


class _Runnable:
    """A process that was seen here: its load until ``at``, its work that is left, and the share of a CPU it has."""

    __slots__ = ("at", "busy", "left", "load", "process", "speed")

    def __init__(self, process: Process, now: float) -> None:
        self.process, self.at = process, now
        self.busy = False
        self.load, self.left, self.speed = 0.0, _NOTHING, 1.0

    def settle(self, now: float) -> None:
        """Bring the load up to now."""
        kept = math.exp(-_DECAY * (now - self.at))
        self.load = self.load * kept + (1.0 - kept if self.busy else 0.0)
        self.at = now


class Cores:
    """The CPUs of one node."""

    __slots__ = ("_at", "_busy", "_cpus", "_seen", "_token", "env")

    def __init__(self, env: Environment, cpus: float) -> None:
        self.env, self._cpus = env, cpus
        self._seen: dict[Any, _Runnable] = {}
        self._busy: dict[Any, _Runnable] = {}
        self._at = 0.0
        self._token = 0

    def run(self, process: Process, seconds: float) -> None:
        """It has this much to do; `Process.ended` is called when it is done."""
        self._move()
        woke = self._wake(process)
        self._busy[process].left = seconds
        if woke:
            self._place()
        self._arm()

    def join(self, process: Process) -> None:
        """It is runnable; what it does is its own affair, at the speed that `speed` tells."""
        self._move()
        if self._wake(process):
            self._place()
            self._arm()

    def rest(self, process: Process) -> None:
        """It has nothing to do, for now or for ever."""
        if process in self._busy:
            self._move()
            gone = self._busy.pop(process)
            gone.settle(self.env.now)
            gone.busy, gone.left = False, _NOTHING
            self._place()
            self._arm()

    def forget(self, process: Process) -> None:
        """It ended."""
        self.rest(process)
        self._seen.pop(process, None)

    def speed(self, process: Process) -> float:
        """The share of a CPU that a runnable process has."""
        return self._busy[process].speed if process in self._busy else 1.0

    def _wake(self, process: Process) -> bool:
        if process in self._busy:
            return False
        one = self._seen.get(process)
        if one is None:
            one = self._seen[process] = _Runnable(process, self.env.now)
        one.settle(self.env.now)
        one.busy = True
        self._busy[process] = one
        return True

    def _place(self) -> None:
        """The heaviest first, each to the CPU with the least load; a CPU without a process comes before all others."""
        before = [(one, one.speed) for one in self._busy.values()]
        if sum(one.process.weight for one, _ in before) <= self._cpus + 1e-9:
            for one, _ in before:
                one.speed = 1.0
        else:
            self._queue()
        for one, speed in before:
            if one.left == _NOTHING and one.speed != speed:
                one.process.touch()

    def _queue(self) -> None:
        now, count = self.env.now, max(1, int(self._cpus))
        for one in self._busy.values():
            one.settle(now)
        queues: list[tuple[bool, float, int]] = [(False, 0.0, i) for i in range(count)]
        heapify(queues)
        members: list[list[_Runnable]] = [[] for _ in range(count)]
        for one in sorted(self._busy.values(), key=lambda one: -one.load):
            _, load, i = queues[0]
            heapreplace(queues, (True, load + one.load, i))
            members[i].append(one)
        for queue in members:
            wanted = sum(one.process.weight for one in queue)
            for one in queue:
                one.speed = min(1.0, self._cpus / count / wanted) if wanted else 1.0

    def _move(self) -> None:
        now = self.env.now
        if passed := now - self._at:
            for one in self._busy.values():
                if one.left > 0.0:
                    one.left = max(0.0, one.left - passed * one.speed)
            self._at = now

    def _arm(self) -> None:
        self._token += 1
        times = [one.left / one.speed for one in self._busy.values() if one.left >= 0.0]
        if times:
            Timer(self.env, self._fire, serial=self._token).arm(min(times))

    def _fire(self, timer: Timer) -> None:
        if timer.serial != self._token:
            return
        self._move()
        least = min(one.left / one.speed for one in self._busy.values() if one.left >= 0.0)
        done = [one for one in self._busy.values() if 0.0 <= one.left <= (least + 1e-12) * one.speed]
        for one in done:
            one.left = _NOTHING
        for one in done:
            one.process.ended()
        self._arm()
