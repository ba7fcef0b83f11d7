"""A deployment's decisions, pure: who is let in, who waits, which replica takes a call, what follows a death, how many there are.

Events are method calls that carry the time (`submit`, `worked`, `raised`, `skipped`, `give_up`, `up`, `died`, `tick`); actions are calls
of `Hands`, which a world carries out. Both worlds run this very class. What was decided, where engines differ:

- *Scale-down*: replicas that start go first, the youngest of them, then who has the fewest calls, the youngest of equals (as Kubernetes
  orders pods: not ready before ready, younger before older). A replica that leaves ends what it has.
- *Death*: its calls are tried again ``retries`` times each (by call, as in Envoy and gRPC), before all that wait and in their order, past
  every limit, since they were let in already; one of which a piece has left fails. Where the host makes the calls of a composition
  (``central``) a call whose own work is done goes on without its replica.
- *Queue limit*: calls that wait for a replica while somebody waits for them. Replicas with room leave nobody waiting.
- *Pace*: told of work that ended; of what died, was skipped or broken off it is told nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from windtunnel.engines.models.calls import Call, Callee, Hands, Plan, Replica, Request, Walk
from windtunnel.engines.models.pace import Pace
from windtunnel.engines.models.routing import Crew, Router
from windtunnel.engines.models.serving import RULES, Scaling, rules_of
from windtunnel.engines.models.streams import CHOICE, Uniforms
from windtunnel.engines.models.tokens import fits
from windtunnel.spec.serving import DeploymentSpec

RESTART_S = 0.2  # before a replica that ended while it started is started again


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an engine's options say about every deployment.

    ``queue_limit``: calls that may wait before one is refused, None = no limit. ``retries``: of a call whose replica died. ``paced``:
    what could not be in time is refused. ``central``: the host makes the calls between deployments, not their replicas. ``hearsay``:
    routers know queue lengths as Ray Serve's do (`windtunnel.engines.models.routing`).
    """

    choice: str = "power_of_two"
    queue_limit: int | None = None
    retries: int = 0
    paced: bool = False
    central: bool = False
    hearsay: bool = False
    lookback_s: float = 30.0
    seed: int = 0


