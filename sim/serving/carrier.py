"""The simulated world's hands: brings calls to replicas over hops and links, makes the calls of compositions, finds replicas a machine.

It carries out what `windtunnel.engines.models.deployment` says and decides nothing; how a request ends is its world's (``respond``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from windtunnel.engines.models.calls import Call, Callee, Hands, Replica, Request, Walk
from windtunnel.engines.models.deployment import Deployment
from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.serving.journal import Journal
from windtunnel.sim.serving.loops import Loop, Machine
from windtunnel.sim.serving.replicas import Process
from windtunnel.sim.serving.settings import Settings
from windtunnel.sim.serving.site import Site
from windtunnel.sim.serving.tokens import TokenProcess
from windtunnel.sim.serving.visits import Asked, Visit
from windtunnel.sim.serving.work import Work

End = Callable[[Asked, str], None]


class Carrier(Hands):
    """Of one world. ``answered(request, outcome)`` is called when a request's first call has ended, ``respond`` when its time is over."""

    def __init__(
        self, clock: Clock, settings: Settings, site: Site, journal: Journal, size: int, answered: End, respond: End
    ) -> None:
        self.clock, self._settings, self._site, self._journal = clock, settings, site, journal
        self._size, self._answered, self._respond = size, answered, respond
        self._hop_s, self._arrives = settings.costs.hop_s, self._arrived
        self._calls_cost = settings.costs.call_s > 0
        self._work: dict[Callee, Work] = {}
        self._deployments: list[Deployment] = []

    def employ(self, deployment: Deployment, work: Work) -> None:
        """Carry out what this deployment says."""
        self._work[deployment] = work
        self._deployments.append(deployment)
        self._journal.names[deployment] = deployment.spec.name

    # -- calls ----------------------------------------------------------------------------------------------------------

    def send(self, call: Call, now: float) -> None:
        """Over its hops, and the network where its replica is on another machine."""
        visit, process = cast("Visit", call), cast("Process", call.replica)
        delay = visit.hops * self._hop_s
        if visit.machine is not None and visit.machine is not process.machine:
            delay += self._site.way(visit.machine, process.machine, self._size)
        if delay > 0.0:
            visit.hop_s, visit.sent_s = delay, now
            visit.way += 1
            Timer(self.clock, self._arrives, visit, visit.way).arm(delay)
        else:
            process.arrive(visit, now)

    def _arrived(self, timer: Timer) -> None:
        visit: Visit = timer.arg
        if visit.way == timer.serial and visit.replica is not None:  # not one that was sent elsewhere meanwhile
            cast("Process", visit.replica).arrive(visit, self.clock.now)

    def withdraw(self, call: Call, now: float) -> None:
        """At once."""
        cast("Process", call.replica).drop(cast("Visit", call), now)

    def pass_on(self, callee: Callee, walk: Walk, now: float) -> None:
        """Calling another deployment costs the caller's process CPU time, or the proxy's where that makes all calls."""
        caller = cast("Visit", walk.call)
        process = cast("Process", caller.replica)
        visit = Visit(caller.asked, callee, walk, now, process, process.machine)
        if self._calls_cost:
            cost = self._work[caller.callee].call_seconds()
            proxy = caller.asked.proxy if self._settings.central else None
            payer = proxy or process.loop
            if not payer.dead:
                payer.run(0.0, cost, self._passed, visit)
                return
        callee.submit(visit, now)

    def _passed(self, visit: Visit) -> None:
        visit.queued_s = self.clock.now
        visit.callee.submit(visit, self.clock.now)

    def done(self, request: Request, outcome: str, now: float) -> None:
        """To the proxy, or to the client."""
        self._answered(cast("Asked", request), outcome)

    def late(self, request: Request, now: float) -> None:
        """The client hears of it at once."""
        self._respond(cast("Asked", request), "timed_out")

    # -- replicas -------------------------------------------------------------------------------------------------------

    def replica(self, callee: Callee, number: int) -> Replica:
        """A process without a machine."""
        deployment = cast("Deployment", callee)
        kind = TokenProcess if deployment.spec.tokens else Process
        return kind(deployment, self._work[callee], self._journal, number)

    def start(self, replica: Replica, warm: bool) -> bool:
        """On the machine where there is room; warm ones need no start but that of their node."""
        process = cast("Process", replica)
        spec = process.deployment.spec
        machine = self._site.place(spec.resources)
        if machine is None:
            return False
        process.begin(machine)
        delay = machine.spec.startup_s if warm else spec.startup_s
        if delay > 0:
            Timer(self.clock, self._up, process).arm(delay)
        else:
            process.deployment.up(process, self.clock.now)
        return True

    def _up(self, timer: Timer) -> None:
        process: Process = timer.arg
        if not process.loop.dead:
            process.deployment.up(process, self.clock.now)

    def stop(self, replica: Replica) -> None:
        """It ends, and gives its room back; those that wait for some try again."""
        process = cast("Process", replica)
        process.loop.kill()
        self._journal.retire(process.loop.busy_s, process.work.weight, process.work.spec.resources.gpus)
        self._site.leave(process.machine, process.work.spec.resources)
        self.settle()

    def lose(self, process: Process) -> None:
        """It dies with what it has."""
        process.loop.kill()
        self._journal.retire(process.loop.busy_s, process.work.weight, process.work.spec.resources.gpus)
        self._site.leave(process.machine, process.work.spec.resources)
        process.deployment.died(process, self.clock.now)
        self.settle()

    def settle(self) -> None:
        """There may be room: deployments that have too few replicas start some."""
        for deployment in self._deployments:
            if deployment.short > 0:
                deployment.reconcile(self.clock.now)

    def changed(self, callee: Callee, now: float) -> None:
        """For the record."""
        deployment = cast("Deployment", callee)
        self._journal.replicas(deployment.spec.name, now, len(deployment.ready))

    # -- time -----------------------------------------------------------------------------------------------------------

    def later(self, seconds: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """On the virtual clock."""
        Timer(self.clock, self._wake, (wake, arg)).arm(seconds)

    def _wake(self, timer: Timer) -> None:
        wake, arg = timer.arg
        wake(self.clock.now, arg)

    def ask_s(self, source: Any, replica: Replica) -> float:
        """A hop, and the network."""
        machine: Machine | None = source.machine if isinstance(source, (Loop, Process)) else None
        return self._hop_s + self._site.way(machine, cast("Process", replica).machine, 0)
