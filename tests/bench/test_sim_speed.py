"""The simulator's speed: independent tasks on a thousand nodes, the whole world with memory, store, driver and records."""

from __future__ import annotations

from typing import Any

from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.physical import compile_job
from windtunnel.sim.costs import Calibration
from windtunnel.sim.laws import stage_laws
from windtunnel.sim.world import SimWorld

from windtunnel.cluster import ClusterSpec, NodeSpec
from windtunnel.record import Recorder
from windtunnel.scenario import parse_scenario
from windtunnel.workload import BoundWorkload

NODES, SLOTS, TASKS = 1_000, 4, 400_000
SCENARIO = f"""
schema = 1
name = "independent tasks"
[cluster]
[[cluster.nodes]]
count = {NODES}
cpus = {SLOTS}
memory = "16GiB"
[dataset]
rows = {TASKS}
row_bytes = "8B"
partitions = {TASKS}
[[operators]]
name = "work"
kind = "map"
batch_rows = 1
cost = {{ per_batch = "10s", cv = 0.3 }}
row_bytes_out = "1KiB"
[[engines]]
name = "bulk"
"""


def run(model: Any) -> SimWorld:
    """One simulation."""
    scenario = parse_scenario(SCENARIO)
    assert scenario.workload is not None
    from pathlib import Path

    bound: BoundWorkload = scenario.workload.bind(Path("."))
    job = compile_job(bound, partitions=1)
    calibration = Calibration()
    cluster = ClusterSpec(nodes=(NodeSpec(name="worker", count=NODES, cpus=SLOTS, memory_bytes=16 * 2**30),))
    world = SimWorld(cluster, job, stage_laws(job, bound, calibration), Recorder(), cost=calibration.engine("bulk"), seed=7)
    world.run(model)
    return world


def test_bulk_on_a_thousand_nodes(benchmark: Any) -> None:
    world = benchmark.pedantic(run, args=(Bulk(),), rounds=3, iterations=1)
    benchmark.extra_info["tasks_per_s"] = round(TASKS / benchmark.stats.stats.median)
    assert world.journal.recorder.counters["tasks"] == TASKS
    assert world.makespan_s > TASKS * 10 / (NODES * SLOTS) * 0.99


def test_streaming_on_a_thousand_nodes(benchmark: Any) -> None:
    world = benchmark.pedantic(run, args=(Streaming(queued_blocks=10**9),), rounds=3, iterations=1)
    benchmark.extra_info["tasks_per_s"] = round(TASKS / benchmark.stats.stats.median)
    assert world.journal.recorder.counters["tasks"] == TASKS