class Deployment(Callee):
    """``target`` replicas are wanted; ``replicas`` exist, of which ``starting`` are not ready and ``ready`` take calls.

    ``ongoing``: calls that wait (``waiting`` of them without a replica) or are held here. ``area``: the integral of it over time, up to
    the last change. ``lengths``: calls of each ready replica, ``full`` of them hold as many as they may.
    """

    def __init__(self, spec: DeploymentSpec, index: int, limits: Limits, hands: Hands, now: float) -> None:
        self.spec, self.index, self.limits, self.hands = spec, index, limits, hands
        self.plan: Plan | None = None
        self.most = spec.max_ongoing
        self.target = spec.replicas.minimum
        self.replicas: list[Replica] = []
        self.starting: list[Replica] = []
        self.ready: list[Replica] = []
        self.lengths: list[int] = []
        self._all: Any = range(0)
        self.full = self.ongoing = self.waiting = self.walking = 0
        self.area, self._changed_s = 0.0, now
        self.counts: Counter[str] = Counter()
        self._started = 0
        self._queue: deque[Call] = deque()
        self._routers: dict[Any, Router] = {}
        self._rule = RULES[limits.choice]()
        self._draw = Uniforms(limits.seed, CHOICE, index).draw
        self._crew = Crew(self.ready, self.most, self._draw, self._assign)
        self._tokens = spec.tokens
        width = spec.tokens.max_batch if spec.tokens else spec.batch.max_size
        memory = spec.tokens.kv_tokens if spec.tokens else None
        self._pace = Pace(width, spec.max_ongoing, spec.tokens is not None, memory) if limits.paced else None
        self._guarded = limits.paced or spec.tokens is not None
        rules = rules_of(spec.replicas, limits.lookback_s)
        self._scaling = None if rules is None else Scaling(rules, now)
        self.closing = False

    # -- calls ----------------------------------------------------------------------------------------------------------

    def submit(self, call: Call, now: float) -> None:
        """A call comes: to a replica with room, else into the queue, else it is refused."""
        walk = call.walk
        if call.over or call.request.over or (walk is not None and walk.call.over):
            call.over = True
            return
        ahead = self.ongoing
        self._count(now, 1)
        call.retries = self.limits.retries
        if self._guarded and not self._admits(call, ahead, now):
            self._refuse(call, now)
        elif self.limits.hearsay:
            self.waiting += 1
            if not self._router(call).submit(call, now):
                self.waiting -= 1
                self._refuse(call, now)
        elif not self.waiting and self.full < len(self.ready):
            self._send(self._choose(), call, now)
        elif self.limits.queue_limit is not None and self.waiting >= self.limits.queue_limit:
            self._refuse(call, now)
        else:
            self.waiting += 1
            self._queue.append(call)

    def _admits(self, call: Call, ahead: int, now: float) -> bool:
        """Whether memory can ever hold what it asks for, and its answer is expected before its deadline."""
        tokens, request, pace = self._tokens, call.request, self._pace
        if tokens is not None and not fits(tokens, *request.tokens):
            return False
        if pace is None:
            return True
        if tokens is not None:
            pace.came(sum(request.tokens))
        return not ahead or pace.in_time(ahead - self.walking, len(self.ready), ahead, request.deadline_s - now)

    def takes_s(self) -> float:
        """What a new call is expected to take at most, for a sentence; 0 where nothing is known."""
        return 0.0 if self._pace is None else self._pace.takes_s(self.ongoing - self.walking, len(self.ready), self.ongoing)

    def _refuse(self, call: Call, now: float) -> None:
        self.counts["rejected"] += 1
        call.over = True
        call.request.refused_by = self
        self._count(now, -1)
        self._tell(call, "rejected", now)

    def _router(self, call: Call) -> Router:
        """Of the process that calls."""
        source = call.source
        if source not in self._routers:
            self._routers[source] = Router(self._crew, self.hands, source, self.limits.queue_limit)
        return self._routers[source]

    def _choose(self) -> Replica:
        """One with room; there is one."""
        ready = self.ready
        if len(ready) == 1:
            return ready[0]
        room = self._all if not self.full else [i for i, n in enumerate(self.lengths) if n < self.most]
        return ready[self._rule(self.lengths, room, self._draw)]

    def _assign(self, replica: Replica, call: Call, now: float) -> None:
        """A router has found a replica for a call that waited."""
        self.waiting -= 1
        self._send(replica, call, now)

    def _send(self, replica: Replica, call: Call, now: float) -> None:
        call.replica = replica
        replica.calls[call] = None
        length = self.lengths[replica.place] + 1
        self.lengths[replica.place] = length
        self.full += length == self.most
        self.hands.send(call, now)

    def _pump(self, now: float) -> None:
        """Calls that wait go to replicas with room, oldest first; those that were given up are forgotten."""
        queue = self._queue
        while queue:
            if queue[0].over:
                queue.popleft()
            elif self.full == len(self.ready):
                return
            else:
                self.waiting -= 1
                self._send(self._choose(), queue.popleft(), now)

    # -- how calls end --------------------------------------------------------------------------------------------------

    def worked(self, call: Call, now: float, seconds: float) -> None:
        """A replica has done a call's own work in so many seconds; then comes what it calls."""
        if self._pace is not None:
            self._pace.worked(seconds)
            call.begun_s = now - seconds
        if call.over:
            self._release(call, now)
        elif self.plan is None:
            self.finished(call, now)
        else:
            call.worked = True
            self.walking += 1
            Walk(call, self.plan).start(now)

    def finished(self, call: Call, now: float) -> None:
        """A call and all that it called are done."""
        call.over = True
        self._release(call, now)
        walk = call.walk
        if walk is None:
            self.hands.done(call.request, "ok", now)
        else:
            walk.done(now)

    def raised(self, call: Call, now: float) -> None:
        """Its handler failed."""
        self._end(call, "failed", now)

    def skipped(self, call: Call, now: float) -> None:
        """Its replica has not done it, or broke it off: nobody waits for it, or its deadline has passed."""
        self._end(call, "timed_out", now)

    def _end(self, call: Call, outcome: str, now: float) -> None:
        over, call.over = call.over, True
        self._release(call, now)
        if not over:
            self._tell(call, outcome, now)

    def fail(self, call: Call, outcome: str, now: float) -> None:
        """What it called ended badly, and so does it; its other branches work for nobody."""
        if not call.over:
            self.give_up(call, now)
            self._tell(call, outcome, now)

    def give_up(self, call: Call, now: float) -> None:
        """Nobody waits for it any more. One that a replica has keeps its place until the replica says so."""
        if call.over:
            return
        call.over = True
        if call.replica is not None and not call.worked:
            self.hands.withdraw(call, now)
        elif call.worked:
            self._abandon(call, now)
            self._release(call, now)
        elif call.retries >= 0:  # it is here
            self.waiting -= 1
            self._count(now, -1)

    def _abandon(self, call: Call, now: float) -> None:
        for child in call.children or ():
            child.callee.give_up(child, now)

    def _tell(self, call: Call, outcome: str, now: float) -> None:
        walk = call.walk
        if walk is None:
            self.hands.done(call.request, outcome, now)
        else:
            walk.call.callee.fail(walk.call, outcome, now)

    def _release(self, call: Call, now: float) -> None:
        """Its place is free."""
        self._count(now, -1)
        if call.worked:
            self.walking -= 1
        if self._pace is not None and call.begun_s >= 0.0:
            self._pace.left(now - call.begun_s)
        replica = call.replica
        assert replica is not None
        calls = replica.calls
        if call not in calls:  # it died, and the call went on without it
            return
        del calls[call]
        if self._routers:
            self._router(call).beliefs.ended(replica, now)
        place = replica.place
        if place >= 0:
            length = self.lengths[place]
            self.lengths[place] = length - 1
            self.full -= length == self.most
            if self.waiting:
                self._pump(now)
        elif replica.leaving and not calls:
            self._remove(replica)

    def _count(self, now: float, by: int) -> None:
        self.area += self.ongoing * (now - self._changed_s)
        self._changed_s = now
        self.ongoing += by

    def area_at(self, now: float) -> float:
        """The integral of ``ongoing`` until now."""
        return self.area + self.ongoing * (now - self._changed_s)

    # -- replicas -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """One round of the control loop: what was ongoing over the look-back decides how many there should be."""
        if self._scaling is None:
            return
        target = self._scaling.look(now, self.area_at(now), len(self.ready), self.target)
        if target != self.target:
            self.target = target
            self.reconcile(now)

    @property
    def scales(self) -> bool:
        """Whether `tick` can change anything."""
        return self._scaling is not None

    def reconcile(self, now: float, warm: bool = False) -> None:
        """Start what is missing, send away what is too many; where there is no room a world says this again when there is some."""
        while not self.closing and len(self.ready) + len(self.starting) < self.target:
            replica = self.hands.replica(self, self._started)
            self._started += 1
            self.replicas.append(replica)
            self.starting.append(replica)
            if not self.hands.start(replica, warm):
                self._started -= 1
                self.replicas.remove(replica)
                self.starting.remove(replica)
                return
        while len(self.ready) + len(self.starting) > self.target:
            some = self.starting or self.ready
            self._send_away(min(reversed(some), key=lambda r: len(r.calls)), now)

    @property
    def short(self) -> int:
        """Replicas that are wanted and have not even begun to start."""
        return self.target - len(self.ready) - len(self.starting)

    def _send_away(self, replica: Replica, now: float) -> None:
        replica.leaving = True
        self._leave(replica, now)
        if not replica.calls:
            self._remove(replica)

    def _remove(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.hands.stop(replica)

    def up(self, replica: Replica, now: float) -> None:
        """It is ready."""
        if replica not in self.starting:  # it was sent away meanwhile
            return
        self.starting.remove(replica)
        replica.place = len(self.ready)
        self.ready.append(replica)
        self.lengths.append(0)
        self._changed(now)
        self._pump(now)
        for router in self._routers.values():
            router.opened(replica, now)

    def died(self, replica: Replica, now: float) -> None:
        """It ended, with all its calls: they are tried again elsewhere, or fail. Another one is started."""
        if replica not in self.replicas:
            return
        began = replica not in self.starting
        self._leave(replica, now)
        self.replicas.remove(replica)
        failed = self._orphans(replica, now)
        if not replica.leaving:
            self.counts["replicas_lost"] += 1
            if began:
                self.reconcile(now)
            else:
                self.hands.later(RESTART_S, self._restart, None)
        self._pump(now)
        for call in failed:
            self._tell(call, "failed", now)

    def _restart(self, now: float, _: Any) -> None:
        self.reconcile(now)

    def _orphans(self, replica: Replica, now: float) -> list[Call]:
        """What becomes of a dead replica's calls; those that fail."""
        calls, again, failed = list(replica.calls), [], []
        replica.calls.clear()
        for call in calls:
            if call.worked and self.limits.central:
                continue  # it goes on without it
            if call.worked:
                self.walking -= 1
                self._abandon(call, now)
            if call.over:
                self._count(now, -1)
            elif call.retries > 0 and not call.begun:
                call.retries -= 1
                call.replica, call.worked, call.children, call.begun_s = None, False, None, -1.0
                again.append(call)
            else:
                call.over = True
                self._count(now, -1)
                failed.append(call)
        self.counts["retries"] += len(again)
        self.waiting += len(again)
        if not self.limits.hearsay:
            self._queue.extendleft(reversed(again))
            return failed
        lines: dict[Router, list[Call]] = {}
        for call in again:
            lines.setdefault(self._router(call), []).append(call)
        for router, some in lines.items():
            router.again(some, now)
        return failed

    def _leave(self, replica: Replica, now: float) -> None:
        """It takes no more calls."""
        if replica in self.starting:
            self.starting.remove(replica)
        if replica.place < 0:
            return
        self.full -= self.lengths.pop(replica.place) >= self.most
        self.ready.remove(replica)
        for router in self._routers.values():
            router.beliefs.forget(replica)
        for later in self.ready[replica.place :]:
            later.place -= 1
        replica.place = -1
        self._changed(now)

    def _changed(self, now: float) -> None:
        self._all = range(len(self.ready))
        self.hands.changed(self, now)


def late(request: Request, hands: Hands, now: float) -> None:
    """A request's deadline has passed: all its calls are given up, and the client is told."""
    give_up(request, now)
    hands.late(request, now)


def give_up(request: Request, now: float) -> None:
    """Nobody waits for a request any more."""
    request.over = True
    root = request.root
    if root is not None:
        root.callee.give_up(root, now)
