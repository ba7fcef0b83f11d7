"""SimPy's processes on a world's clock, for stories that are told in order: a fault begins and ends, a node fails and comes back.

`Processes` is a SimPy environment whose time and queue are those of a `Clock`, through what SimPy documents for that (`schedule` and
`now` of `BaseEnvironment`, as its own real-time environment does); the module needs no private name. A process costs several objects
and calls an event, which is why tasks, transfers and the driver are bare callbacks instead (docs/decisions).
"""

from __future__ import annotations

from typing import Any

from simpy.core import Environment
from simpy.events import NORMAL, Event

from windtunnel.sim.clock import Clock, Timer


class Processes(Environment):  # type: ignore[misc]
    """An environment for `Environment.process`, `timeout`, resources and stores, on ``clock``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__()

    @property
    def now(self) -> float:
        """The clock's time."""
        return self._clock.now

    def schedule(self, event: Event, priority: Any = NORMAL, delay: float = 0) -> None:
        """What SimPy calls when an event is triggered; the first step of a process and its interruption are urgent."""
        timer = Timer(self._clock, self._happen, event)
        if priority == NORMAL or delay > 0:
            timer.arm(delay)
        else:
            self._clock.arm_first(timer)

    def _happen(self, timer: Timer) -> None:
        event: Event = timer.arg
        callbacks, event.callbacks = event.callbacks, None
        for callback in callbacks or ():
            callback(event)
        if not event.ok and not event.defused:
            raise event.value
