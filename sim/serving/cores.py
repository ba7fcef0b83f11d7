"""A node's CPUs, shared by processes of which more may be runnable than there are CPUs.

Every CPU has a queue, as in Linux (v6.18, ``kernel/sched/fair.c``, in outline). A process that wakes takes a CPU without one, its
last one first; where there is none it joins a queue, that of its last CPU or of who woke it (`select_task_rq_fair`; here one is drawn),
with the virtual time of an average member (`place_entity`). At the end of a slice (``RUN_TO_PARITY``) whoever has the least is picked, so
that one who wakes for a moment comes before one who runs for long. A CPU without a process takes a waiting one from the longest queue
(`sched_balance_newidle`). Nobody's nice value is known, so all weigh the same. How far off this is: `tests.bench.crowded_cpus`.

The module owns who runs, and when work is done; it knows no request.
"""

from __future__ import annotations

import math
import random
from typing import Any, Protocol

from windtunnel.engines.models.streams import CHOICE
from windtunnel.sim.clock import Clock, Timer

#: ``sysctl_sched_base_slice`` (v6.18: 0.7 ms), scaled as by default with 1 + log2 of the CPUs, of 8 at most
BASE_SLICE_S = 0.0007
_NOTHING = -1.0


class Process(Protocol):
    """Who runs here."""

    def ended(self) -> None:
        """Its work is done."""

    def touch(self) -> None:
        """It got a CPU, or lost it."""


class _Runnable:
    """A process that was seen here: its CPU, work that is left, virtual time, and how long it has run since it was picked."""

    __slots__ = ("busy", "cpu", "left", "process", "ran", "virtual")

    def __init__(self, process: Process, cpu: _Cpu) -> None:
        self.process, self.cpu = process, cpu
        self.busy = False
        self.left, self.virtual, self.ran = _NOTHING, 0.0, 0.0


class _Cpu:
    """A queue, and who runs since ``at`` was last moved on. ``token``: of the timer that counts; ``ends``: work is done then."""

    __slots__ = ("at", "current", "ends", "token", "waiting")

    def __init__(self) -> None:
        self.at, self.token, self.ends = 0.0, 0, False
        self.current: _Runnable | None = None
        self.waiting: list[_Runnable] = []


class Cores:
    """The CPUs of one node; a fraction of a CPU slows all of them."""

    __slots__ = ("_cpus", "_draw", "_seen", "_slice_s", "_speed", "clock")

    def __init__(self, clock: Clock, cpus: float) -> None:
        self.clock = clock
        count = max(1, int(cpus))
        self._speed = min(1.0, cpus / count)
        self._slice_s = BASE_SLICE_S * (1 + int(math.log2(min(count, 8))))
        self._cpus = [_Cpu() for _ in range(count)]
        self._seen: dict[Any, _Runnable] = {}
        self._draw = random.Random(CHOICE)

    def run(self, process: Process, seconds: float) -> None:
        """It has this much to do; `Process.ended` is called when it is done."""
        one = self._awake(process)
        one.left = seconds
        self._arm(one.cpu)

    def join(self, process: Process) -> None:
        """It is runnable; what it does is its own affair, at the speed that `speed` tells."""
        self._arm(self._awake(process).cpu)

    def rest(self, process: Process) -> None:
        """It has nothing to do, for now or for ever."""
        one = self._seen.get(process)
        if one is None or not one.busy:
            return
        cpu = one.cpu
        self._move(cpu)
        one.busy, one.left = False, _NOTHING
        if cpu.current is one:
            cpu.current = None
            if not cpu.waiting:
                self._take(cpu)
            if cpu.waiting:
                self._switch(cpu)
        else:
            cpu.waiting.remove(one)
        self._arm(cpu)

    def forget(self, process: Process) -> None:
        """It ended."""
        self.rest(process)
        self._seen.pop(process, None)

    def speed(self, process: Process) -> float:
        """What it has of a CPU: all while it runs, nothing while it waits."""
        one = self._seen.get(process)
        return self._speed if one is None or not one.busy or one.cpu.current is one else 0.0

    def _awake(self, process: Process) -> _Runnable:
        """It is runnable from now on, if it was not."""
        one = self._seen.get(process)
        if one is None:
            one = self._seen[process] = _Runnable(process, self._cpus[len(self._seen) % len(self._cpus)])
        if one.busy:
            return one
        one.busy = True
        cpu = one.cpu
        if cpu.current is not None:
            cpu = one.cpu = next((c for c in self._cpus if c.current is None), None) or self._draw.choice(self._cpus)
        current = cpu.current
        if current is None:
            cpu.current, cpu.at = one, self.clock.now
            one.virtual = one.ran = 0.0
            return one
        self._move(cpu)
        current.ran %= self._slice_s  # slices go on while nobody waits
        one.virtual = (current.virtual + sum([o.virtual for o in cpu.waiting])) / (1 + len(cpu.waiting))
        cpu.waiting.append(one)
        return one

    def _take(self, cpu: _Cpu) -> None:
        """A CPU without a process takes one that waits elsewhere."""
        fullest = max(self._cpus, key=lambda c: len(c.waiting))
        if fullest.waiting:
            self._move(fullest)
            one = min(fullest.waiting, key=lambda o: o.virtual)
            fullest.waiting.remove(one)
            self._arm(fullest)
            one.cpu = cpu
            cpu.waiting.append(one)

    def _pick(self, cpu: _Cpu) -> None:
        """A slice is over: the one with the least virtual time is next, and may be the same."""
        current = cpu.current
        assert current is not None
        current.ran = 0.0
        if min([o.virtual for o in cpu.waiting], default=math.inf) < current.virtual:
            self._switch(cpu)

    def _switch(self, cpu: _Cpu) -> None:
        """Who has the least virtual time of those that wait runs now, and who ran waits."""
        one = min(cpu.waiting, key=lambda o: o.virtual)
        cpu.waiting.remove(one)
        before, cpu.current = cpu.current, one
        cpu.at, one.ran = self.clock.now, 0.0
        if before is not None:
            cpu.waiting.append(before)
            before.process.touch()
        one.process.touch()

    def _move(self, cpu: _Cpu) -> None:
        now, one = self.clock.now, cpu.current
        if one is not None:
            ran = (now - cpu.at) * self._speed
            one.ran += ran
            one.virtual += ran
            if one.left > 0.0:
                one.left = max(0.0, one.left - ran)
        cpu.at = now

    def _arm(self, cpu: _Cpu) -> None:
        """Come back when work is done, or a slice that others wait for."""
        cpu.token += 1
        one = cpu.current
        if one is None:
            return
        slice_s = max(0.0, self._slice_s - one.ran) if cpu.waiting else math.inf
        cpu.ends = 0.0 <= one.left <= slice_s
        soonest = one.left if cpu.ends else slice_s
        if soonest < math.inf:
            Timer(self.clock, self._fire, cpu, cpu.token).arm(soonest / self._speed)

    def _fire(self, timer: Timer) -> None:
        cpu = timer.arg
        if timer.serial != cpu.token:
            return
        self._move(cpu)
        one = cpu.current
        if cpu.ends:  # whatever rounding leaves
            one.left = _NOTHING
            one.process.ended()  # which rests, or has more to do
            return
        self._pick(cpu)
        self._arm(cpu)
