"""Routers that know their replicas' queues by hearsay: one for each process that calls a deployment, with its own waiting line.

The decisions are `windtunnel.engines.models.routing`; the module owns how long questions, refusals and pauses take. As in Ray Serve
some routing tasks look for replicas at once, and whichever finds one takes the oldest request that waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from windtunnel.engines.models.routing import MOST_TASKS, Beliefs, backoff_s, deadline_s, shortest
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.loops import Machine
from windtunnel.sim.serving.replicas import Replica
from windtunnel.sim.serving.requests import Call

if TYPE_CHECKING:
    from windtunnel.sim.serving.deployments import Deployment


class Router:
    """Of one caller. ``waiting``: (call, delay of its way), oldest first. ``tasks`` look for replicas."""

    def __init__(self, deployment: Deployment, machine: Machine | None, ask_s: float) -> None:
        self._deployment, self._machine, self._ask_s = deployment, machine, ask_s
        self._env = deployment.env
        self.beliefs: Beliefs[Replica] = Beliefs()
        self.waiting: deque[tuple[Call, float]] = deque()
        self.tasks = self.questions = self.refusals = 0

    def submit(self, call: Call, delay: float) -> None:
        """A call wants a replica. Where nobody waits, the task that would find a known one begins and ends at once."""
        call.router = self
        if self.waiting or self.tasks or not self._deployment.ready:
            self.waiting.append((call, delay))
            self.look()
            return
        chosen, unknown = self.beliefs.choose(self._two(), self._deployment.most, self._env._now)
        if chosen is not None and not unknown and len(chosen.calls) < self._deployment.most:
            self.beliefs.sent(chosen, self._env._now)
            self._deployment.assign(chosen, call, self._machine, delay)
            return
        self.waiting.append((call, delay))
        self.tasks += 1
        self._decide(chosen, unknown, 0)

    def look(self) -> None:
        """As many tasks as there are calls, within bounds."""
        while self.tasks < self._wanted():
            self.tasks += 1
            self._attempt(0)

    def _wanted(self) -> int:
        return min(len(self.waiting), MOST_TASKS, 2 * len(self._deployment.ready))

    def _attempt(self, attempt: int) -> None:
        """One task looks at two replicas."""
        self._drop_cancelled()
        if self.tasks > self._wanted():
            self.tasks -= 1
            return
        self._decide(*self.beliefs.choose(self._two(), self._deployment.most, self._env.now), attempt)

    def _decide(self, chosen: Replica | None, unknown: list[Replica], attempt: int) -> None:
        """Ask, give, or both."""
        if unknown:
            self.questions += len(unknown)
            Timer(self._env, self._told, arg=(unknown, chosen is None, attempt)).arm(self._patience(unknown, attempt))
        if chosen is not None:
            self._give(chosen)

    def _two(self) -> list[Replica]:
        ready, draw = self._deployment.ready, self._deployment.draw
        first = int(draw() * len(ready))
        if len(ready) == 1:
            return [ready[first]]
        second = int(draw() * (len(ready) - 1))
        return [ready[first], ready[second + (second >= first)]]

    def _patience(self, asked: list[Replica], attempt: int) -> float:
        """Until the last has answered or the deadline passes."""
        return min(max(self._way(r) for r in asked), deadline_s(attempt))

    def _way(self, replica: Replica) -> float:
        return self._ask_s + self._deployment.way(self._machine, replica.machine, 0)

    def _told(self, timer: Timer) -> None:
        asked, waited_for, attempt = timer.arg
        told = [(r, len(r.calls) if r.place >= 0 and self._way(r) <= deadline_s(attempt) else None) for r in asked]
        for replica, length in told:
            if length is not None:
                self.beliefs.heard(replica, length, self._env.now)
        if not waited_for:
            return
        chosen = shortest(told, self._deployment.most)
        if chosen is not None:
            self._drop_cancelled()
            self._give(chosen)
        else:
            self._pause(attempt + 1)

    def _pause(self, attempt: int) -> None:
        """Nobody had room: again, later."""
        wait = backoff_s(attempt)
        Timer(self._env, lambda timer: self._attempt(timer.arg), arg=attempt).arm(wait)

    def _give(self, replica: Replica) -> None:
        """The oldest call goes to this replica, which may still refuse it; the task looks for the next one."""
        if self.waiting:
            call, delay = self.waiting.popleft()
            self.beliefs.sent(replica, self._env.now)
            if len(replica.calls) < self._deployment.most and replica.place >= 0:
                self._deployment.assign(replica, call, self._machine, delay)
            else:
                self.refusals += 1
                Timer(self._env, self._refused, arg=(replica, call, delay)).arm(self._way(replica))
        self._attempt(0)

    def _refused(self, timer: Timer) -> None:
        replica, call, delay = timer.arg
        if replica.place >= 0:
            self.beliefs.heard(replica, len(replica.calls), self._env.now)
        else:
            self.beliefs.forget(replica)
        self.waiting.appendleft((call, delay))
        self.look()

    def _drop_cancelled(self) -> None:
        while self.waiting and self._deployment.cancelled(self.waiting[0][0]):
            call, _ = self.waiting.popleft()
            self._deployment.fail(call, "cancelled")

    def opened(self, replica: Replica) -> None:
        """A new replica: it is asked, so that its queue is known."""
        self.questions += 1
        Timer(self._env, self._told, arg=([replica], False, 0)).arm(self._patience([replica], 0))
        self.look()
