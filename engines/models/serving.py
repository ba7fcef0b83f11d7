"""Serving decisions, pure: which replica takes a request, and how many replicas a deployment should have.

The module owns the rules and what engines are made of (`ServingEntry`: constants with their sources). It knows no clock: the
worlds count periods for it and draw its random numbers. Sources of the rules are Ray Serve 2.5x, pinned in each docstring.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from windtunnel.engines.models.traits import Constant
from windtunnel.spec.serving import Replicas

INTERVAL_S = 0.1  # of the control loop: Ray Serve's CONTROL_LOOP_INTERVAL_S

#: what the embedded host does unless it is told otherwise, in both worlds
HOST: Mapping[str, Any] = {"choice": "power_of_two", "max_queued_requests": 1000, "request_timeout": "30s", "retries": 1}

Draw = Callable[[], float]
#: (queue lengths of all replicas, indices of those with room, uniform numbers) → the index of the chosen one
Rule = Callable[[Sequence[int], Sequence[int], Draw], int]


def power_of_two(lengths: Sequence[int], room: Sequence[int], draw: Draw) -> int:
    """The shorter queue of two replicas drawn at random (Ray Serve's default, ``pow_2_router.py``).

    Of current lengths, among replicas with room. Ray draws among all replicas, by what it has heard of their lengths, and backs off
    when both are full: `windtunnel.engines.models.routing`.
    """
    count = len(room)
    if count == 1:
        return room[0]
    first = int(draw() * count)
    second = int(draw() * (count - 1))
    a, b = room[first], room[second + (second >= first)]
    return a if lengths[a] <= lengths[b] else b


def least_loaded(lengths: Sequence[int], room: Sequence[int], draw: Draw) -> int:
    """The shortest queue; the first of equals."""
    if len(room) == len(lengths):
        return lengths.index(min(lengths))
    return min(room, key=lengths.__getitem__)


def random_choice(lengths: Sequence[int], room: Sequence[int], draw: Draw) -> int:
    """Any one: what a kernel does with processes that listen on one port."""
    return room[int(draw() * len(room))]


def round_robin() -> Rule:
    """Each in turn; full ones are passed over."""
    last = -1

    def choose(lengths: Sequence[int], room: Sequence[int], draw: Draw) -> int:
        nonlocal last
        last = next((i for i in room if i > last), room[0])
        return last

    return choose


RULES: Mapping[str, Callable[[], Rule]] = {
    "power_of_two": lambda: power_of_two,
    "round_robin": round_robin,
    "least_loaded": lambda: least_loaded,
    "random": lambda: random_choice,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerRules:
    """Ray Serve's ``AutoscalingConfig``: bounds, target, delays; ``lookback_s`` = ``look_back_period_s``, ``interval_s`` =
    ``CONTROL_LOOP_INTERVAL_S``."""

    minimum: int
    maximum: int
    target_ongoing: float
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    lookback_s: float = 30.0
    interval_s: float = INTERVAL_S


def rules_of(replicas: Replicas, lookback_s: float) -> AutoscalerRules | None:
    """A deployment's rules; None for a fixed number."""
    if replicas.target_ongoing is None:
        return None
    return AutoscalerRules(
        minimum=replicas.minimum, maximum=replicas.maximum, target_ongoing=replicas.target_ongoing,
        upscale_delay_s=replicas.upscale_delay_s, downscale_delay_s=replicas.downscale_delay_s, lookback_s=lookback_s,
    )  # fmt: skip


class Autoscaler:
    """Ray Serve's default policy (``autoscaling_policy.py``: replica_queue_length_autoscaling_policy, factors of 1).

    Called once a control loop. A wish to grow must hold for more than ``int(upscale_delay / interval)`` decisions in a row
    before the target becomes what is wished *then*; to shrink likewise with ``downscale_delay``. The last replica goes only
    from 1 to 0. Without any replica a waiting request starts one at once.
    """

    def __init__(self, rules: AutoscalerRules) -> None:
        self._rules = rules
        self._streak = 0  # decisions in a row, positive up, negative down
        self._up = int(rules.upscale_delay_s / rules.interval_s)
        self._down = int(rules.downscale_delay_s / rules.interval_s)

    def desired(self, ongoing: float) -> int:
        """Replicas for so many ongoing requests (queued and running, averaged over the look-back), within the bounds."""
        wanted = math.ceil(ongoing / self._rules.target_ongoing - 1e-9)
        return max(self._rules.minimum, min(self._rules.maximum, wanted))

    def decide(self, ongoing: float, running: int, target: int) -> int:
        """The next target: ``ongoing`` averaged, ``running`` replicas now, ``target`` as decided last."""
        if running == 0:
            return max(1, target) if ongoing > 0 else target
        wanted = self.desired(ongoing)
        if wanted == target:
            self._streak = 0
            return target
        if wanted > target:
            self._streak = max(self._streak, 0) + 1
            return self._take(wanted, target, self._streak > self._up)
        self._streak = min(self._streak, 0) - 1
        wanted = wanted if target == 1 else max(1, wanted)
        return self._take(wanted, target, self._streak < -self._down)

    def _take(self, wanted: int, target: int, held: bool) -> int:
        if not held:
            return target
        self._streak = 0
        return wanted


class Scaling:
    """An autoscaler that sees the exact time average of what was ongoing over the look-back, as if replicas reported without delay.

    Before it was made nothing was ongoing: a service is idle until its first request.

    Worlds call `look` once a control loop with ``area``, the integral of ongoing requests over time since the start.
    """

    def __init__(self, rules: AutoscalerRules, now_s: float = 0.0) -> None:
        self._scaler = Autoscaler(rules)
        self._lookback_s = rules.lookback_s
        self._past: deque[tuple[float, float]] = deque([(now_s - rules.lookback_s, 0.0), (now_s, 0.0)])

    def look(self, now_s: float, area: float, running: int, target: int) -> int:
        """The next target."""
        past = self._past
        past.append((now_s, area))
        while len(past) > 2 and past[1][0] <= now_s - self._lookback_s + 1e-9:
            past.popleft()
        (since_s, before), (next_s, after) = past[0], past[1]
        begin_s = max(since_s, now_s - self._lookback_s)
        if next_s > since_s:  # between two looks what was ongoing is taken for even
            before += (after - before) * (begin_s - since_s) / (next_s - since_s)
        return self._scaler.decide((area - before) / (now_s - begin_s), running, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingCosts:
    """What a serving engine itself costs a request; the user's code comes on top.

    ``proxy_s``: CPU of the proxy, half before and half after the answer (0 and no proxy where nothing else is said).
    ``replica_s``: CPU of a replica around the handler. ``http_s``: more of it at the first deployment where that speaks HTTP
    itself. ``call_s``: CPU of a caller for each call of another deployment (of
    the proxy, where that makes the calls). ``hop_s``: delay of each call between processes and
    back that no event loop spends. ``contention`` (k): a process that holds n requests spends ``c × (1 + k × n)`` where one
    alone costs c. ``cv``: coefficient of variation of these CPU times.
    """

    proxy_s: float = 0.0
    replica_s: float = 0.0
    http_s: float = 0.0
    call_s: float = 0.0
    hop_s: float = 0.0
    contention: float = 0.0
    cv: float = 0.0


COST_NAMES = tuple(f.name for f in fields(ServingCosts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEntry:
    """A serving engine: ``proxies`` maps what stands before the replicas to the constants of that configuration.

    The first one is the default; "none": requests reach the first deployment's replicas without a proxy. ``inside``: called
    deployments are functions of the caller's process. ``central``: the proxy makes all calls. ``first`` numbers its replicas.
    ``hearsay``: its routers know queue lengths as Ray Serve's do. ``defaults`` of its options; ``paced``: it refuses what could not be
    in time.
    """

    name: str
    defaults: Mapping[str, Any]
    proxies: Mapping[str, tuple[Constant, ...]]
    inside: bool = False
    central: bool = False
    first: int = 0
    hearsay: bool = False
    paced: bool = False
    features: Mapping[str, str] = field(default_factory=dict)

    def costs(self, proxy: str) -> dict[str, float]:
        """The constants of a configuration by name."""
        return {c.name: c.value for c in self.proxies[proxy]}


_CELLS = "serve_unary: throughput of both configurations at concurrency 1, 16 and 256, all constants at once"
_RAY = (
    Constant(name="replica_s", value=0.6e-3, source="a replica's wrapper, deserialization and reply", fitted=_CELLS),
    Constant(name="hop_s", value=0.75e-3, source="a call's way through queues, threads and sockets, and back", fitted=_CELLS),
    Constant(name="contention", value=0.57e-3, source="fall of the throughput past saturation", fitted=_CELLS),
    Constant(name="cv", value=0.8, source="interpreted code, collections of garbage, other threads", fitted=_CELLS),
)
_PYTHON = Constant(name="proxy_s", value=2.2e-3, source="the saturated event loop of the proxy", fitted=_CELLS)
_HAPROXY = Constant(
    name="proxy_s", value=0.05e-3, source="assumed: HAProxy forwards tens of thousands of requests a second a core"
)
_INGRESS = Constant(name="http_s", value=0.55e-3, source="the first replica reads and writes HTTP itself", fitted=_CELLS)
_MEASURED = "echo on uvicorn, 2 CPUs shared with the clients, measured on the development machine"
_HOSTED = "35, 65 and 90 % of the ceiling and the ceiling itself, of two compositions on the development machine"
_HOST = (
    Constant(name="proxy_s", value=0.081e-3, source="the host reads a request and writes its answer", fitted=_HOSTED),
    Constant(name="call_s", value=0.032e-3, source="the host makes a call of another deployment", fitted=_HOSTED),
    Constant(name="replica_s", value=0.016e-3, source="a replica reads a call and writes its answer", fitted=_HOSTED),
    Constant(name="hop_s", value=0.45e-3, source="sockets and wake-ups between the processes", fitted=_HOSTED),
    Constant(name="cv", value=1.1, source="a machine of two CPUs at rest", fitted=_HOSTED),
)

ENTRIES: dict[str, ServingEntry] = {
    entry.name: entry
    for entry in (
        ServingEntry(
            name="ray-serve",
            defaults={"choice": "power_of_two"},
            hearsay=True,
            proxies={"python": (_PYTHON, *_RAY), "haproxy": (_HAPROXY, _INGRESS, *_RAY)},
            features={
                "proxies": "one on every node: a Python event loop, or HAProxy before replicas that read HTTP themselves",
                "autoscaling": "Ray Serve's rules: ongoing requests over the look-back, delays counted in control loops of 0.1 s",
            },
        ),
        ServingEntry(
            name="serving",
            defaults=HOST,
            central=True,
            paced=True,
            first=1,
            proxies={"none": (), "host": _HOST},
            features={"overheads": "none of its own until they are set: what the scenario declares is all there is"},
        ),
        ServingEntry(
            name="fastapi",
            defaults={"choice": "random", "discipline": "turns"},
            inside=True,
            proxies={
                "none": (
                    Constant(name="http_s", value=0.19e-3, source=f"5,160 requests/s at concurrency 8: {_MEASURED}"),
                    Constant(name="hop_s", value=0.19e-3, source=f"0.38 ms at concurrency 1, less the CPU time: {_MEASURED}"),
                    Constant(name="contention", value=10e-3, source=f"4,220 requests/s at concurrency 32: {_MEASURED}"),
                ),
            },
            features={
                "router": "none: the kernel hands connections to any worker process",
                "order": "an event loop on epoll reads all that has come and works on it, turn after turn; the first is not always first",
            },
        ),
    )
}
