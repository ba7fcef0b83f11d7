"""A replica: a process that takes calls, groups them into batches, executes them and sends the calls they make.

The module owns batching and what an execution costs. Which replica takes a call, and how many there are, is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.engines.models.streams import SERVICE, Factors
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.loops import LOOPS, Loop, Machine
from windtunnel.sim.serving.requests import Call, Walk

if TYPE_CHECKING:
    from windtunnel.sim.serving.deployments import Deployment


class Replica:
    """``calls`` are those it has taken and not answered, oldest first; ``draining``: it takes no more and ends with the last.

    A batch is closed when it is full, or ``wait_s`` after its first call; while an execution is under way it stays open.
    """

    __slots__ = (
        "_batch",
        "_due",
        "_executing",
        "_gathered_s",
        "_number",
        "_rested_s",
        "_single",
        "calls",
        "deployment",
        "draining",
        "factor",
        "inside",
        "loop",
        "machine",
        "number",
        "place",
    )

    def __init__(self, deployment: Deployment, machine: Machine, number: int) -> None:
        self.deployment, self.machine, self.number = deployment, machine, number
        settings, cost = deployment.settings, deployment.spec.cost
        # The same stream as that of the process with this number in the world of real processes.
        self.factor = Factors(settings.law, cost.cv, SERVICE, settings.seed, deployment.index, number + settings.first).draw
        self.inside = [
            (
                d.cost.per_call_s + d.cost.per_item_s,
                Factors(settings.law, d.cost.cv, SERVICE, settings.seed, i, number + settings.first).draw,
            )
            for i, d in deployment.inside
        ]
        self.loop: Loop = LOOPS[settings.discipline](machine, deployment.weight, settings.costs.contention)
        self.calls: dict[Call, None] = {}
        self.place = -1  # among those of its deployment that take calls
        self.draining = False
        self._single = deployment.spec.batch.max_size == 1
        self._batch: list[Call] = []
        self._number = 0  # of the batch that is being filled
        self._due = False  # it has waited long enough
        self._executing = False
        self._rested_s = 0.0  # end of the last execution: who waits since waits for a batch to fill
        self._gathered_s = math.inf

    def take(self, call: Call, delay: float) -> None:
        """A call that was routed here arrives after ``delay``."""
        call.replica = self
        self.calls[call] = None
        self.loop.held += 1
        deployment, place = self.deployment, self.place
        length = deployment.lengths[place] + 1
        deployment.lengths[place] = length
        deployment.full += length == deployment.most
        if delay > 0.0:
            call.hop_s = delay
            call.set_out(delay, self._arrive)
        else:
            self._arrive(call)

    def release(self, call: Call) -> None:
        """A call has ended here."""
        del self.calls[call]
        self.loop.held -= 1
        deployment, place = self.deployment, self.place
        if place >= 0:
            length = deployment.lengths[place]
            deployment.lengths[place] = length - 1
            deployment.full -= length == deployment.most

    def _arrive(self, call: Call) -> None:
        """It is here."""
        if self.loop.dead:
            return
        if self._single:
            own, overhead = self.deployment.seconds(1, self)
            self.loop.run(own, overhead, self._executed, (call,))
            return
        batch = self.deployment.spec.batch
        self._batch.append(call)
        if len(self._batch) == 1:
            Timer(call.env, self._waited, serial=self._number).arm(batch.wait_s)
        elif len(self._batch) >= batch.max_size:
            self._close()

    def _waited(self, timer: Timer) -> None:
        if timer.serial == self._number and self._batch:
            self._due = True
            self._close()

    def _close(self) -> None:
        """Execute what has gathered, if it may go and nothing is executing."""
        most = self.deployment.spec.batch.max_size
        if self._executing or not (self._due or len(self._batch) >= most):
            return
        calls, rest = self._batch[:most], self._batch[most:]
        self._batch = rest
        self._number += 1
        self._due = False
        self._execute(calls)
        if rest:
            Timer(rest[0].env, self._waited, serial=self._number).arm(self.deployment.spec.batch.wait_s)

    def _execute(self, calls: list[Call]) -> None:
        self._executing = True
        self._gathered_s = self._rested_s
        own, overhead = self.deployment.seconds(len(calls), self)
        self.loop.run(own, overhead, self._executed, calls)

    def _executed(self, calls: Sequence[Call]) -> None:
        deployment = self.deployment
        gathered_s = self._gathered_s
        self._executing = False
        self._rested_s = self.loop.env._now
        if self._batch:
            self._close()
        for call in calls:
            if call.over:
                continue
            if call.request.traced:
                deployment.journal.executed(call, self, gathered_s, len(calls))
            self.ended(call)

    def ended(self, call: Call) -> None:
        """Its own work is done; then comes what it calls."""
        plan = self.deployment.plan
        if plan is None:
            self.deployment.finish(call)
        else:
            Walk(call, plan).start()

    def send(self, deployment: Deployment, walk: Walk) -> None:
        """Call another deployment for a call that runs here; sending costs this process CPU."""
        cost = self.deployment.call_seconds()
        if cost:
            caller = walk.call.request.proxy if self.deployment.settings.central else None
            (caller or self.loop).run(0.0, cost, self._sent, (deployment, walk))
        else:
            self._sent((deployment, walk))

    def _sent(self, sent: tuple[Deployment, Walk]) -> None:
        deployment, walk = sent
        if not walk.call.over:
            deployment.submit(Call(walk.call.env, walk.call.request, deployment, walk), self.machine)
