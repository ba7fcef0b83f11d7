"""The words of a service's decisions: requests, the calls they are made of, replicas, and what a world carries out.

A request enters at the first deployment; a deployment calls others after its own work, lists in order, lists inside them as parallel
branches, inside those in order again, and so on. The module owns how calls follow each other and how they are given up together. It
knows no clock, socket or process: `windtunnel.engines.models.deployment` decides, a world (`Hands`) carries out and brings events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from windtunnel.spec.serving import Calls

#: how a request ends: answered; refused; its deadline passed; its handler or its replica failed; its client left
OUTCOMES = ("ok", "rejected", "timed_out", "failed", "gone")


_ENDED = {
    "rejected": "refused", "timed_out": "timed out", "failed": "failed", "gone": "given up by their clients", "wrong": "answered wrongly",
}  # fmt: skip


def nobody_answered(sent: int, outcomes: Mapping[str, float]) -> str:
    """The sentence of a run without one good answer: how many ended which way."""
    ends = [f"{int(n)} {_ENDED[name]}" for name, n in outcomes.items() if n and name in _ENDED]
    return f"none of {sent} requests was answered well: {', '.join(ends) or 'none had ended'}"


class Request:
    """What a client waits for, until ``over``. ``root`` is its call of the first deployment, once there is one.

    ``tokens`` of its prompt and its answer, where tokens are computed. ``refused_by``: the deployment that did not let it in. ``load``:
    what its world gives it to carry.
    """

    __slots__ = ("deadline_s", "load", "over", "refused_by", "root", "tokens")

    def __init__(self) -> None:
        self.deadline_s = math.inf
        self.over = False
        self.root: Call | None = None
        self.tokens = (0, 0)
        self.refused_by: Callee | None = None
        self.load: Any = None


class Callee:
    """Who takes calls: a deployment."""

    def submit(self, call: Call, now: float) -> None:
        """A call comes."""
        raise NotImplementedError

    def finished(self, call: Call, now: float) -> None:
        """All that a call has called is done."""
        raise NotImplementedError

    def fail(self, call: Call, outcome: str, now: float) -> None:
        """What a call has called ended badly."""
        raise NotImplementedError

    def give_up(self, call: Call, now: float) -> None:
        """Nobody waits for a call any more."""
        raise NotImplementedError


class Call:
    """One visit of a request to a deployment; ``walk`` is the composition that waits for it, None for a request's first call.

    ``over``: nobody waits for it any more, well or badly. ``worked``: its own work is done and its callees run. ``replica``: who has it.
    ``begun``: a piece of its answer has left, so it cannot be tried again. ``source``: the process that sent it, for routers that
    know queues by hearsay. ``load``: what its world gives it to carry.
    """

    __slots__ = (
        "begun", "begun_s", "callee", "children", "load", "over", "replica", "request", "retries", "source", "walk", "worked",
    )  # fmt: skip

    def __init__(self, request: Request, callee: Callee, walk: Walk | None, source: Any = None) -> None:
        self.request, self.callee, self.walk, self.source = request, callee, walk, source
        self.replica: Replica | None = None
        self.over = self.worked = self.begun = False
        self.retries = -1  # until a deployment has it
        self.begun_s = -1.0
        self.children: list[Call] | None = None
        self.load: Any = None
        if walk is None:
            request.root = self
        elif walk.call.children is None:
            walk.call.children = [self]
        else:
            walk.call.children.append(self)


class Replica:
    """A process that takes calls: ``calls`` are those it was given and has not ended, oldest first.

    ``place``: among the ready ones of its deployment, -1 for one that starts or leaves. ``leaving``: it takes no more and ends with its
    last call. ``process``: what its world runs for it.
    """

    __slots__ = ("calls", "leaving", "number", "place", "process")

    def __init__(self, number: int) -> None:
        self.number = number
        self.place = -1
        self.leaving = False
        self.process: Any = None
        self.calls: dict[Call, None] = {}


class Hands:
    """What a world carries out. `done` and `late` are the last that an event leads to: the next event may come from inside them."""

    def send(self, call: Call, now: float) -> None:
        """Bring a call to its replica."""
        raise NotImplementedError

    def withdraw(self, call: Call, now: float) -> None:
        """Tell its replica that nobody waits for a call; the replica says `Deployment.skipped` if it had not begun or broke it off."""
        raise NotImplementedError

    def pass_on(self, callee: Callee, walk: Walk, now: float) -> None:
        """Make a call for a composition, and `submit` it."""
        raise NotImplementedError

    def done(self, request: Request, outcome: str, now: float) -> None:
        """A request's first call has ended."""
        raise NotImplementedError

    def late(self, request: Request, now: float) -> None:
        """A request's deadline has passed; its calls have been given up."""
        raise NotImplementedError

    def replica(self, callee: Callee, number: int) -> Replica:
        """Make one that has not started."""
        raise NotImplementedError

    def start(self, replica: Replica, warm: bool) -> bool:
        """Start it and say `Deployment.up` when it is ready (``warm``: it was there before the first request); False: no room for it."""
        raise NotImplementedError

    def stop(self, replica: Replica) -> None:
        """End it: it has nothing to do."""
        raise NotImplementedError

    def changed(self, callee: Callee, now: float) -> None:
        """The number of its ready replicas is another one."""
        raise NotImplementedError

    def later(self, seconds: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """Call ``wake(now, arg)`` after so many seconds."""
        raise NotImplementedError

    def ask_s(self, source: Any, replica: Replica) -> float:
        """Seconds until a replica has told a router how long its queue is; asked for by hearsay routers only."""
        raise NotImplementedError


class Foreign(Hands):
    """The hands of a world whose classes cannot derive from these, which may be compiled: it passes everything on to ``world``."""

    def __init__(self, world: Any) -> None:
        self._world = world

    def send(self, call: Call, now: float) -> None:
        """See `Hands`."""
        self._world.send(call, now)

    def withdraw(self, call: Call, now: float) -> None:
        """See `Hands`."""
        self._world.withdraw(call, now)

    def pass_on(self, callee: Callee, walk: Walk, now: float) -> None:
        """See `Hands`."""
        self._world.pass_on(callee, walk, now)

    def done(self, request: Request, outcome: str, now: float) -> None:
        """See `Hands`."""
        self._world.done(request, outcome, now)

    def late(self, request: Request, now: float) -> None:
        """See `Hands`."""
        self._world.late(request, now)

    def replica(self, callee: Callee, number: int) -> Replica:
        """See `Hands`."""
        made: Replica = self._world.replica(callee, number)
        return made

    def start(self, replica: Replica, warm: bool) -> bool:
        """See `Hands`."""
        return bool(self._world.start(replica, warm))

    def stop(self, replica: Replica) -> None:
        """See `Hands`."""
        self._world.stop(replica)

    def changed(self, callee: Callee, now: float) -> None:
        """See `Hands`."""
        self._world.changed(callee, now)

    def later(self, seconds: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """See `Hands`."""
        self._world.later(seconds, wake, arg)

    def ask_s(self, source: Any, replica: Replica) -> float:
        """See `Hands`."""
        return float(self._world.ask_s(source, replica))


class Step:
    """A part of a composition."""

    def enter(self, walk: Walk, now: float) -> None:
        """Begin it; it tells ``walk`` when it is done."""
        raise NotImplementedError


class Leaf(Step):
    """A call of one deployment."""

    def __init__(self, callee: Callee, hands: Hands) -> None:
        self.callee, self.hands = callee, hands

    def enter(self, walk: Walk, now: float) -> None:
        """A world makes the call."""
        self.hands.pass_on(self.callee, walk, now)


class Plan(Step):
    """Steps in order, or side by side."""

    def __init__(self, parallel: bool, steps: tuple[Step, ...]) -> None:
        self.parallel, self.steps = parallel, steps

    def enter(self, walk: Walk, now: float) -> None:
        """As part of another plan."""
        Walk(walk.call, self, walk).start(now)


class Walk:
    """How far a call has come in its composition; ``up`` is the walk around it."""

    __slots__ = ("call", "left", "plan", "up")

    def __init__(self, call: Call, plan: Plan, up: Walk | None = None) -> None:
        self.call, self.plan, self.up = call, plan, up
        self.left = len(plan.steps)

    def start(self, now: float) -> None:
        """Enter the first step, or all of them."""
        for step in self.plan.steps if self.plan.parallel else self.plan.steps[:1]:
            if self.call.over:  # a branch was refused at once
                return
            step.enter(self, now)

    def done(self, now: float) -> None:
        """A step ended well."""
        if self.call.over:
            return
        self.left -= 1
        if not self.left:
            if self.up is not None:
                self.up.done(now)
            else:
                self.call.callee.finished(self.call, now)
        elif not self.plan.parallel:
            self.plan.steps[-self.left].enter(self, now)


def compose(calls: Calls, leaves: Mapping[str, Leaf], parallel: bool = False) -> Plan | None:
    """The plan of a composition; None for one that calls nobody."""
    steps = tuple(step for item in calls if (step := _step(item, leaves, not parallel)) is not None)
    return Plan(parallel, steps) if steps else None


def _step(item: str | Calls, leaves: Mapping[str, Leaf], parallel: bool) -> Step | None:
    return leaves[item] if isinstance(item, str) else compose(item, leaves, parallel)
