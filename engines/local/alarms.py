"""What a model asked to be woken for, on the wall clock."""

from __future__ import annotations

import time
from heapq import heappop, heappush

from windtunnel.model import Wake, Woken


class Alarms:
    """Times that are due, the earliest first."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []

    def __bool__(self) -> bool:
        return bool(self._due)

    def arm(self, action: Wake) -> None:
        """Remember when to send the `Woken`."""
        heappush(self._due, (time.perf_counter() + action.after_s, action.key))

    def wait_s(self, at_most: float | None) -> float | None:
        """Seconds to wait for anything else: up to the next alarm, ``at_most`` at least (None: for ever)."""
        if not self._due:
            return at_most
        left = max(0.0, self._due[0][0] - time.perf_counter())
        return left if at_most is None else min(left, at_most)

    def ring(self) -> list[Woken]:
        """Events of all alarms that are due."""
        now, events = time.perf_counter(), []
        while self._due and self._due[0][0] <= now:
            events.append(Woken(heappop(self._due)[1]))
        return events
