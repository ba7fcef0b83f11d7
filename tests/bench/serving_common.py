"""What the serving benches share: one deployment on one of the hosts, loads, percentiles, and who else used the machine meanwhile.

A measurement in which other programs took more than a tenth of the CPUs says less about the host than about them: each result
tells their share (`Machine`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.load import Loop

from windtunnel.cluster import ClusterSpec
from windtunnel.registry import load_engine
from windtunnel.scenario import parse_scenario
from windtunnel.serving import ArrivalSpec

SCENARIO = """
schema = 1
name = "bench"
[[cluster.nodes]]
name = "here"
count = 1
cpus = 2
memory = "4GiB"
[arrivals]
kind = "uniform"
rate_per_s = 1
duration = "1s"
request_bytes = "{size}B"
[[engines]]
name = "serving"
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
            bound = parse_scenario(SCENARIO.format(replicas=replicas, size=size, cost=cost)).workload.bind(Path(folder))
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
        self._begun = (time.monotonic(), _busy_s(), _own_s())

    def others(self) -> float:
        """What other programs took, as a share of all CPUs."""
        seconds = time.monotonic() - self._begun[0]
        theirs = _busy_s() - self._begun[1] - (_own_s() - self._begun[2])
        return round(max(theirs, 0.0) / seconds / (psutil.cpu_count() or 1), 3)


def _busy_s() -> float:
    told = psutil.cpu_times()
    return sum(told) - told.idle - getattr(told, "iowait", 0.0) - getattr(told, "guest", 0.0) - getattr(told, "guest_nice", 0.0)


def _own_s() -> float:
    """This process, its children that have ended, and all that live below it."""
    me = psutil.Process()
    return sum(me.cpu_times()[:4]) + sum(map(_cpu_s, me.children(recursive=True)))


def server_s(session: Any) -> float:
    """CPU seconds of the server's processes so far."""
    roots = [psutil.Process(process.pid) for process in session.processes]
    return sum(_cpu_s(p) for root in roots for p in (root, *root.children(recursive=True)))


def _cpu_s(process: psutil.Process) -> float:
    try:
        told = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(told.user + told.system)
