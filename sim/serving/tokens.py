"""A replica that computes tokens: iteration after iteration, as the continuous batcher decides; answers stream.

The decisions are `windtunnel.engines.models.tokens`; the module gives them a process to run in and tells the journal of first tokens.
"""

from __future__ import annotations

from windtunnel.engines.models.deployment import Deployment
from windtunnel.engines.models.tokens import Batcher, Step
from windtunnel.sim.serving.journal import Journal
from windtunnel.sim.serving.replicas import Process
from windtunnel.sim.serving.visits import Visit
from windtunnel.sim.serving.work import Work


class TokenProcess(Process):
    """One iteration at a time; a request's answer is complete with its last token. What was withdrawn ends between two iterations."""

    __slots__ = ("_begun_s", "_stepping", "_withdrawn", "batcher")

    def __init__(self, deployment: Deployment, work: Work, journal: Journal, number: int) -> None:
        super().__init__(deployment, work, journal, number)
        assert deployment.spec.tokens is not None
        self.batcher: Batcher[Visit] = Batcher(deployment.spec.tokens)
        self._stepping = False
        self._begun_s: dict[Visit, float] = {}
        self._withdrawn: list[Visit] = []

    def arrive(self, call: Visit, now: float) -> None:
        """A call is here."""
        if self.loop.dead or call.replica is not self:
            return
        if call.over:
            self.deployment.skipped(call, now)
            return
        self._begun_s[call] = -1.0  # not yet
        self.batcher.add(call, *call.asked.tokens)
        if not self._stepping:
            self._step(now)

    def drop(self, call: Visit, now: float) -> None:
        """Nobody waits for it."""
        if call in self._begun_s:
            self._withdrawn.append(call)
            if not self._stepping:
                self._step(now)

    def _step(self, now: float) -> None:
        gone = [call for call in self._withdrawn if self._begun_s.pop(call, None) is not None]
        self._withdrawn.clear()
        for call in gone:
            self.batcher.drop(call)
        step = self.batcher.plan()
        self._stepping = step is not None
        if step is not None:
            for sequence, _ in step.prefill:
                if self._begun_s[sequence.key] < 0:
                    self._begun_s[sequence.key] = now
            self.loop.run(self.batcher.seconds(step) * self.factor(), 0.0, self._stepped, step)
        for call in gone:
            self.deployment.skipped(call, now)

    def _stepped(self, step: Step[Visit]) -> None:
        first, finished = self.batcher.done(step)
        now: float = self.loop.clock.now
        for call in first:
            call.asked.first_s = now
            call.begun = True
        for call in finished:
            call.asked.last_s = now
        begun = [self._begun_s.pop(call) for call in finished]
        self._step(now)
        for call, begun_s in zip(finished, begun, strict=True):
            if call.asked.traced and not call.over:
                self.journal.spent(call, self.number, begun_s, now)
            self.deployment.worked(call, now, now - begun_s)
