"""A replica that computes tokens: iteration after iteration, as the continuous batcher decides; answers stream.

The decisions are `windtunnel.engines.models.tokens`; the module gives them a process to run in and tells the journal of first tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from windtunnel.engines.models.tokens import Batcher, Step
from windtunnel.sim.serving.loops import Machine
from windtunnel.sim.serving.replicas import Replica
from windtunnel.sim.serving.requests import Call

if TYPE_CHECKING:
    from windtunnel.sim.serving.deployments import Deployment


class TokenReplica(Replica):
    """One iteration at a time; a request's answer is complete with its last token."""

    __slots__ = ("_begun_s", "_stepping", "batcher")

    def __init__(self, deployment: Deployment, machine: Machine, number: int) -> None:
        super().__init__(deployment, machine, number)
        assert deployment.spec.tokens is not None
        self.batcher: Batcher[Call] = Batcher(deployment.spec.tokens)
        self._stepping = False
        self._begun_s: dict[Call, float] = {}

    def release(self, call: Call) -> None:
        """A call has ended here, perhaps before its last token."""
        super().release(call)
        if self._begun_s.pop(call, None) is not None and not call.done:
            self.batcher.drop(call)

    def _arrive(self, call: Call) -> None:
        if self.loop.dead or call.over:
            return
        self._begun_s[call] = -1.0  # not yet
        call.done = False
        self.batcher.add(call, *call.request.tokens)
        if not self._stepping:
            self._step()

    def _step(self) -> None:
        step = self.batcher.plan()
        self._stepping = step is not None
        if step is not None:
            for sequence, _ in step.prefill:
                if self._begun_s[sequence.key] < 0:
                    self._begun_s[sequence.key] = self.loop.env._now
            self.loop.run(self.batcher.seconds(step) * self.factor(), 0.0, self._stepped, step)

    def _stepped(self, step: Step[Call]) -> None:
        first, finished = self.batcher.done(step)
        now = self.loop.env._now
        for call in first:
            call.request.first_s = now
        journal = self.deployment.journal
        for call in finished:
            call.done = True
            journal.told(call.request, now)
            if call.request.traced:
                journal.spent(call, self, self._begun_s[call])
        self._step()
        for call in finished:
            if not call.over:
                self.ended(call)
