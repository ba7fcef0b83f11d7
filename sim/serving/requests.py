"""Requests, the calls they are made of, and the walk through a composition: lists in order, nested lists as parallel branches.

A list inside a list of branches is in order again, and so on. The module owns how calls follow each other. It knows no clock,
no queue and no cost; deployments tell it that a call has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappush
from typing import TYPE_CHECKING, Any, Protocol

from simpy.core import Environment
from simpy.events import NORMAL

from windtunnel.sim.hardware.cpu import Timer
from windtunnel.spec.serving import Calls

if TYPE_CHECKING:
    from windtunnel.sim.serving.deployments import Deployment
    from windtunnel.sim.serving.loops import Loop
    from windtunnel.sim.serving.replicas import Replica
    from windtunnel.sim.serving.routers import Router


class Request:
    """What a client waits for. ``over`` once it was answered; its calls may still run then, for nobody.

    Only where tokens are computed: ``tokens`` of its prompt and its answer, ``first_s`` when the first of these was there.
    """

    __slots__ = ("client", "first_s", "intended_s", "number", "over", "proxy", "retries", "tokens", "traced")

    def __init__(self, number: int, intended_s: float, client: Timer | None, retries: int, traced: bool) -> None:
        self.number = number
        self.intended_s = intended_s
        self.client = client
        self.retries = retries
        self.traced = traced
        self.over = False
        self.proxy: Loop | None = None
        self.tokens: tuple[int, int]
        self.first_s: float


class Call(Timer):
    """One visit of a request to a deployment; ``walk`` is the composition that waits for it, None for a request's first call.

    ``over``: it ended, well or badly. It waits from ``queued_s`` on, of which ``hop_s`` after ``sent_s`` are its way to the replica.
    It is its own event, since it is on one way at a time.
    """

    __slots__ = ("deployment", "done", "hop_s", "over", "queued_s", "replica", "request", "router", "sent_s", "walk")

    def __init__(self, env: Environment, request: Request, deployment: Deployment, walk: Walk | None) -> None:
        self.env = env  # what the world's own loop needs of a Timer and no more: there are millions of these
        self.request = request
        self.deployment = deployment
        self.walk = walk
        self.queued_s = env._now
        self.hop_s = 0.0
        self.router: Router | None = None
        self.done: bool  # all its tokens are there; only where tokens are computed
        self.replica: Replica | None = None
        self.over = False

    def set_out(self, delay: float, fire: Callable[[Any], None]) -> None:
        """``fire(call)`` after a delay above 0."""
        self.fire = fire
        env = self.env
        self.sent_s = env._now
        heappush(env._queue, (env._now + delay, NORMAL, next(env._eid), self))


class Step(Protocol):
    """A part of a composition."""

    def enter(self, walk: Walk) -> None:
        """Begin it; it tells ``walk`` when it is done."""
        ...


class Leaf:
    """A call of one deployment."""

    __slots__ = ("deployment",)

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def enter(self, walk: Walk) -> None:
        """The replica that runs the caller sends it."""
        replica = walk.call.replica
        assert replica is not None
        replica.send(self.deployment, walk)


class Plan:
    """Steps in order, or side by side."""

    __slots__ = ("parallel", "steps")

    def __init__(self, parallel: bool, steps: tuple[Step, ...]) -> None:
        self.parallel, self.steps = parallel, steps

    def enter(self, walk: Walk) -> None:
        """As part of another plan."""
        Walk(walk.call, self, walk).start()


class Walk:
    """How far a call has come in its composition; ``up`` is the walk around it."""

    __slots__ = ("call", "left", "plan", "up")

    def __init__(self, call: Call, plan: Plan, up: Walk | None = None) -> None:
        self.call, self.plan, self.up = call, plan, up
        self.left = len(plan.steps)

    def start(self) -> None:
        """Enter the first step, or all of them."""
        for step in self.plan.steps if self.plan.parallel else self.plan.steps[:1]:
            if self.call.over:  # a branch was refused at once
                return
            step.enter(self)

    def done(self) -> None:
        """A step ended well."""
        if self.call.over:
            return
        self.left -= 1
        if not self.left:
            self._end()
        elif not self.plan.parallel:
            self.plan.steps[-self.left].enter(self)

    def _end(self) -> None:
        if self.up is not None:
            self.up.done()
        else:
            self.call.deployment.finish(self.call)


def compose(calls: Calls, leaves: Mapping[str, Leaf], parallel: bool = False) -> Plan | None:
    """The plan of a composition; None for one that calls nobody."""
    steps = tuple(step for item in calls if (step := _step(item, leaves, not parallel)) is not None)
    return Plan(parallel, steps) if steps else None


def _step(item: str | Calls, leaves: Mapping[str, Leaf], parallel: bool) -> Step | None:
    return leaves[item] if isinstance(item, str) else compose(item, leaves, parallel)
