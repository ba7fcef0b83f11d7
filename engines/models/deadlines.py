"""When requests are given up: all have the same limit, so the oldest is always the next, and one timer serves all.

The module owns which are late. It knows no clock: a world asks it to look when the time it names has come.
"""

from __future__ import annotations

from collections import deque

from windtunnel.engines.models.calls import Request

_ROUNDING_S = 1e-9  # of sums of times


class Deadlines:
    """Requests that wait, oldest first. Those that were answered are forgotten long before their time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: deque[Request] = deque()
        self._armed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def watch(self, request: Request, now: float) -> bool:
        """It came now; sets its deadline. True: nothing is armed, `look` must be called after ``seconds``."""
        waiting = self._waiting
        while waiting and waiting[0].over:
            waiting.popleft()
        request.deadline_s = now + self.seconds
        waiting.append(request)
        armed, self._armed = self._armed, True
        return not armed

    def look(self, now: float) -> tuple[list[Request], float]:
        """Those that are late, and seconds until it must look again; below 0: not before somebody else comes."""
        waiting, late = self._waiting, []
        while waiting and (waiting[0].over or waiting[0].deadline_s <= now + _ROUNDING_S):
            request = waiting.popleft()
            if not request.over:
                late.append(request)
        self._armed = bool(waiting)
        return late, waiting[0].deadline_s - now if waiting else -1.0
