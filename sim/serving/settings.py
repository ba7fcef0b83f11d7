"""What a simulated serving run is told besides the scenario: the engine's costs and the values of its options. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.engines.models.serving import ServingCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``proxied``: a proxy stands before the replicas, one on every node or only on the first (``proxies``).

    ``queue_limit``: requests that may wait at a deployment before it refuses. ``retries``: of calls whose replica died.
    ``hearsay``: routers know queue lengths as Ray Serve's do (`windtunnel.engines.models.routing`). ``inside``: called deployments
    run in the caller's process, one after another. ``central``: calls between deployments go through the proxy, which spends
    ``call_s`` on each. ``law``: shape of drawn durations. ``first``: number of the first replica, which names its stream of
    durations. ``paced``: with a time-out, what could not be in time is refused. ``spans``: None = all of the first requests and some
    of the others.
    """

    costs: ServingCosts = ServingCosts()
    proxied: bool = False
    proxies: str = "every_node"
    hearsay: bool = False
    inside: bool = False
    central: bool = False
    first: int = 0
    paced: bool = False
    choice: str = "power_of_two"
    discipline: str = "fifo"
    law: str = "lognormal"
    queue_limit: int | None = None
    timeout_s: float | None = None
    retries: int = 0
    lookback_s: float = 30.0
    spans: bool | None = None
    seed: int = 0
