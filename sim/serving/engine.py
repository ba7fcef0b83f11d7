"""The simulated serving engines: entries of `windtunnel.engines.models.serving` in the serving world.

A record made here has ``clock`` virtual. Its latencies are samples and counters, its rows are the requests answered well.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.serving import COST_NAMES, ENTRIES, RULES, ServingCosts, ServingEntry
from windtunnel.errors import InputError, Unsupported, nearest
from windtunnel.records.record import Recorder
from windtunnel.sim.judging.prediction import told
from windtunnel.sim.serving.constants import load_constants
from windtunnel.sim.serving.loops import LOOPS
from windtunnel.sim.serving.settings import Settings
from windtunnel.sim.serving.world import ServingWorld
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_seconds
from windtunnel.spec.workload import BoundWorkload

_OPTIONS = (
    Option(name="seed", default=0, doc="arrivals, choices and drawn durations each derive a stream of their own from it"),
    Option(name="law", default="lognormal", doc="shape of drawn durations; gamma with cv = 1 is exponential",
           choices=("lognormal", "gamma")),
    Option(name="lookback", default="30s", doc="over which the autoscaler averages ongoing requests"),
    Option(name="proxies", default="every_node", doc="where proxies stand; clients take them in turn",
           choices=("every_node", "first_node")),
    Option(name="spans", default=None, doc="record spans; default those of the first requests and a sample of the others",
           choices=(None, True, False)),
    Option(name="calibration", default=None, doc="a file of constants that were measured on a machine"),
    Option(name="overheads", default=None, doc="constants of the engine to replace, in seconds, by name: { proxy_s = 0.001 }"),
)  # fmt: skip
_LIMITS = (
    ("max_queued_requests", None, "requests that may wait at a deployment; more are refused (503)"),
    ("request_timeout", None, "a request that takes longer is answered as timed out (408)"),
    ("retries", 0, "how often a request is tried again when a replica dies with it"),
)
_FEATURES = {
    "serving": "answers requests: deployments with replicas, queues, batches, composition and autoscaling",
    "simulated": "decisions are the model's; service times and the cluster follow the scenario, overheads the engine's constants",
}


class ServingSession:
    """An open simulated serving engine; a run leaves nothing behind but its record."""

    def __init__(self, entry: ServingEntry, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        self._name, self._cluster = entry.name, cluster
        self.settings = _settings(entry, options)

    def prepare(self, workload: BoundWorkload) -> None:
        """Refuse what answers no requests, and closed loops that would go round in no time."""
        serving = workload.workload.serving
        if serving is None:
            raise Unsupported(f"{self._name} answers requests ([arrivals] with [[deployments]]) and runs no operators")
        costs = self.settings.costs
        engine_s = costs.proxy_s + costs.replica_s + costs.http_s + costs.hop_s + serving.arrivals.think_time_s
        if (
            serving.arrivals.kind == "closed"
            and not engine_s
            and not any(d.tokens or d.cost.per_call_s + d.cost.per_item_s for d in serving.deployments)
        ):
            raise InputError("closed arrivals need a think_time, or a deployment that takes some time: this loop would never end")

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Simulate once. Raises RunFailed when no request is answered well."""
        self.prepare(workload)
        assert workload.workload.serving is not None
        world = ServingWorld(self._cluster, workload.workload.serving, self.settings, recorder)
        world.run()
        recorder.counters |= told(self._name, self._cluster.cpus, serving=True)
        return Outcome(rows=world.journal.good)

    def close(self) -> None:
        """Nothing is open."""


class SimServingEngine:
    """A serving model in the simulated world."""

    def __init__(self, entry: ServingEntry) -> None:
        self._entry = entry
        self.name = f"sim:{entry.name}"
        proxies = tuple(entry.proxies)
        self.options = (
            Option(name="proxy", default=proxies[0], doc="what stands before the replicas", choices=proxies),
            Option(name="choice", default=entry.defaults["choice"], doc="which replica takes a request", choices=tuple(RULES)),
            Option(
                name="discipline", default=entry.defaults.get("discipline", "fifo"),
                doc="how a replica's requests share its CPU: one after another, all at once, or in the turns of an event loop on epoll",
                choices=tuple(LOOPS),
            ),
            Option(
                name="queue_lengths",
                default=None,
                doc="what routers know with power_of_two: current lengths, or what Ray Serve's routers hear of and keep for 10 s; "
                "default cached for ray-serve, current for others",
                choices=(None, "current", "cached"),
            ),
            *(Option(name=name, default=entry.defaults.get(name, usual), doc=doc) for name, usual, doc in _LIMITS),
            *_OPTIONS,
        )  # fmt: skip
        self.capabilities = Capabilities(features={**_FEATURES, **entry.features})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> ServingSession:
        """Check the options."""
        return ServingSession(self._entry, cluster, resolve_options(self.name, self.options, options))


def _settings(entry: ServingEntry, options: Mapping[str, Any]) -> Settings:
    costs = _costs(entry, options)
    limit = options["max_queued_requests"]
    timeout = options["request_timeout"]
    return Settings(
        costs=costs,
        proxied=costs.proxy_s > 0,
        hearsay=_hearsay(entry, options),
        inside=entry.inside,
        central=entry.central,
        first=entry.first,
        paced=entry.paced,
        proxies=options["proxies"],
        choice=options["choice"],
        discipline=options["discipline"],
        law=options["law"],
        queue_limit=None if limit is None else _whole(entry, "max_queued_requests", limit),
        timeout_s=None if timeout is None else parse_seconds(timeout),
        retries=_whole(entry, "retries", options["retries"]),
        lookback_s=parse_seconds(options["lookback"]),
        spans=options["spans"],
        seed=int(options["seed"]),
    )


def _hearsay(entry: ServingEntry, options: Mapping[str, Any]) -> bool:
    if options["choice"] != "power_of_two" and options["queue_lengths"] == "cached":
        raise InputError(f"option queue_lengths = 'cached' of engine {entry.name!r} goes with choice = 'power_of_two' only")
    if options["queue_lengths"] is None:
        return entry.hearsay and options["choice"] == "power_of_two"
    return bool(options["queue_lengths"] == "cached")


def _whole(entry: ServingEntry, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"option {name} = {value!r} of engine {entry.name!r} must be a whole number of 0 or more")
    return value


def _costs(entry: ServingEntry, options: Mapping[str, Any]) -> ServingCosts:
    """The engine's constants, with what the user set in their place."""
    chosen = options["overheads"] or {}
    if not isinstance(chosen, Mapping):
        raise InputError(f"option overheads of engine {entry.name!r} must be a table of constants, not {chosen!r}")
    for name, value in chosen.items():
        if name not in COST_NAMES:
            raise InputError(f"option overheads of engine {entry.name!r} names {name!r}{nearest(name, COST_NAMES)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise InputError(f"option overheads of engine {entry.name!r}: {name} = {value!r} must be a number of 0 or more")
    return ServingCosts(**{**_measured(entry, options), **chosen})


def _measured(entry: ServingEntry, options: Mapping[str, Any]) -> dict[str, float]:
    """The constants of a calibration file where it has some of this engine and its proxy, else those that ship."""
    path = options["calibration"]
    if path is not None:
        found = load_constants(Path(path)).get(f"{entry.name}:{options['proxy']}")
        if found is not None:
            return found
    return entry.costs(options["proxy"])


SimRayServeEngine = partial(SimServingEngine, ENTRIES["ray-serve"])
SimEmbeddedServingEngine = partial(SimServingEngine, ENTRIES["serving"])
SimFastApiEngine = partial(SimServingEngine, ENTRIES["fastapi"])
