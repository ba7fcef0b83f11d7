"""Ray Serve's router, pure: what it believes of its replicas' queues, which one it picks, and how long it waits to try again.

Rules of ``serve/_private/request_router/request_router.py`` and ``replica_wrapper.py`` (Ray 2.5x): a router keeps the queue length of
each replica that it has heard of, adds one for each request that it sends and takes one away for each that ended. A belief older than
10 s is none. Of two replicas drawn at random the shorter known queue wins; unknown and full ones are asked, within a deadline of 0.1 s
that doubles to 1 s, and waited for only where neither has room. When none has, the router tries again: at once, then after 25 ms,
doubling to 0.5 s. A replica that turns out to be full refuses, and tells its queue length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)  # a replica, however a world names it

CACHE_S = 10.0  # RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S
DEADLINE_S, MOST_DEADLINE_S = 0.1, 1.0  # RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S and its maximum
BACKOFF_S, MOST_BACKOFF_S = 0.025, 0.5  # RAY_SERVE_ROUTER_RETRY_INITIAL_BACKOFF_S and its maximum, doubling
MOST_TASKS = 50  # that route at once; and two for each replica


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
