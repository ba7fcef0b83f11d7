"""A resource shared equally by whoever uses it: processors, disk heads. Owns the arithmetic of sharing, knows no task.

All users progress at one common rate that depends on the load (egalitarian processor sharing), so a *virtual clock* that
runs at that rate gives every user a fixed finishing time in it: adding or removing a user costs O(log users), never a
recomputation of all. One pending SimPy event at most is valid; older ones are recognised by their serial number.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from windtunnel.sim.clock import Clock, Timer

Rate = Callable[[float], float]
Done = Callable[[Any], None]


class Shared:
    """Users of one resource; each of them progresses at ``rate(load)`` units a second, ``load`` = sum of all weights."""

    __slots__ = ("_armed", "_at", "_heap", "_log", "_rate", "_rate_of", "_row", "_serial", "_token", "_virtual", "clock", "load")

    def __init__(self, clock: Clock, rate: Rate) -> None:
        self.clock = clock
        self._log: list[float] | None = None
        self._row = 0
        self.load = 0.0
        self._rate_of = rate
        self._rate = 0.0
        self._virtual = 0.0  # the virtual clock
        self._at = 0.0  # when it was last moved
        self._heap: list[tuple[float, int, float, Done, Any]] = []
        self._serial = 0
        self._token = 0
        self._armed = -1.0

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, log: list[float], row: int) -> None:
        """From now on, append what is used to a `Meter`'s log."""
        self._log, self._row = log, row

    def add(self, work: float, weight: float, done: Done, arg: Any) -> None:
        """Begin ``work`` units; ``done(arg)`` is called when they are finished."""
        self._move()
        self._serial += 1
        heappush(self._heap, (self._virtual + work, self._serial, weight, done, arg))
        self.load += weight
        self._arm()

    def leave(self, arg: Any) -> float | None:
        """Whoever gave ``arg`` is gone: the units that were left of its work, None when it has none here."""
        self._move()
        for place, (finish, _, weight, _, other) in enumerate(self._heap):
            if other is arg:
                del self._heap[place]
                heapify(self._heap)
                self.load -= weight
                self._armed, self._token = -1.0, self._token + 1
                self._arm()
                return max(finish - self._virtual, 0.0)
        return None

    def touch(self) -> None:
        """The rate has changed for a reason that lies outside."""
        self._move()
        self._arm()

    def _move(self) -> None:
        now = self.clock.now
        if self._heap:
            progress = (now - self._at) * self._rate
            self._virtual += progress
            if progress and self._log is not None:
                self._log += (self._row, self._at, now, progress * self.load)
        else:
            self._virtual = self.load = 0.0
        self._at = now

    def _arm(self) -> None:
        if not self._heap:
            self._armed = -1.0
            return
        rate, finish = self._rate_of(self.load), self._heap[0][0]
        if rate == self._rate and finish == self._armed:
            return
        self._rate, self._armed = rate, finish
        self._token += 1
        if rate > 0.0:
            Timer(self.clock, self._fire, serial=self._token).arm((finish - self._virtual) / rate)

    def _fire(self, timer: Timer) -> None:
        if timer.serial != self._token:
            return
        self._move()
        self._armed = -1.0
        self._virtual = max(self._virtual, self._heap[0][0])  # rounding must not leave the first one unfinished
        reached = self._virtual * (1 + 1e-12)
        finished = []
        while self._heap and self._heap[0][0] <= reached:
            _, _, weight, done, arg = heappop(self._heap)
            self.load -= weight
            finished.append((done, arg))
        self._arm()
        for done, arg in finished:
            done(arg)


class CoRun:
    """Processors whose users slow each other down, each by its own share of the co-run law: ``1 + felt × (law - 1)``.

    Users then have rates of their own, so that all are moved on whenever one comes or goes: O(users), which are few on a node.
    """

    __slots__ = ("_at", "_cpus", "_log", "_points", "_row", "_serial", "_token", "_users", "clock", "load")

    def __init__(self, clock: Clock, cpus: float, points: tuple[tuple[float, float], ...]) -> None:
        self.clock = clock
        self.load = 0.0
        self._cpus, self._points = cpus, points
        self._log: list[float] | None = None
        self._row = 0
        self._at = 0.0
        self._serial = self._token = 0
        self._users: dict[int, list[Any]] = {}  # seconds left, weight, felt, done, arg

    def __len__(self) -> int:
        return len(self._users)

    def watch(self, log: list[float], row: int) -> None:
        """From now on, append the CPU time that is used to a `Meter`'s log; a CPU that waits for memory is busy."""
        self._log, self._row = log, row

    def add(self, work: float, weight: float, felt: float, done: Done, arg: Any) -> None:
        """Begin ``work`` seconds; ``done(arg)`` is called when they are finished."""
        self._move()
        self._serial += 1
        self._users[self._serial] = [work, weight, felt, done, arg]
        self.load += weight
        self._arm()

    def leave(self, arg: Any) -> float | None:
        """Whoever gave ``arg`` is gone: the seconds that were left of its work, None when it has none here."""
        self._move()
        for number, user in self._users.items():
            if user[4] is arg:
                del self._users[number]
                self.load = sum(u[1] for u in self._users.values())
                self._arm()
                return max(float(user[0]), 0.0)
        return None

    def _rate(self, felt: float) -> float:
        load = self.load
        law = slowdown_at(self._points, min(load, self._cpus))
        return min(1.0, self._cpus / load if load > 0 else 1.0) / (1.0 + felt * (law - 1.0))

    def _move(self) -> None:
        passed = self.clock.now - self._at
        if passed and self._users and self._log is not None:
            self._log += (self._row, self._at, self.clock.now, passed * min(self.load, self._cpus))
        self._at = self.clock.now
        for user in self._users.values():
            user[0] -= passed * self._rate(user[2])

    def _arm(self) -> None:
        self._token += 1
        if self._users:
            wait = min(max(user[0], 0.0) / self._rate(user[2]) for user in self._users.values())
            Timer(self.clock, self._fire, serial=self._token).arm(wait)

    def _fire(self, timer: Timer) -> None:
        if timer.serial != self._token:
            return
        self._move()
        least = min(user[0] for user in self._users.values())
        reached = max(least, 1e-12)  # rounding must not leave the first one unfinished
        finished = [number for number, user in self._users.items() if user[0] <= reached]
        users = [self._users.pop(number) for number in finished]
        self.load = sum(user[1] for user in self._users.values())
        self._arm()
        for _, _, _, done, arg in users:
            done(arg)


def cpu_rate(cpus: float) -> Rate:
    """Speed of one process among ``load`` busy ones: full up to ``cpus``, shared above."""
    return lambda load: min(1.0, cpus / load) if load > 0 else 1.0


def slowdown_at(points: tuple[tuple[float, float], ...], load: float) -> float:
    """The duration multiplier of the co-run law at ``load`` busy processes: linear between its points, constant outside."""
    if not points:
        return 1.0
    if load <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if load <= x1:
            return y0 + (y1 - y0) * (load - x0) / (x1 - x0)
    return points[-1][1]


def is_flat(points: tuple[tuple[float, float], ...]) -> bool:
    """Whether processes on separate CPUs do not disturb each other."""
    return all(y == 1.0 for _, y in points)
