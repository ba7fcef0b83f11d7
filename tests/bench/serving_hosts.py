"""Serving hosts against each other for real: ceilings in a closed loop, then both at half the weaker one's ceiling in an open loop.

`python -m tests.bench.serving_hosts echo fastapi ray-serve:haproxy ray-serve:python` (or `model`: EfficientNet on photographs). The
embedded host comes first and last, the others between, each alone on the machine; every answer is compared with what it must be.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from windtunnel.engines.serving.client import Sent, Target
from windtunnel.engines.serving.engine import EmbeddedServingEngine, FastApiEngine, RayServeEngine
from windtunnel.engines.serving.load import Loop, generate

from windtunnel.cluster import ClusterSpec
from windtunnel.scenario import parse_scenario

ENGINES: dict[str, Any] = {"serving": EmbeddedServingEngine, "fastapi": FastApiEngine, "ray-serve": RayServeEngine}
SCENARIO = """
schema = 1
name = "hosts"
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
cost = {{ per_call = "0s" }}
"""
CLIENTS = (4, 16, 32)
PROBE_S = 1.5
OPEN_S = 6.0
#: what is served: options, replicas, bytes of a request
SERVED: dict[str, tuple[dict[str, Any], int, int]] = {
    "echo": ({}, 1, 100), "echo2": ({}, 2, 100), "model": ({"work": "windtunnel.workloads.inference.serve:Labels"}, 2, 0),
}  # fmt: skip


@contextmanager
def started(name: str, served: str, **more: Any) -> Iterator[Any]:
    """A session whose server runs, warmed up."""
    engine, _, proxy = name.partition(":")
    options, replicas, size = SERVED[served]
    session = ENGINES[engine]().open(ClusterSpec.here(), {**options, **({"proxy": proxy} if proxy else {}), **more})
    try:
        with tempfile.TemporaryDirectory() as folder:
            session.prepare(parse_scenario(SCENARIO.format(replicas=replicas, size=size)).workload.bind(Path(folder)))
        ask(session, served, Loop(clients=4, duration_s=1.0))
        yield session
    finally:
        session.close()


def ask(session: Any, served: str, loop: Loop) -> list[Sent]:
    """All requests of a load."""
    size = SERVED[served][2]
    target = Target(url=session.url, body_bytes=size, answer_bytes=size, samples=session._samples, trace=False, timeout_s=30.0)
    return generate(target, loop)


def ceiling(session: Any, served: str) -> float:
    """The most requests/s, over numbers of clients."""
    return max(
        sum(r.outcome == "ok" for r in ask(session, served, Loop(clients=n, duration_s=PROBE_S))) / PROBE_S for n in CLIENTS
    )


def at(session: Any, served: str, rate: float, seconds: float) -> dict[str, float]:
    """Latencies in an open loop of Poisson arrivals, in ms, and the generator's own lateness."""
    before = _cpu_s(session)
    times = np.cumsum(np.random.default_rng(7).exponential(1 / rate, int(rate * seconds)))
    sent = ask(session, served, Loop(times=tuple(times.tolist())))
    assert all(r.outcome == "ok" for r in sent), "an answer is missing or wrong"
    p50, p99, p999 = np.percentile([r.done_s - r.intended_s for r in sent], [50, 99, 99.9]) * 1e3
    lag = np.percentile([r.sent_s - r.intended_s for r in sent], 99) * 1e3
    cpu = (_cpu_s(session) - before) / len(sent) * 1e6
    found = {
        "cpu_us": cpu,
        "rate_per_s": rate,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "lag_p99_ms": lag,
        "requests": len(sent),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def _cpu_s(session: Any) -> float:
    """CPU seconds of the server's processes so far."""
    roots = [psutil.Process(started.pid) for started in session.processes]
    family = [p for root in roots for p in (root, *root.children(recursive=True))]
    return sum(t.user + t.system for t in (p.cpu_times() for p in family))


def main(served: str, *others: str) -> None:
    """Ceilings, then each other host and the embedded one at half the weaker one's."""
    with started("serving", served) as session:
        own = ceiling(session, served)
    print(json.dumps({"served": served, "host": "serving", "ceiling_per_s": round(own)}), flush=True)
    rates = {}
    for other in others:
        with started(other, served) as session:
            most = ceiling(session, served)
            rates[other] = 0.5 * min(own, most)
            print(
                json.dumps({"host": other, "ceiling_per_s": round(most), **at(session, served, rates[other], OPEN_S)}), flush=True
            )
    with started("serving", served) as session:
        for other, rate in rates.items():
            print(json.dumps({"host": "serving", "as": other, **at(session, served, rate, OPEN_S)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
