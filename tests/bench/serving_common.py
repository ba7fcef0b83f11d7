"""What the serving benches share: one deployment on one of the hosts, loads, percentiles, and who else used the machine meanwhile.

A measurement in which other programs took more than a tenth of the CPUs says less about the host than about them: each result
tells their share (`Machine`).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.serving.conftest import UNIFORM, scenario
from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.load import Loop
from windtunnel.registry import load_engine
from windtunnel.running.measure import cpu_between, cpu_seconds, machine_cpu_seconds, tree
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.serving import ArrivalSpec

DEPLOYMENT = """
[[deployments]]
name = "one"
replicas = {replicas}
cost = {{ per_call = "{cost}" }}
"""


@contextmanager
def started(
    name: str, options: Mapping[str, Any], *, replicas: int = 1, size: int = 100, cost: str = "0s"
) -> Iterator[tuple[Any, ArrivalSpec]]:
    """A session whose server runs, warmed up, and what its requests are like."""
    engine, _, proxy = name.partition(":")
    session = load_engine(engine).open(ClusterSpec.here(), {**options, **({"proxy": proxy} if proxy else {})})
    try:
        with tempfile.TemporaryDirectory() as folder:
            arrivals = f'{UNIFORM}\nrequest_bytes = "{size}B"'
            text = scenario(DEPLOYMENT.format(replicas=replicas, cost=cost), arrivals=arrivals)
            bound = parse_scenario(text).workload.bind(Path(folder))
            session.prepare(bound)
        serving = bound.workload.serving
        assert serving is not None
        session.ask(serving.arrivals, Loop(clients=4, duration_s=1.0))
        yield session, serving.arrivals
    finally:
        session.close()


def poisson(rate: float, seconds: float) -> Loop:
    """An open loop."""
    spec = ArrivalSpec(kind="poisson", rate_per_s=rate, duration_s=seconds)
    return Loop(times=tuple(arrival_times(spec, 7)))


def percentiles(sent: list[Sent], *levels: float) -> dict[str, float]:
    """Of the latencies of good answers, in ms; and the generator's own lateness."""
    good = np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"]) * 1e3
    lag = np.percentile([r.sent_s - r.intended_s for r in sent], 99) * 1e3
    named = {f"p{level:g}_ms".replace(".", ""): value for level, value in zip(levels, np.percentile(good, levels), strict=True)}
    return {name: round(float(value), 3) for name, value in {**named, "lag_p99_ms": lag}.items()}


class Machine:
    """Since it was made: the share of all CPUs that this process and its children did not use and somebody did."""

    def __init__(self) -> None:
        self._begun = self._look()

    def others(self) -> float:
        """What other programs took, as a share of all CPUs."""
        (since, own, all_s), (now, own_now, all_now) = self._begun, self._look()
        theirs = all_now - all_s - cpu_between(own, own_now)
        return round(max(theirs, 0.0) / (now - since) / (psutil.cpu_count() or 1), 3)

    @staticmethod
    def _look() -> tuple[float, dict[int, tuple[float, float]], float]:
        return time.monotonic(), cpu_seconds(tree(os.getpid())), machine_cpu_seconds()


def server_s(session: Any) -> float:
    """CPU seconds of the server's processes so far."""
    return sum(own for own, _ in cpu_seconds(tree(None, [process.pid for process in session.processes])).values())
