"""The engines that serve for real (``serving``, ``fastapi``, ``ray-serve`` and those behind a front): their options and what they can do.

What a run does is `session`'s; what answers is in `host`, `baseline`, `ray_host` and `fronts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import windtunnel
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.models.serving import HOST, RULES
from windtunnel.engines.serving.servers import SERVERS
from windtunnel.engines.serving.session import ServingSession
from windtunnel.errors import InputError
from windtunnel.spec.cluster import ClusterSpec

_COMMON = (
    Option(name="host", default="127.0.0.1", doc="address to listen on; loopback unless told otherwise"),
    Option(name="work", default="spin", doc="what a deployment does: spin (burn the CPU time that its cost declares), sleep, or "
           "module:function of a function that makes a handler of bodies"),
    Option(name="seed", default=0, doc="arrivals, choices and drawn durations each derive a stream of their own from it"),
    Option(name="steady", default=False, doc="a run whose latencies have not settled after half of its requests is invalid"),
    Option(name="send_lag", default="20ms", doc="a run whose 99th percentile of lateness in sending is above it is invalid"),
)  # fmt: skip
_GRPC = Option(name="grpc_port", default=0, doc="a port for gRPC beside HTTP; 0: none")
_HOST = (
    Option(name="choice", default=HOST["choice"], doc="which replica takes a request", choices=tuple(RULES)),
    Option(
        name="max_queued_requests",
        default=HOST["max_queued_requests"],
        doc="requests that may wait at a deployment; more are refused (503)",
    ),
    Option(name="retries", default=HOST["retries"], doc="how often a call is tried again when a replica dies with it"),
    Option(
        name="request_timeout", default=HOST["request_timeout"], doc="a request that takes longer is answered as timed out (408)"
    ),
    Option(
        name="hang_timeout",
        default="10s",
        doc="a replica process that is not heard of for so long, or works so long after a deadline, is taken for dead",
    ),
    Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
    Option(name="lookback", default="30s", doc="what an autoscaler averages the ongoing requests over"),
    Option(name="client_timeout", default="10s", doc="how long a request may take to arrive, and an idle connection stays open"),
    Option(name="max_connections", default=10_000, doc="connections at a time; more are refused (503)"),
    Option(name="app", default="", doc="module:name of an ASGI application (FastAPI, ...) that answers all other paths"),
    _GRPC,
)


class ServingEngine:
    """``serving``: the embedded host. ``fastapi``: the baseline."""

    def __init__(self, name: str, options: tuple[Option, ...], features: Mapping[str, str]) -> None:
        self.name = name
        self.options = (*_COMMON, *options)
        told = {"serving": "answers requests over HTTP, asked by an open-loop (or closed-loop) load generator"}
        self.capabilities = Capabilities(features={**told, **features})

    def version(self) -> str:
        """windtunnel's version, or that of the library."""
        library = SERVERS[self.name].library
        return version(library) if library else windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> ServingSession:
        """Check the options; servers start when the deployments are known. Raises InputError."""
        chosen = resolve_options(self.name, self.options, options)
        for name in ("seed", "max_queued_requests", "retries", "max_connections", "grpc_port"):
            value = chosen.get(name, 0)
            least = min(
                0, next((o.default for o in self.options if o.name == name and isinstance(o.default, int)), 0)
            )  # -1: no limit
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"option {name} = {value!r} of engine {self.name!r} must be a whole number of 0 or more")
        if not isinstance(chosen["steady"], bool):
            raise InputError(f"option steady = {chosen['steady']!r} of engine {self.name!r} must be true or false")
        return ServingSession(SERVERS[self.name], chosen, cluster)


EmbeddedServingEngine = partial(
    ServingEngine, "serving", _HOST,
    {
        "processes": "one host with the queues, and one process a replica",
        "doors": "HTTP/1.1 on raw connections, gRPC beside it, an ASGI application mounted under its own paths",
        "autoscaling": "Ray Serve's rules, the same code as in the simulated world; scales to zero",
        "streaming": "a handler that gives an iterator is answered in pieces",
        "deadline": "reaches the replica: calls that nobody waits for any more are skipped or broken off",
        "overload": "a bounded queue; what does not fit is answered 503 with Retry-After",
        "retries": "a replica that dies is replaced, and its calls are tried again",
    },
)  # fmt: skip
FastApiEngine = partial(
    ServingEngine, "fastapi", (),
    {"processes": "uvicorn workers on one socket", "router": "none: the kernel hands connections to any worker process"},
)  # fmt: skip
RayServeEngine = partial(
    ServingEngine, "ray-serve",
    (
        Option(name="proxy", default="python", doc="what stands before the replicas: Serve's Python proxy, or HAProxy",
               choices=("python", "haproxy")),
        Option(name="max_queued_requests", default=-1, doc="requests that may wait at a handle; more are 503; -1: no limit"),
        Option(name="request_timeout", default="30s", doc="a request that takes longer is answered as timed out (408)"),
        Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
        _GRPC,
    ),
    {
        "processes": "a Ray cluster of its own: controller, a proxy, one process a replica",
        "doors": "HTTP, and beside it Serve's gRPC proxy",
        "autoscaling": "Ray Serve's own; the record has the number of replicas over time",
        "resources": "replicas ask Ray for no CPUs: the processes share the machine, as on the other hosts",
    },
)  # fmt: skip
_FRONT = (
    Option(name="max_queued_requests", default=1000, doc="requests that may be inside; more are refused (503)"),
    Option(name="request_timeout", default="30s", doc="a request that takes longer is answered as timed out (408)"),
    Option(name="max_body", default="16MiB", doc="longer bodies are refused (413)"),
    Option(name="client_timeout", default="10s", doc="how long a request may take to arrive, and an idle connection stays open"),
    Option(name="max_connections", default=10_000, doc="connections at a time; more are refused (503)"),
)
_INSIDE = (
    "deployments that the first one calls run in the same worker, one after another; batches and autoscaling are not offered"
)
DaskServeEngine = partial(
    ServingEngine, "dask-serve", _FRONT,
    {
        "serving": "Dask has no server: a thin HTTP front submits a task for every request to a LocalCluster of processes",
        "composition": _INSIDE, "router": "Dask's scheduler",
    },
)  # fmt: skip
_TRIGGER = Option(name="trigger", default="0s", doc="time between the starts of two rounds; 0: as soon as the last is done")
SparkServeEngine = partial(
    ServingEngine, "spark-serve", (*_FRONT, _TRIGGER),
    {
        "serving": "Spark has no HTTP source or sink: a thin front feeds its socket source and gets answers by foreachBatch",
        "composition": _INSIDE, "router": "none: Spark cuts a micro-batch into as many partitions as there are replicas",
    },
)  # fmt: skip
BulkServeEngine = partial(
    ServingEngine, "bulk-serve", (*_FRONT, _TRIGGER),
    {
        "serving": "a batch engine asked to serve: rounds of all that waits, shared evenly among workers, with a barrier between",
        "composition": _INSIDE, "router": "none: a round is cut into equal shares",
    },
)  # fmt: skip
