"""What a deployment declared by cost does for real: it spins for so much CPU time, or sleeps. Both engines run this same code.

The module owns the emulated handler. It knows no server, queue or process.
"""

from __future__ import annotations

import time

from windtunnel.engines.models.streams import SERVICE, Factors

from windtunnel.serving import CallCost


class Work:
    """The handler of one replica. ``spin`` counts CPU time of the thread, so that a crowded machine slows it down as it should."""

    def __init__(self, cost: CallCost, kind: str, *name: int) -> None:
        self._cost, self._spin = cost, kind == "spin"
        self._factor = Factors("lognormal", cost.cv, SERVICE, *name)

    def seconds(self, items: int) -> float:
        """The next drawn duration of a call with so many requests."""
        return (self._cost.per_call_s + self._cost.per_item_s * items) * self._factor()

    def __call__(self, items: int) -> None:
        """Do it."""
        left = self.seconds(items)
        if not self._spin:
            time.sleep(left)
            return
        end = time.thread_time() + left
        while time.thread_time() < end:
            pass
