"""The simulator's speed: independent tasks on a thousand nodes, the whole world with memory, store, driver and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.test_commands import NODES, PIPELINE, SLOTS, TASKS, scenario
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.physical import compile_job
from windtunnel.records.record import Recorder
from windtunnel.scenario.reading import parse_scenario
from windtunnel.sim.costs.laws import stage_laws
from windtunnel.sim.costs.measured import Calibration
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.workload import BoundWorkload

SCENARIO = scenario("bulk")


def run(model: Any, *, nodes: int = NODES, tasks: int = TASKS, operators: str = "", **more: Any) -> SimWorld:
    """One simulation of ``tasks`` source tasks, each followed by one of each further operator."""
    text = SCENARIO.replace(f"= {TASKS}", f"= {tasks}").replace("[[engines]]", operators + "[[engines]]")
    scenario = parse_scenario(text)
    assert scenario.workload is not None
    bound: BoundWorkload = scenario.workload.bind(Path("."))
    job = compile_job(bound, partitions=1)
    assert len(job.stages) == 1 + operators.count("[[operators]]")
    calibration = Calibration()
    cluster = ClusterSpec(nodes=(NodeSpec(name="worker", count=nodes, cpus=SLOTS, memory_bytes=16 * 2**30),))
    world = SimWorld(
        cluster,
        job,
        stage_laws(job, bound, calibration),
        Recorder(),
        cost=calibration.engine("bulk"),
        seed=7,
        spans=False,
        **more,
    )
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


def test_a_streaming_pipeline_of_a_million_tasks(benchmark: Any) -> None:
    """Three stages with backpressure; blocks are fetched over the network where the next task runs elsewhere."""
    tasks = 333_334
    world = benchmark.pedantic(
        run, args=(Streaming(queued_blocks=4 * NODES),), kwargs={"tasks": tasks, "operators": PIPELINE}, rounds=1, iterations=1
    )
    benchmark.extra_info["tasks_per_s"] = round(3 * tasks / benchmark.stats.stats.median)
    assert world.journal.recorder.counters["tasks"] == 3 * tasks
    assert world.journal.recorder.counters["bytes_network"] > 0
