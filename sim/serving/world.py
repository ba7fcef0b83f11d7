"""One serving run: clients, proxies and deployments on one virtual clock, from the first request to the last answer.

The module owns the clients (open and closed loops), the way of a request through the proxy, time-outs, and the end of the run.
Everything is a callback on one heap; no request is a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windtunnel.engines.models.arrivals import arrival_times, token_lengths, trace_times
from windtunnel.engines.models.calls import Leaf, compose, nobody_answered
from windtunnel.engines.models.deadlines import Deadlines
from windtunnel.engines.models.deployment import Deployment, Limits, late
from windtunnel.engines.models.serving import INTERVAL_S
from windtunnel.engines.models.streams import OVERHEAD, Factors
from windtunnel.errors import InputError, RunFailed, RunTimeout
from windtunnel.records.record import Recorder
from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.serving.breakage import Breakage
from windtunnel.sim.serving.carrier import Carrier
from windtunnel.sim.serving.journal import Journal
from windtunnel.sim.serving.loops import Loop, Machine
from windtunnel.sim.serving.settings import Settings
from windtunnel.sim.serving.site import Site
from windtunnel.sim.serving.visits import Asked, Visit
from windtunnel.sim.serving.work import Work
from windtunnel.sim.world.faults import Faults
from windtunnel.sim.world.garbage import uncollected
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.serving import DeploymentSpec, ServingSpec, flatten

PATIENCE_S = 86_400.0  # a run whose requests still wait so long after the last one was sent is given up
LOOKS = 200  # how often queues are looked at within the window
PAUSE_S = 1e-3  # a client of a closed loop that was refused asks again after so long at least


class ServingWorld(Breakage):
    """``clock.now`` is seconds since the first client began."""

    def __init__(self, cluster: ClusterSpec, spec: ServingSpec, settings: Settings, recorder: Recorder) -> None:
        self.clock = Clock()
        self.recorder, self._spec, self._settings = recorder, spec, settings
        whole = cluster.expanded()
        self.site = Site(self.clock, whole)
        self.journal = Journal(recorder, settings.spans)
        self.open = {}
        self._faulty = bool(cluster.faults) or any(n.mtbf_s > 0 for n in cluster.nodes)
        self._half_s = settings.costs.proxy_s / 2
        self._overhead = Factors(settings.law, settings.costs.cv, settings.seed, OVERHEAD, len(spec.deployments)).draw
        self._deadlines = None if settings.timeout_s is None else Deadlines(settings.timeout_s)
        self._clock = Timer(self.clock, self._expire)
        self.proxies = {}
        self.turns = []
        self._lengths = token_lengths(spec.arrivals, settings.seed) if spec.arrivals.tokens else None
        self._name = spec.deployments[0].name
        self._times: Iterator[float] = iter(())
        self._outstanding = 0
        self._sending = self._ending = True
        self.window_s = _window(spec)
        self._faults = Faults(self, whole, settings.seed)
        for fault in cluster.faults:
            if fault.kind == "node_joins":
                self.site.machines[whole.node_index(fault.target)].alive = False
        self.deployments = self._deploy()
        for machine in self.site.machines:
            self.add_proxy(machine)

    def _deploy(self) -> list[Deployment]:
        arrivals, settings = self._spec.arrivals, self._settings
        size = arrivals.request_bytes + arrivals.response_bytes
        answered = self._answer if settings.proxied else self.respond
        self.carrier = carrier = Carrier(self.clock, settings, self.site, self.journal, size, answered, self.respond)
        limits = Limits(
            choice=settings.choice, queue_limit=settings.queue_limit, retries=settings.retries, central=settings.central,
            paced=settings.paced and settings.timeout_s is not None, hearsay=settings.hearsay, lookback_s=settings.lookback_s,
            seed=settings.seed,
        )  # fmt: skip
        specs = self._spec.deployments[:1] if settings.inside else self._spec.deployments
        made = [Deployment(spec, i, limits, carrier, 0.0) for i, spec in enumerate(specs)]
        leaves = {d.spec.name: Leaf(d, carrier) for d in made}
        for deployment in made:
            inside = _called(self._spec.deployments, 0) if settings.inside else ()
            carrier.employ(deployment, Work(deployment.spec, deployment.index, settings, inside))
            deployment.plan = None if settings.inside else compose(deployment.spec.calls, leaves)
            deployment.reconcile(0.0, warm=True)
            if deployment.short > 0 and not self._faulty:
                raise InputError(_no_room(deployment))
        return made

    def add_proxy(self, machine: Machine) -> None:
        """One on every node, or on the first."""
        wanted = self._settings.proxied and (self._settings.proxies == "every_node" or machine.index == 0)
        if wanted and machine.alive:
            self.proxies[machine.index] = Loop(machine, 1.0, self._settings.costs.contention)
        self.turns = list(self.proxies.values())

    # -- the run --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the window is over and every request is answered. Raises RunFailed where they never would be."""
        with uncollected():
            self._begin()
            self._loop()
        for process in self._processes():
            self.journal.retire(process.loop.busy_s, process.work.weight, process.work.spec.resources.gpus)
        for proxy in self.proxies.values():
            self.journal.retire(proxy.busy_s, 1.0, 0.0)
        retries = sum(d.counts["retries"] for d in self.deployments)
        self.journal.close(self.window_s, max(self.clock.now, self.window_s), self.site.bytes_moved, retries)
        if not self.journal.good:
            raise RunFailed(_nothing(self.journal))

    def _begin(self) -> None:
        if self._faulty:
            self._faults.arm()
        if any(d.scales for d in self.deployments):
            Timer(self.clock, self._tick).arm(INTERVAL_S)
        arrivals = self._spec.arrivals
        if arrivals.kind == "closed":
            self._sending = False
            for _ in range(arrivals.concurrency or 1):
                Timer(self.clock, self._client).arm(0.0)
        else:
            self._times = arrival_times(arrivals, self._settings.seed)
            self._next(Timer(self.clock, self._arrival))
        Timer(self.clock, self._end).arm(self.window_s)
        Timer(self.clock, self._look).arm(self.window_s / LOOKS)

    def _loop(self) -> None:
        """Until the last answer, or until none can come any more."""
        self.clock.run()
        if not self.clock.stopped:
            raise RunFailed(
                f"{self._outstanding} requests wait for ever: no replica can be started for a deployment that they need; "
                "the cluster has no room for it"
            )

    def _tick(self, timer: Timer) -> None:
        """The control loop of autoscalers."""
        now = self.clock.now
        for deployment in self.deployments:
            deployment.tick(now)
        self._patience(now)
        timer.serial += 1
        timer.arm((timer.serial + 1) * INTERVAL_S - now)  # not a sum of many 0.1

    def _expire(self, timer: Timer) -> None:
        """Requests whose deadline has passed."""
        assert self._deadlines is not None
        now = self.clock.now
        found, again_s = self._deadlines.look(now)
        if again_s >= 0:
            timer.arm(again_s)
        for request in found:
            late(request, self.carrier, now)

    def _look(self, timer: Timer) -> None:
        """Queues over time, for the record."""
        self.journal.look(self.clock.now, self.deployments)
        if self.clock.now < self.window_s:
            timer.arm(self.window_s / LOOKS)

    def _end(self, timer: Timer) -> None:
        self._ending = False
        self._check()

    def _check(self) -> None:
        self.clock.stopped = not (self._outstanding or self._sending or self._ending)

    def _patience(self, now: float) -> None:
        if now > self.window_s + PATIENCE_S:
            raise RunTimeout(
                f"{self._outstanding} requests still wait a day after the last one was sent; the deployments are too small for them"
            )

    # -- clients --------------------------------------------------------------------------------------------------------

    def _next(self, timer: Timer) -> None:
        """Wait for the next arrival of the open loop."""
        timer.arg = next(self._times, None)
        if timer.arg is None:
            self._sending = False
            self._check()
        else:
            timer.arm(timer.arg - self.clock.now)

    def _arrival(self, timer: Timer) -> None:
        self._send(timer.arg, None)
        self._next(timer)

    def _client(self, client: Timer) -> None:
        """A client of the closed loop asks, while the window lasts."""
        if self._ending:
            self._send(self.clock.now, client)

    def _again(self, client: Timer, outcome: str) -> None:
        think = self._spec.arrivals.think_time_s
        if outcome != "ok":
            think = max(think, PAUSE_S)
        if think > 0:
            client.arm(think)
        else:
            self._client(client)

    # -- requests -------------------------------------------------------------------------------------------------------

    def _send(self, intended_s: float, client: Timer | None) -> None:
        journal, settings, now = self.journal, self._settings, self.clock.now
        number = journal.sent
        request = Asked(number, intended_s, client, journal.came(now))
        self._outstanding += 1
        if self._lengths is not None:
            request.tokens = next(self._lengths, (1, 1))
        if self._faulty:
            self.open[request] = None
        if self._deadlines is not None and self._deadlines.watch(request, now):
            self._clock.arm(self._deadlines.seconds)
        if not settings.proxied:
            first = self.deployments[0]
            first.submit(Visit(request, first, None, now, None, None), now)
        elif self.turns:
            proxy = request.proxy = self.turns[number % len(self.turns)]
            proxy.held += 1
            proxy.run(0.0, self._half_s * self._overhead(), self._route, request)
        else:
            self.respond(request, "failed")

    def _route(self, request: Asked) -> None:
        """The proxy has read it."""
        proxy, now = request.proxy, self.clock.now
        assert proxy is not None
        if request.traced:
            self.journal.proxied(request, request.intended_s, now)
        if request.over:
            return
        first = self.deployments[0]
        first.submit(Visit(request, first, None, now, proxy, proxy.machine, 2), now)

    def _answer(self, request: Asked, outcome: str) -> None:
        """The first deployment is done with it: its proxy writes the answer."""
        if not request.over:
            assert request.proxy is not None
            request.proxy.run(0.0, self._half_s * self._overhead(), self._leave, (request, outcome, self.clock.now))

    def _leave(self, answer: tuple[Asked, str, float]) -> None:
        request, outcome, since = answer
        if request.traced:
            self.journal.proxied(request, since, self.clock.now)
        if not request.over:
            self.respond(request, outcome)

    def respond(self, request: Asked, outcome: str) -> None:
        """The client gets its answer now."""
        request.over = True
        self._outstanding -= 1
        if request.proxy is not None:
            request.proxy.held -= 1
        if self._faulty:
            del self.open[request]
        self.journal.answered(request, outcome, self.clock.now, self._name)
        if request.client is not None:
            self._again(request.client, outcome)
        if not self._outstanding:
            self._check()


def _called(specs: Sequence[DeploymentSpec], index: int) -> list[tuple[int, DeploymentSpec]]:
    """What a call of a deployment calls, and what that calls, in the order of execution in one process."""
    places = {d.name: i for i, d in enumerate(specs)}
    found = []
    for name in flatten(specs[index].calls):
        found += [(places[name], specs[places[name]]), *_called(specs, places[name])]
    return found


def _window(spec: ServingSpec) -> float:
    """How long requests are sent; a trace without a duration ends with its last time."""
    if spec.arrivals.duration_s is not None:
        return spec.arrivals.duration_s
    times = trace_times(spec.arrivals)
    if not times or not times[-1] > 0:
        raise InputError(f"the trace {spec.arrivals.file} holds no time above 0; give [arrivals] a duration")
    return times[-1]


def _no_room(deployment: Deployment) -> str:
    resources = deployment.spec.resources
    return (
        f"deployment {deployment.spec.name!r} needs {deployment.target} replicas of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, "
        f"and the cluster has room for {len(deployment.replicas)}; add nodes, or ask for less"
    )


def _nothing(journal: Journal) -> str:
    if not journal.sent:
        return "no request was sent: the arrivals have none within their duration"
    return nobody_answered(journal.sent, journal.outcomes)
