"""Serving hosts against each other for real: ceilings in a closed loop, then both at half the weaker one's ceiling in an open loop.

`python -m tests.bench.serving_hosts echo fastapi ray-serve:haproxy ray-serve:python` (or `model`: EfficientNet on photographs). The
embedded host comes first and last, the others between, each alone on the machine; every answer is compared with what it must be.
Loads are asked three times; medians are told, and the worst of what other programs took meanwhile.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from windtunnel.engines.serving.client import Sent, Target
from windtunnel.engines.serving.load import Loop, generate

from tests.bench.serving_common import Machine, percentiles, poisson, started

CLIENTS = (4, 16, 32)
PROBE_S = 1.5
OPEN_S, TIMES = 6.0, 3
LOW_PER_S = 100.0  # where nothing queues: what an answer costs at least; an echo only
#: what is served: options of the engine, and of the deployment
SERVED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "echo": ({}, {"replicas": 1, "size": 100}), "echo2": ({}, {"replicas": 2, "size": 100}),
    "model": ({"work": "windtunnel.workloads.inference.serve:Labels"}, {"replicas": 2, "size": 0}),
}  # fmt: skip


def ask(session: Any, served: str, loop: Loop) -> list[Sent]:
    """All requests of a load, without traces; every answer must be right."""
    size = SERVED[served][1]["size"]
    target = Target(url=session.url, body_bytes=size, answer_bytes=size, samples=session._samples, trace=False, timeout_s=30.0)
    sent = generate(target, loop)
    assert all(r.outcome == "ok" for r in sent), "an answer is missing or wrong"
    return sent


def ceiling(session: Any, served: str) -> float:
    """The most requests/s, over numbers of clients."""
    return max(len(ask(session, served, Loop(clients=n, duration_s=PROBE_S))) / PROBE_S for n in CLIENTS)


def at(session: Any, served: str, rate: float) -> dict[str, Any]:
    """Medians over some open loops of Poisson arrivals: latencies and lateness in ms, CPU time of the server a request."""
    runs = []
    for _ in range(TIMES):
        machine = Machine(session)
        sent = ask(session, served, poisson(rate, OPEN_S))
        told = {"cpu_us": machine.server_s() / len(sent) * 1e6, "others": machine.others()}
        runs.append({**percentiles(sent, 50, 99, 99.9), **told})
    found = {name: round(float(np.median([r[name] for r in runs])), 3) for name in runs[0]}
    each = {f"each_{name}": [r[name] for r in runs] for name in ("p50_ms", "p99_ms")}
    return {"rate_per_s": round(rate, 1), **found, **each, "others": max(r["others"] for r in runs)}


def main(served: str, *others: str) -> None:
    """Ceilings, then each other host and the embedded one at half the weaker one's."""
    options, deployment = SERVED[served]
    low = [LOW_PER_S] if served != "model" else []
    with started("serving", options, **deployment) as (session, _):
        own = ceiling(session, served)
    _say(served=served, host="serving", ceiling_per_s=round(own))
    rates = {}
    for other in others:
        with started(other, options, **deployment) as (session, _):
            most = ceiling(session, served)
            rates[other] = 0.5 * min(own, most)
            _say(host=other, ceiling_per_s=round(most), **at(session, served, rates[other]))
            for rate in low:
                _say(host=other, **at(session, served, rate))
    with started("serving", options, **deployment) as (session, _):
        for other, rate in [*rates.items(), *(("all", rate) for rate in low)]:
            _say(host="serving", beside=other, **at(session, served, rate))


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
