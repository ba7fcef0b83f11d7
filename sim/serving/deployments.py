"""A deployment: the queue before its replicas, the choice among them, and keeping as many as its target says.

The module owns waiting, routing and the life of replicas. The rules are those of `windtunnel.engines.models.serving`; what an
execution costs is drawn here, one stream a deployment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from simpy.core import Environment

from windtunnel.engines.models.serving import RULES, Pace
from windtunnel.engines.models.streams import CHOICE, OVERHEAD, Factors, Uniforms
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.journal import Journal
from windtunnel.sim.serving.loops import Machine
from windtunnel.sim.serving.replicas import Replica
from windtunnel.sim.serving.requests import Call, Plan, Request
from windtunnel.sim.serving.routers import Router
from windtunnel.sim.serving.settings import Settings
from windtunnel.sim.serving.site import Site
from windtunnel.sim.serving.tokens import TokenReplica
from windtunnel.spec.serving import DeploymentSpec

Answer = Callable[[Request, str], None]


class Deployment:
    """``target`` replicas are wanted; ``replicas`` exist (some of them starting or draining), ``ready`` take calls.

    ``ongoing``: calls that wait (``queue``) or run here. ``area``: its integral over time, up to the last change. ``lengths``:
    calls of each ready replica, ``full`` of them hold as many as they may.
    """

    def __init__(
        self, env: Environment, index: int, spec: DeploymentSpec, size: int, settings: Settings, site: Site, journal: Journal,
        answer: Answer,
    ) -> None:  # fmt: skip
        self.env, self.spec, self.settings, self._site, self.journal = env, spec, settings, site, journal
        self._size, self._answer = size, answer
        self.plan: Plan | None = None
        self.index = index
        self._most_tokens = spec.tokens.kv_tokens if spec.tokens else None
        self._special = settings.hearsay or self._most_tokens is not None
        self.inside: Sequence[
            tuple[int, DeploymentSpec]
        ] = ()  # deployments that run in the same process, as often as they are called
        self.most = spec.max_ongoing
        self.target = spec.replicas.minimum
        self.replicas: list[Replica] = []
        self.routers: dict[Any, Router] = {}
        self.ready: list[Replica] = []
        self.lengths: list[int] = []
        self._all: Sequence[int] = ()
        self.full = 0
        self.ongoing = 0
        self.area = self._changed_s = 0.0
        self._started = 0
        self.queue: deque[tuple[Call, Machine | None, float]] = deque()
        self._pace = Pace() if settings.paced and settings.timeout_s is not None else None
        self._rule = RULES[settings.choice]()
        self.draw = Uniforms(settings.seed, CHOICE, index).draw
        self._overhead = Factors(settings.law, settings.costs.cv, settings.seed, OVERHEAD, index).draw
        resources, costs = spec.resources, settings.costs
        self.weight = 0.0 if resources.gpus else max(1.0, resources.cpus)
        self._replica_s = costs.replica_s + (costs.http_s if index == 0 else 0.0)
        self._call_s, self._hop_s = costs.call_s, costs.hop_s
        self._per_call_s, self._per_item_s = spec.cost.per_call_s, spec.cost.per_item_s

    # -- costs ----------------------------------------------------------------------------------------------------------

    def seconds(self, items: int, replica: Replica) -> tuple[float, float]:
        """Of one execution: the handler's own, and the engine's around it before contention."""
        own = self._per_call_s + self._per_item_s * items
        own = own and own * replica.factor()
        if replica.inside:
            own += sum(cost_s * factor() for cost_s, factor in replica.inside)
        overhead = self._replica_s * items
        return own, overhead and overhead * self._overhead()

    def call_seconds(self) -> float:
        """What sending a call costs the caller's process, before contention."""
        return self._call_s and self._call_s * self._overhead()

    # -- calls ----------------------------------------------------------------------------------------------------------

    def submit(self, call: Call, source: Machine | None, hops: int = 1) -> None:
        """A call comes from ``source``: to a replica with room, else into the queue, else back as refused."""
        now: float = self.env._now
        self.area += self.ongoing * (now - self._changed_s)
        self._changed_s = now
        ahead = self.ongoing
        self.ongoing = ahead + 1
        if self._pace is not None and ahead and not self._in_time(self._pace, call, ahead, now):
            self.fail(call, "rejected")
            return
        if self._special and self._taken(call, source, hops * self._hop_s):
            return
        if not self.queue and (replica := self._choose()) is not None:
            self.assign(replica, call, source, hops * self._hop_s)
            return
        limit = self.settings.queue_limit
        if limit is not None and len(self.queue) >= limit:
            self.fail(call, "rejected")
        else:
            self.queue.append((call, source, hops * self._hop_s))

    def _in_time(self, pace: Pace, call: Call, ahead: int, now: float) -> bool:
        """Whether it is let in: its answer is expected before its deadline."""
        assert self.settings.timeout_s is not None
        return pace.in_time(ahead, len(self.ready), call.request.intended_s + self.settings.timeout_s - now)

    def _taken(self, call: Call, source: Machine | None, delay: float) -> bool:
        """Whether it was refused, since its tokens fit nowhere, or is a router's by now."""
        if self._most_tokens is not None and sum(call.request.tokens) - 1 > self._most_tokens:
            self.fail(call, "rejected")
            return True
        if self.settings.hearsay:
            self._router(call, source).submit(call, delay)
        return self.settings.hearsay

    def _router(self, call: Call, source: Machine | None) -> Router:
        """Of the process that calls: a proxy, a replica, or clients without a proxy."""
        caller = call.request.proxy if call.walk is None else call.walk.call.replica
        if caller not in self.routers:
            self.routers[caller] = Router(self, source, self._hop_s)
        return self.routers[caller]

    def cancelled(self, call: Call) -> bool:
        """Whether nobody waits for it any more."""
        return call.request.over or (call.walk is not None and call.walk.call.over)

    def way(self, source: Machine | None, target: Machine, size: int) -> float:
        """On the network, there and back."""
        return self._site.way(source, target, size)

    @property
    def waiting(self) -> int:
        """Calls without a replica."""
        return len(self.queue) + sum(len(r.waiting) for r in self.routers.values())

    def _choose(self) -> Replica | None:
        ready, full = self.ready, self.full
        if full == len(ready):
            return None
        if len(ready) == 1:
            return ready[0]
        room = self._all if not full else [i for i, n in enumerate(self.lengths) if n < self.most]
        return ready[self._rule(self.lengths, room, self.draw)]

    def assign(self, replica: Replica, call: Call, source: Machine | None, delay: float) -> None:
        """A call goes to a replica with room."""
        if source is not None and source is not replica.machine:
            delay += self._site.way(source, replica.machine, self._size)
        replica.take(call, delay)

    def _dispatch(self) -> None:
        """Calls that wait go to replicas with room, first come first served; those that nobody waits for any more are dropped."""
        queue = self.queue
        while queue:
            call, source, delay = queue[0]
            if self.cancelled(call):
                queue.popleft()
                self.fail(call, "cancelled")
                continue
            replica = self._choose()
            if replica is None:
                return
            queue.popleft()
            self.assign(replica, call, source, delay)

    def finish(self, call: Call) -> None:
        """A call and all that it called are done."""
        self._end(call)
        if call.walk is not None:
            call.walk.done()
        else:
            self._answer(call.request, "ok")

    def fail(self, call: Call, outcome: str) -> None:
        """A call ends badly, and so does whoever waits for it."""
        if call.over:
            return
        self._end(call)
        if call.walk is not None:
            caller = call.walk.call
            caller.deployment.fail(caller, outcome)
        else:
            self._answer(call.request, outcome)

    def _end(self, call: Call) -> None:
        call.over = True
        now: float = self.env._now
        self.area += self.ongoing * (now - self._changed_s)
        self._changed_s = now
        self.ongoing -= 1
        replica = call.replica
        if replica is None:
            return
        replica.release(call)
        if self._pace is not None:
            self._pace.answered(now, self.ongoing >= (len(self.ready) or 1))
        if call.router is not None:
            call.router.beliefs.ended(replica, now)
        if replica.draining and not replica.calls:
            self._remove(replica)
        if self.queue:
            self._dispatch()

    def area_now(self) -> float:
        """The integral of ``ongoing`` until now."""
        now: float = self.env._now
        return self.area + self.ongoing * (now - self._changed_s)

    # -- replicas -------------------------------------------------------------------------------------------------------

    def scale(self, target: int) -> None:
        """So many replicas are wanted from now on."""
        self.target = target
        self.reconcile()

    def reconcile(self, warm: bool = False) -> None:
        """Start or stop replicas until there are as many as wanted; ``warm`` ones need no start. Without room they wait for it."""
        kept = [r for r in self.replicas if not r.draining]
        while len(kept) < self.target and (machine := self._site.place(self.spec.resources)) is not None:
            kept.append(self._start(machine, warm))
        if len(kept) < self.target and self.reconcile not in self._site.waiting:
            self._site.waiting.append(self.reconcile)
        while len(kept) > self.target:
            victim = next((r for r in reversed(kept) if r.place < 0), kept[-1])
            kept.remove(victim)
            self._drain(victim)

    def _start(self, machine: Machine, warm: bool) -> Replica:
        replica = (TokenReplica if self.spec.tokens else Replica)(self, machine, self._started)
        self._started += 1
        self.replicas.append(replica)
        delay = machine.spec.startup_s if warm else self.spec.startup_s
        if delay > 0:
            Timer(self.env, self._begin, arg=replica).arm(delay)
        else:
            self._open(replica)
        return replica

    def _begin(self, timer: Timer) -> None:
        replica: Replica = timer.arg
        if not replica.loop.dead and not replica.draining:
            self._open(replica)

    def _open(self, replica: Replica) -> None:
        replica.place = len(self.ready)
        self.ready.append(replica)
        self.lengths.append(0)
        self._note()
        self._dispatch()
        for router in self.routers.values():
            router.opened(replica)

    def _drain(self, replica: Replica) -> None:
        replica.draining = True
        self._deafen(replica)
        if not replica.calls:
            self._remove(replica)

    def _remove(self, replica: Replica) -> None:
        replica.loop.kill()
        self.replicas.remove(replica)
        self.journal.retire(replica.loop.busy_s, self.weight, self.spec.resources.gpus)
        self._site.leave(replica.machine, self.spec.resources)

    def lose(self, replica: Replica) -> None:
        """A replica dies with all its calls: they are tried again elsewhere, or fail. Another one is started."""
        calls = list(replica.calls)
        self._deafen(replica)
        replica.draining = False  # it ends here, not with its last call
        self._remove(replica)
        for call in calls:
            if call.request.retries > 0 and not call.request.over:
                self._again(call)
            else:
                self.fail(call, "failed")
        self.reconcile()

    def _again(self, call: Call) -> None:
        call.request.retries -= 1
        self._end(call)
        self.journal.retries += 1
        self.submit(Call(self.env, call.request, self, call.walk), None)

    def _deafen(self, replica: Replica) -> None:
        """It takes no more calls."""
        if replica.place >= 0:
            self.full -= self.lengths.pop(replica.place) >= self.most
            self.ready.remove(replica)
            for router in self.routers.values():
                router.beliefs.forget(replica)
            for later in self.ready[replica.place :]:
                later.place -= 1
            replica.place = -1
            self._note()

    def _note(self) -> None:
        self._all = range(len(self.ready))
        self.journal.replicas(self.spec.name, self.env._now, len(self.ready))
