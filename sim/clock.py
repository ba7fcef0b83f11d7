"""Virtual time: what is due when. The loop of the simulated worlds, and the reusable event that nearly everything in them is made of.

Of events at one time the first that was armed fires first, whatever it belongs to: there is no order by address or hash, and no priority
but that of `Clock.arm_first`, which SimPy's processes need (`windtunnel.sim.processes` runs them on the same clock). The module knows no
node, task or request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any


class Timer:
    """An event with one callback, ``fire(timer)``: it may be armed again once it has fired, and is never allocated anew.

    ``arg`` and ``serial`` are for whoever made it: what the event is about, and whether it is still meant.
    """

    __slots__ = ("arg", "clock", "fire", "serial")

    def __init__(self, clock: Clock, callback: Callable[[Any], None], arg: Any = None, serial: int = 0) -> None:
        self.clock = clock
        self.fire = callback
        self.arg = arg
        self.serial = serial

    def arm(self, delay: float) -> None:
        """Fire after ``delay`` seconds, or at once (after what is due now already) where that is 0 or less; only while not armed."""
        self.clock.arm(self, delay)


class Clock:
    """Virtual seconds since the start (``now``), and the timers that are armed. ``stopped``: whether `run` shall end.

    Times are kept in a heap of plain numbers and their timers beside it, by time: numbers compare several times as fast as the tuples
    with serial numbers that `simpy.Environment` keeps, and timers of one time need no numbers to stay in order.
    """

    __slots__ = ("_due", "_first", "_times", "now", "stopped")

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped = False
        self._first: deque[Timer] = deque()
        self._times: list[float] = []
        self._due: dict[float, Any] = {}  # a `Timer`, or a deque of several

    def arm(self, timer: Timer, delay: float) -> None:
        """Fire ``timer`` after ``delay`` seconds; see `Timer.arm`."""
        time = self.now + delay if delay > 0.0 else self.now
        due = self._due
        there = due.get(time)
        if there is None:
            due[time] = timer
            heappush(self._times, time)
        elif type(there) is deque:
            there.append(timer)
        else:
            due[time] = deque((there, timer))

    def arm_first(self, timer: Timer) -> None:
        """Fire ``timer`` before all that is due now and was not armed so."""
        self._first.append(timer)

    @property
    def idle(self) -> bool:
        """Whether nothing is due any more."""
        return not self._times

    def settle(self) -> None:
        """Fire what goes first."""
        while self._first:
            timer = self._first.popleft()
            timer.fire(timer)

    def run(self) -> None:
        """Fire one timer after the other until somebody sets ``stopped`` or nothing is due."""
        times, due, pop, first = self._times, self._due, heappop, self._first
        while not self.stopped:
            if first:
                self.settle()
                continue
            if not times:
                return
            self.now = now = pop(times)
            timer = due.pop(now)
            if type(timer) is deque:
                several = timer
                timer = several.popleft()
                if several:
                    due[now] = several
                    heappush(times, now)
            timer.fire(timer)

    def pending(self) -> Iterator[tuple[float, Any]]:
        """When each armed timer is due, in the order in which they would fire."""
        for time in sorted(self._due):
            there = self._due[time]
            if type(there) is deque:
                yield from ((time, timer) for timer in there)
            else:
                yield time, there

    def jump(self, now: float, pending: list[tuple[float, Any]]) -> None:
        """It is ``now``, and nothing but ``pending`` is armed, in the order in which `pending` tells it."""
        self.now = now
        self._due.clear()
        for time, timer in pending:
            there = self._due.get(time)
            if there is None:
                self._due[time] = timer
            elif type(there) is deque:
                there.append(timer)
            else:
                self._due[time] = deque((there, timer))
        self._times[:] = self._due
        heapify(self._times)
