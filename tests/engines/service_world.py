"""A small world of services for tests: a heap of events, replicas that execute batches, random deaths, and a look at every rule.

It carries out what `windtunnel.engines.models.deployment` and `batches` say and fails where a promise is broken.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from windtunnel.engines.models.batches import Gatherer
from windtunnel.engines.models.calls import OUTCOMES, Call, Callee, Hands, Leaf, Replica, Request, Walk, compose
from windtunnel.engines.models.deadlines import Deadlines
from windtunnel.engines.models.deployment import Deployment, Limits, give_up, late
from windtunnel.engines.models.serving import RULES
from windtunnel.spec.serving import BatchSpec, CallCost, Calls, DeploymentSpec, Replicas

_EPS = 1e-6


class Process:
    """What runs for a replica."""

    def __init__(self, world: World, deployment: Deployment, replica: Replica) -> None:
        self.world, self.deployment, self.replica = world, deployment, replica
        self.gatherer: Gatherer[Call] = Gatherer(deployment.spec.batch)
        self.has: dict[Call, float] = {}  # what has not begun, with when it came
        self.running: list[Call] = []
        self.up = self.dead = False

    def arrive(self, now: float, call: Call) -> None:
        """After its way."""
        if self.dead or call.replica is not self.replica:
            return
        self.has[call] = now
        self.gatherer.add(call, call.request.deadline_s, now)
        self.look(now, None)

    def look(self, now: float, _: Any) -> None:
        """Execute what is due."""
        if self.dead:
            return
        batch = self.gatherer.next(now)
        late_ones, self.gatherer.late = self.gatherer.late, []
        if batch:
            assert not self.running, "one execution at a time"
            assert len(batch) <= self.deployment.spec.batch.max_size, "no batch larger than allowed"
            self.running = batch
            for call in batch:
                assert call.request.deadline_s >= now - _EPS, "nothing is executed after its deadline"
                del self.has[call]
            self.world.at(now + self.world.random.expovariate(1 / 0.02), self.ended, (batch, now))
        elif (due_s := self.gatherer.due_s()) < math.inf:
            self.world.at(max(now, due_s), self.look, None)
        for call in late_ones:
            del self.has[call]
            self.deployment.skipped(call, now)
        self.check(now)

    def check(self, now: float) -> None:
        """No call waits past its wait while its replica is free."""
        if not self.running and not self.dead:
            assert all(now - came <= self.deployment.spec.batch.wait_s + _EPS for came in self.has.values())
            assert len(self.has) < self.deployment.spec.batch.max_size, "a full batch goes at once"

    def ended(self, now: float, what: tuple[list[Call], float]) -> None:
        """An execution is over, well or badly."""
        batch, begun = what
        if self.dead:
            return
        self.running = []
        self.gatherer.ended(now)
        self.look(now, None)
        bad = self.world.random.random() < 0.03
        for call in batch:
            self.deployment.raised(call, now) if bad else self.deployment.worked(call, now, now - begun)

    def drop(self, call: Call, now: float) -> None:
        """Nobody waits for it."""
        if self.gatherer.drop(call):
            del self.has[call]
            self.deployment.skipped(call, now)


class World(Hands):
    """One random case, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = draw = random.Random(seed)
        self.events: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        self.serial = count()
        self.now = 0.0
        self.ends: Counter[Request] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.sent: list[Request] = []
        self.hop_s = draw.choice((0.0, 0.0, 0.002))
        self.limits = Limits(
            choice=draw.choice(tuple(RULES)), queue_limit=draw.choice((None, 0, 1, 5)), retries=draw.choice((0, 1, 3)),
            paced=draw.random() < 0.5, central=draw.random() < 0.5, hearsay=draw.random() < 0.25, lookback_s=0.5, seed=seed,
        )  # fmt: skip
        self.deadlines = Deadlines(draw.choice((0.05, 0.3, 5.0)))
        specs = self.specs()
        self.deployments = [Deployment(spec, i, self.limits, self, 0.0) for i, spec in enumerate(specs)]
        leaves = {d.spec.name: Leaf(d, self) for d in self.deployments}
        for deployment in self.deployments:
            deployment.plan = compose(deployment.spec.calls, leaves)
            deployment.reconcile(0.0, True)

    def specs(self) -> list[DeploymentSpec]:
        """One to four deployments, each of which calls later ones."""
        draw, names = self.random, "abcd"[: self.random.randint(1, 4)]
        return [self.spec(name, names[i + 1 :]) for i, name in enumerate(names) if draw is not None]

    def spec(self, name: str, later: str) -> DeploymentSpec:
        """With any rules."""
        draw = self.random
        least = draw.randint(0, 2)
        most = draw.randint(max(1, least), 4)
        scaled = Replicas(
            minimum=least, maximum=most, target_ongoing=draw.choice((0.5, 2.0)), upscale_delay_s=0.2, downscale_delay_s=0.3
        )
        fixed = Replicas(minimum=most, maximum=most)
        called = [n for n in later if draw.random() < 0.5]
        calls: Calls = (*called, tuple(called)) if len(called) > 1 and draw.random() < 0.5 else tuple(called)
        return DeploymentSpec(
            name=name, replicas=draw.choice((fixed, scaled)), max_ongoing=draw.choice((1, 2, 8)), cost=CallCost(), calls=calls,
            batch=BatchSpec(max_size=draw.choice((1, 1, 3, 8)), wait_s=draw.choice((0.0, 0.01, 0.1))),
        )  # fmt: skip

    # -- time ---------------------------------------------------------------------------------------------------------------

    def at(self, time: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """An event."""
        heapq.heappush(self.events, (time, next(self.serial), wake, arg))

    def run(self, requests: int = 60) -> None:
        """Until nothing happens any more."""
        draw, time = self.random, 0.0
        for _ in range(requests):
            time += draw.expovariate(1 / draw.choice((0.001, 0.02)))
            self.at(time, self.come, None)
        for _ in range(draw.randint(0, 4)):
            self.at(draw.uniform(0, time), self.kill, None)
        for tick in range(1, 200):
            self.at(0.1 * tick, self.tick, None)
        while self.events:
            self.now, _, wake, arg = heapq.heappop(self.events)
            wake(self.now, arg)
            self.look()
        self.finish()

    # -- clients --------------------------------------------------------------------------------------------------------------

    def come(self, now: float, _: Any) -> None:
        """A request; some clients leave."""
        request = Request()
        self.sent.append(request)
        if self.deadlines.watch(request, now):
            self.at(now + self.deadlines.seconds, self.expire, None)
        first = self.deployments[0]
        if self.random.random() < 0.05:
            self.at(now + self.random.uniform(0, 0.05), self.gone, request)
        first.submit(Call(request, first, None), now)

    def gone(self, now: float, request: Request) -> None:
        """Its client leaves."""
        if not request.over:
            self.end(request, "gone")
            give_up(request, now)

    def expire(self, now: float, _: Any) -> None:
        """Deadlines."""
        found, again_s = self.deadlines.look(now)
        if again_s >= 0:
            self.at(now + again_s, self.expire, None)
        for request in found:
            assert now >= request.deadline_s - _EPS
            late(request, self, now)

    def kill(self, now: float, _: Any) -> None:
        """Any replica dies, one that starts or leaves too."""
        found = [r for d in self.deployments for r in d.replicas]
        if found:
            process: Process = self.random.choice(found).process
            process.dead = True
            process.deployment.died(process.replica, now)

    def tick(self, now: float, _: Any) -> None:
        """The control loop."""
        for deployment in self.deployments:
            deployment.tick(now)

    def end(self, request: Request, outcome: str) -> None:
        """Its only end."""
        assert outcome in OUTCOMES
        self.ends[request] += 1
        assert self.ends[request] == 1, "every request ends once"
        self.outcomes[outcome] += 1

    # -- what is looked at after every event ------------------------------------------------------------------------------------

    def look(self) -> None:
        """No limit is exceeded, and the books are right."""
        for d in self.deployments:
            held = [len(r.calls) for r in d.replicas]
            assert max(held, default=0) <= d.most, "max_ongoing"
            assert d.lengths == [len(r.calls) for r in d.ready]
            assert d.full == sum(n >= d.most for n in d.lengths)
            assert 0 <= d.walking <= d.ongoing
            assert len(d.ready) + len(d.starting) <= max(d.target, len(d.ready))
            assert d.target <= d.spec.replicas.maximum
            if not self.limits.hearsay:
                assert not d.waiting or d.full == len(d.ready), "nobody waits while a replica has room"
                if self.limits.queue_limit is not None and not d.counts["retries"]:
                    assert d.waiting <= self.limits.queue_limit, "the limit of the queue"

    def finish(self) -> None:
        """Every request has ended, and nothing is left of any."""
        assert set(self.ends) == set(self.sent)
        for d in self.deployments:
            assert (d.ongoing, d.waiting, d.walking) == (0, 0, 0), d.spec.name
            assert not any(r.calls for r in d.replicas)
            assert len(d.ready) == d.target

    # -- hands ------------------------------------------------------------------------------------------------------------------

    def send(self, call: Call, now: float) -> None:
        """See `Hands`."""
        assert call.replica is not None and not call.over
        process: Process = call.replica.process
        assert process.up and not process.dead and not call.replica.leaving
        if self.hop_s:
            self.at(now + self.hop_s, process.arrive, call)
        else:
            process.arrive(now, call)

    def withdraw(self, call: Call, now: float) -> None:
        """See `Hands`."""
        assert call.replica is not None
        call.replica.process.drop(call, now)

    def pass_on(self, callee: Callee, walk: Walk, now: float) -> None:
        """See `Hands`; sometimes it takes a while."""
        call = Call(walk.call.request, callee, walk)
        if self.hop_s:
            self.at(now + self.hop_s, lambda t, c: callee.submit(c, t), call)
        else:
            callee.submit(call, now)

    def done(self, request: Request, outcome: str, now: float) -> None:
        """See `Hands`."""
        request.over = True
        self.end(request, outcome)

    def late(self, request: Request, now: float) -> None:
        """See `Hands`."""
        self.end(request, "timed_out")

    def replica(self, callee: Callee, number: int) -> Replica:
        """See `Hands`."""
        replica = Replica(number)
        assert isinstance(callee, Deployment)
        replica.process = Process(self, callee, replica)
        return replica

    def start(self, replica: Replica, warm: bool) -> bool:
        """See `Hands`."""
        self.at(self.now + (0.0 if warm else self.random.choice((0.0, 0.05))), self._up, replica)
        return True

    def _up(self, now: float, replica: Replica) -> None:
        process: Process = replica.process
        if not process.dead:
            process.up = True
            process.deployment.up(replica, now)

    def stop(self, replica: Replica) -> None:
        """See `Hands`."""
        assert not replica.calls, "a replica leaves with nothing"
        replica.process.dead = True

    def changed(self, callee: Callee, now: float) -> None:
        """See `Hands`."""

    def later(self, seconds: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """See `Hands`."""
        self.at(self.now + seconds, wake, arg)

    def ask_s(self, source: Any, replica: Replica) -> float:
        """See `Hands`."""
        return 0.001
