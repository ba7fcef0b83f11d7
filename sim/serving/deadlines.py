"""Time-outs of requests: all have the same limit, so the oldest is always the next, and one timer serves all.

The module owns when a request is given up; what that means is the world's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from simpy.core import Environment

from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.requests import Request

_ROUNDING_S = 1e-9  # of sums of times


class Deadlines:
    """``late(request, "timed_out")`` is called for each that has no answer ``seconds`` after it was sent."""

    def __init__(self, env: Environment, seconds: float, late: Callable[[Request, str], None]) -> None:
        self._env, self._seconds, self._late = env, seconds, late
        self._waiting: deque[tuple[float, Request]] = deque()
        self._timer = Timer(env, self._look)
        self._armed = False

    def watch(self, request: Request) -> None:
        """It was sent now."""
        waiting = self._waiting
        while waiting and waiting[0][1].over:
            waiting.popleft()
        waiting.append((self._env._now + self._seconds, request))
        if not self._armed:
            self._armed = True
            self._timer.arm(self._seconds)

    def _look(self, timer: Timer) -> None:
        waiting, now = self._waiting, self._env._now + _ROUNDING_S
        while waiting and (waiting[0][1].over or waiting[0][0] <= now):
            self._late(waiting.popleft()[1], "timed_out")
        self._armed = bool(waiting)
        if waiting:
            timer.arm(waiting[0][0] - self._env._now)
