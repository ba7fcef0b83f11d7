"""A simulated world whose driver looks at what its workers say in rounds, as the scheduling loop of Ray Data's executor does.

A round begins when every running task has something to say, or ``round_s`` after the driver was done with the last one: Ray Data
waits for all of its tasks at once (`ray.wait` of all of them, for 0.1 s at most; ``process_completed_tasks`` in
streaming_executor_state.py, Ray 2.10 to 2.60). In a round the driver first reads all that was said, then sends tasks. What is said
while nothing runs is read at once. Tasks that take a tenth of a second or some tenths therefore wait for the driver, and so does
whoever waits for their slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.model import Block, BlockReady, Event, ExecutionModel, Launch, TaskDone, TaskFailed
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.world.world import SimWorld


class RoundsWorld(SimWorld):
    """`SimWorld` with another driver. ``_open``: tasks whose end it has not read; ``_told``: those of them with news."""

    def run(self, model: ExecutionModel) -> Sequence[Block]:
        """As `SimWorld` does."""
        self._open: set[int] = set()
        self._told: set[int] = set()
        self._round = 0  # serial number of the round that is due; timers of others are void
        self._due_s = math.inf
        return super().run(model)

    def _launch(self, launch: Launch) -> None:
        self._open.add(launch.task)
        super()._launch(launch)

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message waits for the next round."""
        self._inbox.append((service_s, event))
        if isinstance(event, (TaskDone, TaskFailed)):
            self._told.add(event.task)
        elif isinstance(event, BlockReady):
            self._told.add(event.block.task)
        self._await()

    def _await(self) -> None:
        """Arm a timer for the next round, unless it is due no later than that."""
        now, free = self.env.now, self._driver_free_s
        if len(self._told) >= len(self._open):
            due = max(now, free)
        else:  # it has begun to wait when it was free, and again whenever it had waited in vain
            due = free + self._cost.round_s * max(1, math.ceil((now - free) / self._cost.round_s))
        if due < self._due_s:
            self._due_s = due
            self._round += 1
            Timer(self.env, self._look_round, serial=self._round).arm(due - now)

    def _look_round(self, timer: Timer) -> None:
        """All that was said is read; then the model decides, and its tasks are sent one by one."""
        if timer.serial != self._round:
            return
        now, said = self.env.now, list(self._inbox)
        self._inbox.clear()
        self._told.clear()
        self._due_s = math.inf
        self._driver_idle_s += max(now - self._driver_free_s, 0.0)
        self._driver_free_s = max(now, self._driver_free_s) + sum(service for service, _ in said)
        for _, event in said:
            if isinstance(event, (TaskDone, TaskFailed)):
                self._open.discard(event.task)
            if self._result is None and self._failure is None:
                self._obey(self._model.on_event(event, self))
