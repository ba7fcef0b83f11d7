"""The steady middle of a wave, in strides of many tasks: every worker runs a task and has one more, the driver keeps up.

A stride ends before the first worker would end its second task in it, so that all its events are known beforehand: they are
sorted and worked out as arrays, with the same operations on the same numbers as one by one. Where the driver is busy when a
message comes, its queue is followed message by message. The module knows times, numbers and sizes; `wave` owns the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from windtunnel.sim.world.wave import Course

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Times = np.ndarray[Any, np.dtype[np.float64]]
SHORT = 24  # a stride of fewer tasks is not worth its arrays


class Steady:
    """``due``: when each worker ends its task. Works on copies of the course's state; `give_back` writes it there."""

    def __init__(
        self, course: Course, due: Mapping[int, list[tuple[float, int, int]]], *, sent: int, free: float, total: int
    ) -> None:
        self._course = course
        self._ends, self._serials = np.empty(len(course.task)), np.empty(len(course.task), dtype=np.int64)
        for entries in due.values():
            for time, serial, who in entries:
                self._ends[who], self._serials[who] = time, serial
        self.sent, self.free, self.total = sent, free, total
        self.number = len(course.done)
        self._seconds, self._out = course.arrays
        self._node = np.array(course.node_of)
        self._task, self._next = np.array(course.task), np.array(course.next_task)
        self._next_ready = np.array(course.next_ready)
        self._ready, self._started = np.array(course.ready_s), np.array(course.started_s)
        self._used, self._peak, self._peak_s = np.array(course.used), np.array(course.peak), np.array(course.peak_s)
        self._serial = int(self._serials.max())

    def run(self, until: float) -> None:
        """Stride on while fewer than ``until`` tasks were sent."""
        while self._stride(until):
            pass

    def _stride(self, until: float) -> bool:
        horizon = float((self._ends + self._seconds[self._next]).min())
        who = np.flatnonzero(self._ends < horizon)
        if len(who) < SHORT or self.sent + len(who) >= until:
            return False
        who = who[np.lexsort((self._serials[who], self._ends[who]))]
        now = self._ends[who]
        ready, free = self._driver(now, horizon)
        if len(ready) < SHORT:
            return False
        self.free = free
        self._advance(who[: len(ready)], now[: len(ready)], ready)
        return True

    # -- the driver --------------------------------------------------------------------------------------------------

    def _driver(self, now: Times, horizon: float) -> tuple[Times, float]:
        """When the next task is ready, for messages at these times; cut off where the driver's queue outlasts the horizon."""
        ready = now + self._course.done_s + self._course.launch_s
        free, at, count = self.free, 0, len(now)
        late = np.flatnonzero(now[1:] < ready[:-1]) + 1
        position = 0
        times: list[float] | None = None
        while at < count:
            if now[at] < free:
                times = times if times is not None else now.tolist()
                queue = self._busy(times, at, free, horizon)
                if queue is None:
                    return ready[:at], free
                ready[at : at + len(queue)] = queue
                at += len(queue)
                free = queue[-1]
                continue
            while position < len(late) and late[position] <= at:
                position += 1
            at = int(late[position]) if position < len(late) else count
            free = float(ready[at - 1])
        return ready, free

    def _busy(self, now: list[float], at: int, free: float, horizon: float) -> list[float] | None:
        """The messages from ``at`` on that wait for the driver, as `SimWorld._handle` serves them; None when that takes too long."""
        course, count = self._course, len(now)
        inbox = 1
        fires = now[at] + (free - now[at])
        coming = at + 1
        ready: list[float] = []
        while inbox:
            if coming < count and now[coming] <= fires:
                inbox += 1
                coming += 1
                continue
            if fires >= horizon:
                return None
            if free > fires:
                fires = fires + (free - fires)
                continue
            inbox -= 1
            free = fires + course.done_s + course.launch_s
            ready.append(free)
            delay = free - fires
            fires = fires + delay if delay > 0.0 else fires
        return ready

    # -- the workers -------------------------------------------------------------------------------------------------

    def _advance(self, who: Numbers, now: Times, ready: Times) -> None:
        """These workers end their tasks at these times and begin the next; those after that are ready then."""
        ended, begun = self._task[who], self._next[who]
        self._samples(who, now, ended, begun)
        self._store(now, ended)
        self._course.done.extend(ended.tolist())
        self._course.by.extend(who.tolist())
        self.number += len(who)
        came = self._next_ready[who]
        start = np.where(came > now, came, now)
        self._ready[who], self._started[who] = came, start
        delay = start - now + self._seconds[begun]
        self._ends[who] = np.where(delay > 0.0, now + delay, now)
        self._serials[who] = np.arange(self._serial + 1, self._serial + 1 + len(who))
        self._serial += len(who)
        self._take(self._node[who], now, self._out[begun])
        self._task[who] = begun
        self._next[who] = np.arange(self.sent, self.sent + len(who))
        self._next_ready[who] = ready
        self.sent += len(who)

    def _take(self, node: Numbers, now: Times, size: Numbers) -> None:
        """Memory: what one task held the next one holds; its output is new. It only grows, so that its last growth is its peak."""
        np.add.at(self._used, node, size)
        grows = size > 0
        node, now = node[grows], now[grows]
        higher = self._used[node] > self._peak[node]
        node, now = node[higher], now[higher]
        self._peak[node], self._peak_s[node] = self._used[node], now  # of equal indices the last counts

    def _store(self, now: Times, ended: Numbers) -> None:
        """Samples of the store."""
        stored, totals = self._course.stored, self.total + np.cumsum(self._out[ended])
        at = int(np.searchsorted(now, stored.next_s))
        while at < len(now):
            stored.note(float(now[at]), int(totals[at]))
            self._course.marks.append((self.number + at + 1, float(now[at])))
            at = max(at + 1, int(np.searchsorted(now, stored.next_s)))
        self.total = int(totals[-1])

    def _samples(self, who: Numbers, now: Times, ended: Numbers, begun: Numbers) -> None:
        """Tasks whose spans are written out."""
        course = self._course
        for at in range(course.every - 1 - self.number % course.every, len(who), course.every):
            worker = int(who[at])
            node = self._node[worker]
            since = int(self._out[begun[:at]][self._node[who[:at]] == node].sum())
            memory = int(self._used[node]) + since - course.held
            course.samples.append(
                (int(ended[at]), worker, float(self._ready[worker]), float(self._started[worker]), float(now[at]), memory)
            )

    def give_back(self) -> list[tuple[float, int]]:
        """Write the state to the course; each worker's end, in the order in which they were begun."""
        course = self._course
        for mine, theirs in (
            (self._task, course.task), (self._next, course.next_task), (self._next_ready, course.next_ready),
            (self._ready, course.ready_s), (self._started, course.started_s), (self._used, course.used),
            (self._peak, course.peak), (self._peak_s, course.peak_s),
        ):  # fmt: skip
            theirs[:] = mine.tolist()
        order = np.argsort(self._serials)
        return list(zip(self._ends[order].tolist(), order.tolist(), strict=True))
