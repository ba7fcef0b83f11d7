"""The simulated engines that keep data: the same workloads, roles, retries and counters as for real, on a virtual clock.

They tell what commits cost on stores that nobody here has: published latencies in `stores.toml`, or your own. Nothing is verified, since no
rows exist; conflicts follow from the protocol.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.commits import CONFLICTS, delta
from windtunnel.engines.stores.accounts import note
from windtunnel.errors import Unsupported
from windtunnel.records.record import Recorder
from windtunnel.sim.stores.world import READ, StoreLaw, World, told
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_count, parse_seconds
from windtunnel.spec.workload import BoundWorkload


@cache
def published() -> Mapping[str, Mapping[str, Any]]:
    """What stores are said to do, by name."""
    return tomllib.loads(resources.files("windtunnel.sim.stores").joinpath("stores.toml").read_text(encoding="utf-8"))


def _whole(value: object) -> None:
    if value != 0:
        parse_count(value)


OPTIONS = (
    Option(name="store", default="s3-standard", doc="whose published latency a request has; own: that of option latency",
           choices=("s3-standard", "s3-express", "own")),
    Option(name="latency", default=None, doc="of a request, on average, instead of the published one", check=parse_seconds),
    Option(name="latency_cv", default=0.0, doc="coefficient of variation of the latency (lognormal)"),
    Option(name="service", default="0ms", doc="a request's time on one of the store's servers, beyond the latency", check=parse_seconds),
    Option(name="servers", default=0, doc="requests that the store serves at a time; 0: as many as come", check=_whole),
    Option(name="client", default="0ms", doc="the client's own time a round of requests", check=parse_seconds),
    Option(name="write", default="0ms", doc="the client's own time an operation that writes", check=parse_seconds),
    Option(name="commit_retries", default=15, doc="tries of a commit after the first, by the format's library", check=_whole),
    Option(name="seed", default=0, doc="every drawn duration derives its own stream from it"),
)  # fmt: skip


class SimStoreSession:
    """An open simulated table format; nothing but its record is left of a run."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name, self._options = name, options
        latency = options["latency"]
        self._law = StoreLaw(
            latency_s=parse_seconds(latency) if latency is not None else float(published()[options["store"]]["latency_s"]),
            cv=float(options["latency_cv"]), service_s=parse_seconds(options["service"]), servers=int(options["servers"]),
            client_s=parse_seconds(options["client"]), write_s=parse_seconds(options["write"]),
        )  # fmt: skip

    def prepare(self, workload: BoundWorkload) -> None:
        """Raise Unsupported for pipelines, and for operations that the protocol has no rule for."""
        clients = workload.workload.clients
        if clients is None:
            raise Unsupported(
                f"sim:{self._name} simulates clients' commits and runs no pipelines such as {workload.workload.name!r}"
            )
        for kind in clients.kinds:
            if kind != READ and kind not in CONFLICTS:
                raise Unsupported(f"sim:{self._name} has no rule for {kind!r}; it knows {', '.join((READ, *CONFLICTS))}")
        if any(role.kills for role in clients.roles):
            raise Unsupported(f"sim:{self._name} kills no clients")

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Simulate once."""
        clients = workload.workload.clients
        assert clients is not None
        size = int(dict(clients.parameters).get("rows", 0))
        retries = int(self._options["commit_retries"])
        world = World(
            clients,
            self._law,
            lambda kind: delta(kind, retries),
            lambda kind: size if kind == "append" else 0,
            int(self._options["seed"]),
        )
        seconds = world.run()
        history = told(world.history)
        note(history, recorder, seconds)
        recorder.counters |= {"virtual_makespan_s": seconds, "makespan_s": seconds, "requests": float(world.requests)}
        return Outcome(rows=round(recorder.counters["acknowledged"]))

    def close(self) -> None:
        """Nothing is open."""


class SimStoreEngine:
    """A table format in the simulated world."""

    def __init__(self, name: str) -> None:
        self.name, self._of = f"sim:{name}", name
        self.options = OPTIONS
        self.capabilities = Capabilities(
            features={
                "data": "clients' commits on an object store, by the protocol of delta-rs",
                "simulated": "requests take the store's published latency; a conditional put is decided when it is served",
            }
        )

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SimStoreSession:
        """Check the options."""
        chosen = resolve_options(self.name, self.options, options)
        if chosen["store"] == "own" and chosen["latency"] is None:
            chosen["latency"] = "0ms"
        return SimStoreSession(self._of, chosen)


SimDeltaEngine = partial(SimStoreEngine, "delta")
