"""Ray Serve's router, pure: what it believes of its replicas' queues, which one it picks, and how long it waits to try again.

Rules of ``serve/_private/request_router/request_router.py`` and ``replica_wrapper.py`` (Ray 2.5x): a router keeps the queue length of
each replica that it has heard of, adds one for each request that it sends and takes one away for each that ended. A belief older than
10 s is none. Of two replicas drawn at random the shorter known queue wins; unknown and full ones are asked, within a deadline of 0.1 s
that doubles to 1 s, and waited for only where neither has room. When none has, the router tries again: at once, then after 25 ms,
doubling to 0.5 s. A replica that turns out to be full refuses, and tells its queue length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from windtunnel.engines.models.calls import Call, Hands, Replica

R = TypeVar("R", bound=Hashable)  # a replica, however a world names it

CACHE_S = 10.0  # RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S
DEADLINE_S, MOST_DEADLINE_S = 0.1, 1.0  # RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S and its maximum
BACKOFF_S, MOST_BACKOFF_S = 0.025, 0.5  # RAY_SERVE_ROUTER_RETRY_INITIAL_BACKOFF_S and its maximum, doubling
MOST_TASKS = 50  # that route at once; and two for each replica


class Crew:
    """What a router needs of a deployment: its ``ready`` replicas (its own list), how many calls each takes at ``most``, and how to
    ``assign`` one."""

    def __init__(
        self, ready: list[Replica], most: int, draw: Callable[[], float], assign: Callable[[Replica, Call, float], None]
    ) -> None:
        self.ready, self.most, self._draw, self.assign = ready, most, draw, assign

    def two(self) -> list[Replica]:
        """Two of them drawn at random, or the only one."""
        ready, draw = self.ready, self._draw
        first = int(draw() * len(ready))
        if len(ready) == 1:
            return [ready[first]]
        second = int(draw() * (len(ready) - 1))
        return [ready[first], ready[second + (second >= first)]]


class Beliefs(Generic[R]):
    """Queue lengths as one router knows them."""

    def __init__(self) -> None:
        self._known: dict[R, tuple[int, float]] = {}

    def get(self, replica: R, now: float) -> int | None:
        """None when nothing was heard for too long."""
        length, since = self._known.get(replica, (0, -CACHE_S))
        return length if now - since < CACHE_S else None

    def heard(self, replica: R, length: int, now: float) -> None:
        """The replica told its queue length."""
        self._known[replica] = (length, now)

    def sent(self, replica: R, now: float) -> None:
        """A request is on its way to it."""
        self.heard(replica, (self.get(replica, now) or 0) + 1, now)

    def ended(self, replica: R, now: float) -> None:
        """One of them is over."""
        length = self.get(replica, now)
        if length is not None:
            self.heard(replica, max(0, length - 1), now)

    def forget(self, replica: R) -> None:
        """It is gone."""
        self._known.pop(replica, None)

    def choose(self, candidates: Sequence[R], most: int, now: float) -> tuple[R | None, list[R]]:
        """The candidate with the shortest known queue that has room, if any; and those that must be asked."""
        chosen, shortest_known, unknown = None, most, []
        for candidate in candidates:
            length = self.get(candidate, now)
            if length is None or length >= most:
                unknown.append(candidate)
            elif length < shortest_known:
                chosen, shortest_known = candidate, length
        return chosen, unknown


def emptiest(free: Sequence[tuple[float, float]], cpus: float, gpus: float) -> int | None:
    """Where a new replica goes: the node with the most free CPUs that has room (CPUs, devices), the first of equals; None: nowhere.

    Ray's default spreads likewise (hybrid policy below half of a node's use). A node that is away has less than nothing free.
    """
    room = [(-c, i) for i, (c, g) in enumerate(free) if c >= 0 and c + 1e-9 >= cpus and g + 1e-9 >= gpus]
    return min(room)[1] if room else None


def shortest(told: Sequence[tuple[R, int | None]], most: int) -> R | None:
    """Of those that were asked; None stands for a deadline that passed."""
    room = [(n, place) for place, (_, n) in enumerate(told) if n is not None and n < most]
    return told[min(room)[1]][0] if room else None


def deadline_s(attempt: int) -> float:
    """For an answer about a queue."""
    return min(DEADLINE_S * float(2 ** min(attempt, 10)), MOST_DEADLINE_S)


def backoff_s(attempt: int) -> float:
    """Before this attempt (0 = the first); the second comes at once."""
    return 0.0 if attempt < 2 else min(BACKOFF_S * float(2 ** min(attempt - 2, 10)), MOST_BACKOFF_S)


class Router:
    """Of one process that calls. ``waiting``: oldest first; ``tasks`` look for replicas.

    As in Ray Serve some routing tasks look for replicas at once, and whichever finds one takes the oldest request that waits. A
    handle holds at most ``max_queued_requests`` that have no replica (``RouterMetrics.num_queued_requests``).
    """

    def __init__(self, crew: Crew, hands: Hands, source: Any, limit: int | None) -> None:
        self._crew, self._hands, self._source, self._limit = crew, hands, source, limit
        self.beliefs: Beliefs[Replica] = Beliefs()
        self.waiting: deque[Call] = deque()
        self.tasks = self.questions = self.refusals = 0

    def submit(self, call: Call, now: float) -> bool:
        """A call wants a replica; False: too many wait. Where nobody waits, a task that finds a known one begins and ends at once."""
        if self._limit is not None and len(self.waiting) >= self._limit:
            self._drop_given_up()
            if len(self.waiting) >= self._limit:
                return False
        if self.waiting or self.tasks or not self._crew.ready:
            self.waiting.append(call)
            self.look(now)
            return True
        chosen, unknown = self.beliefs.choose(self._crew.two(), self._crew.most, now)
        if chosen is not None and not unknown and len(chosen.calls) < self._crew.most:
            self.beliefs.sent(chosen, now)
            self._crew.assign(chosen, call, now)
            return True
        self.waiting.append(call)
        self.tasks += 1
        self._decide(chosen, unknown, 0, now)
        return True

    def again(self, calls: Sequence[Call], now: float) -> None:
        """Calls whose replica died, oldest first: before all others."""
        self.waiting.extendleft(reversed(calls))
        self.look(now)

    def look(self, now: float) -> None:
        """As many tasks as there are calls, within bounds."""
        while self.tasks < self._wanted():
            self.tasks += 1
            self._attempt(now, 0)

    def _wanted(self) -> int:
        return min(len(self.waiting), MOST_TASKS, 2 * len(self._crew.ready))

    def _attempt(self, now: float, attempt: int) -> None:
        """One task looks at two replicas."""
        self._drop_given_up()
        if self.tasks > self._wanted():
            self.tasks -= 1
            return
        chosen, unknown = self.beliefs.choose(self._crew.two(), self._crew.most, now)
        self._decide(chosen, unknown, attempt, now)

    def _decide(self, chosen: Replica | None, unknown: list[Replica], attempt: int, now: float) -> None:
        """Ask, give, or both."""
        if unknown:
            self.questions += len(unknown)
            self._hands.later(self._patience(unknown, attempt), self._told, (unknown, chosen is None, attempt))
        if chosen is not None:
            self._give(chosen, now)

    def _patience(self, asked: list[Replica], attempt: int) -> float:
        """Until the last has answered or the deadline passes."""
        return min(max([self._way(r) for r in asked]), deadline_s(attempt))

    def _way(self, replica: Replica) -> float:
        return self._hands.ask_s(self._source, replica)

    def _told(self, now: float, asked_for: tuple[list[Replica], bool, int]) -> None:
        asked, waited_for, attempt = asked_for
        told = [(r, len(r.calls) if r.place >= 0 and self._way(r) <= deadline_s(attempt) else None) for r in asked]
        for replica, length in told:
            if length is not None:
                self.beliefs.heard(replica, length, now)
        if not waited_for:
            return
        chosen = shortest(told, self._crew.most)
        if chosen is not None:
            self._drop_given_up()
            self._give(chosen, now)
        else:
            self._hands.later(backoff_s(attempt + 1), self._attempt, attempt + 1)  # nobody had room: again, later

    def _give(self, replica: Replica, now: float) -> None:
        """The oldest call goes to this replica, which may still refuse it; the task looks for the next one."""
        if self.waiting:
            call = self.waiting.popleft()
            self.beliefs.sent(replica, now)
            if len(replica.calls) < self._crew.most and replica.place >= 0:
                self._crew.assign(replica, call, now)
            else:
                self.refusals += 1
                self._hands.later(self._way(replica), self._refused, (replica, call))
        self._attempt(now, 0)

    def _refused(self, now: float, refusal: tuple[Replica, Call]) -> None:
        replica, call = refusal
        if replica.place >= 0:
            self.beliefs.heard(replica, len(replica.calls), now)
        else:
            self.beliefs.forget(replica)
        self.waiting.appendleft(call)
        self.look(now)

    def _drop_given_up(self) -> None:
        while self.waiting and self.waiting[0].over:
            self.waiting.popleft()

    def opened(self, replica: Replica, now: float) -> None:
        """A new replica: it is asked, so that its queue is known."""
        self.questions += 1
        self._hands.later(self._patience([replica], 0), self._told, ([replica], False, 0))
        self.look(now)
