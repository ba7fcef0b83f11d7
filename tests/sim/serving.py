"""Serving scenarios for tests: short texts, run through the engine's own door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import parse_scenario

CLUSTER = """
schema = 1
name = "queues"
[cluster]
[[cluster.nodes]]
name = "node"
cpus = {cpus}
memory = "8GiB"
"""


def scenario(arrivals: str, deployments: str, *, cpus: int = 16, more: str = "") -> str:
    """A whole scenario from its interesting parts."""
    return f'{CLUSTER.format(cpus=cpus)}[arrivals]\n{arrivals}\n{deployments}\n[[engines]]\nname = "serving"\n{more}'


#: queues of the textbook: nothing is refused or given up
PLAIN: dict[str, Any] = {"choice": "least_loaded", "max_queued_requests": None, "request_timeout": None, "retries": 0}


def serve(text: str, engine: str = "serving", **options: Any) -> Recorder:
    """Simulate it; the recorder holds everything. ``serving`` has no limits but those that are asked for."""
    if engine == "serving":
        options = {**PLAIN, **options}
    parsed = parse_scenario(text)
    bound = parsed.workload.bind(Path())
    recorder = Recorder()
    session = load_engine(f"sim:{engine}").open(parsed.cluster, {"seed": parsed.seed, **options})
    session.prepare(bound)
    session.run(bound, recorder, Path())
    return recorder


def latencies(recorder: Recorder) -> np.ndarray:
    """Of all requests answered well, in the order of the answers."""
    return np.array([value for name, _, value in recorder.samples if name == "latency_s"])


def replicas(recorder: Recorder, name: str) -> list[tuple[float, int]]:
    """(seconds, replicas) at each change."""
    return [(round(time, 6), int(value)) for key, time, value in recorder.samples if key == f"replicas:{name}"]
