"""Serving hosts against the embedded one for real: ceilings in a closed loop, then both at half the weaker one's in an open loop.

`python -m tests.bench.serving_hosts echo fastapi ray-serve:haproxy ray-serve:python` (or `model`: EfficientNet on photographs). Both hosts
of a comparison are up, and loads go to one and the other in turn, so that a machine that is slow for a while is slow for both; every
answer is compared with what it must be. Each load is asked three times; medians are told, and the most that other programs took.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.bench.serving_common import Machine, percentiles, poisson, server_s, started
from windtunnel.engines.serving.client import Sent, Target
from windtunnel.engines.serving.load import Loop, generate

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


def ceilings(hosts: Mapping[str, Any], served: str) -> dict[str, int]:
    """The most requests/s of each, over numbers of clients."""
    rates = {
        (name, n): len(ask(session, served, Loop(clients=n, duration_s=PROBE_S))) / PROBE_S
        for n in CLIENTS
        for name, session in hosts.items()
    }
    return {name: round(max(rate for (host, _), rate in rates.items() if host == name)) for name in hosts}


def window(session: Any, served: str, rate: float) -> dict[str, float]:
    """An open loop of Poisson arrivals: latencies and lateness in ms, CPU time of the server a request, what others took."""
    machine, before = Machine(), server_s(session)
    sent = ask(session, served, poisson(rate, OPEN_S))
    cpu_us = (server_s(session) - before) / len(sent) * 1e6
    return {**percentiles(sent, 50, 99, 99.9), "cpu_us": cpu_us, "others": machine.others()}


def beside(hosts: Mapping[str, Any], served: str, rate: float) -> dict[str, Any]:
    """Medians of some windows of each host, asked in turn."""
    runs = [{name: window(session, served, rate) for name, session in hosts.items()} for _ in range(TIMES)]
    found: dict[str, Any] = {"rate_per_s": round(rate, 1), "others": max(r["others"] for run in runs for r in run.values())}
    for name in hosts:
        each = {key: [run[name][key] for run in runs] for key in runs[0][name] if key != "others"}
        found[name] = {key: round(float(np.median(values)), 3) for key, values in each.items()}
        found[name]["each_p99_ms"] = each["p99_ms"]
    return found


def main(served: str, *others: str) -> None:
    """Each other host beside the embedded one."""
    options, deployment = SERVED[served]
    for other in others:
        with started("serving", options, **deployment) as (own, _), started(other, options, **deployment) as (theirs, _):
            hosts = {"serving": own, other: theirs}
            most = ceilings(hosts, served)
            _say(served=served, ceilings_per_s=most)
            for rate in (0.5 * min(most.values()), *([LOW_PER_S] if served != "model" else [])):
                _say(served=served, **beside(hosts, served, rate))


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
