"""A simulated replica: a process on a machine that executes what its calls ask for, batch after batch, and says when it is done.

What is executed together, and when, is `windtunnel.engines.models.batches`; which replica takes a call is
`windtunnel.engines.models.deployment`. The module gives executions a process to run in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.engines.models.batches import Gatherer
from windtunnel.engines.models.calls import Replica
from windtunnel.engines.models.deployment import Deployment
from windtunnel.sim.clock import Timer
from windtunnel.sim.serving.journal import Journal
from windtunnel.sim.serving.loops import LOOPS, Loop, Machine
from windtunnel.sim.serving.visits import Visit
from windtunnel.sim.serving.work import Work


class Process(Replica):
    """``machine`` and ``loop`` are its own from `begin` on."""

    __slots__ = (
        "_armed_s", "_direct", "_done", "_gatherer", "_rested_s", "deployment", "factor", "inside", "journal", "loop", "machine", "work",
    )  # fmt: skip

    def __init__(self, deployment: Deployment, work: Work, journal: Journal, number: int) -> None:
        super().__init__(number)
        self.deployment, self.work, self.journal = deployment, work, journal
        self.factor, self.inside = work.factors(number)
        self.machine: Machine
        self.loop: Loop
        settings, batch = work.settings, deployment.spec.batch
        self._direct = settings.discipline != "fifo" and batch.max_size == 1  # its requests share it in a way of their own
        self._gatherer: Gatherer[Visit] = Gatherer(batch, settings.hearsay)
        self._armed_s = math.inf
        self._done = self._executed
        self._rested_s = 0.0  # end of the last execution: who waits since waits for a batch to fill

    def begin(self, machine: Machine) -> None:
        """It has a place to run."""
        settings = self.work.settings
        self.machine = machine
        self.loop = LOOPS[settings.discipline](machine, self.work.weight, settings.costs.contention)
        self.loop.calls = self.calls

    def arrive(self, call: Visit, now: float) -> None:
        """A call is here."""
        if self.loop.dead or call.replica is not self:
            return
        if self._direct:
            own, overhead = self.work.seconds(1, self.factor, self.inside)
            self.loop.run(own, overhead, self._executed, (call,))
            return
        if call.over:  # withdrawn on its way
            self.deployment.skipped(call, now)
            return
        gatherer = self._gatherer
        if gatherer.executing:
            gatherer.add(call, call.request.deadline_s, now)
        else:
            self._execute(gatherer.begin(call, call.request.deadline_s, now), now)

    def drop(self, call: Visit, now: float) -> None:
        """Nobody waits for it; what has begun, or is on its way, goes on."""
        if self._gatherer.drop(call):
            self.deployment.skipped(call, now)

    def _execute(self, calls: list[Visit], now: float) -> None:
        """What is due; and come back when the next is."""
        gatherer = self._gatherer
        if calls:
            own, overhead = self.work.seconds(len(calls), self.factor, self.inside)
            self.loop.run(own, overhead, self._done, calls)
        elif len(gatherer):
            due_s = gatherer.due_s()
            if due_s < math.inf and due_s != self._armed_s:
                self._armed_s = due_s
                Timer(self.loop.clock, self._look).arm(due_s - now)
        if gatherer.late:
            late, gatherer.late = gatherer.late, []
            for call in late:
                self.deployment.skipped(call, now)

    def _look(self, timer: Timer) -> None:
        if not self.loop.dead and not self._gatherer.executing:
            now: float = self.loop.clock.now
            self._execute(self._gatherer.next(now), now)

    def _executed(self, calls: Sequence[Visit]) -> None:
        now: float = self.loop.clock.now
        deployment, begun_s, gathered_s = self.deployment, self.loop.begun_s, self._rested_s
        self._rested_s = now
        if not self._direct:
            gatherer = self._gatherer
            gatherer.ended(now)
            if len(gatherer):
                self._execute(gatherer.next(now), now)
        for call in calls:
            if call.asked.traced and not call.over:
                self.journal.executed(call, self.number, self.loop, gathered_s, len(calls))
            deployment.worked(call, now, now - begun_s)
