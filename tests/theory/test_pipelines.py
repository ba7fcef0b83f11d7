"""What the two models must differ in, through the whole simulated engine: overlap, barriers, actors, backpressure, more CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.jobs import cluster, simulate, source, step, two_stages
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.records.record import Recorder
from windtunnel.scenario.reading import parse_scenario
from windtunnel.sim.engine import SimBulkEngine, SimStreamingEngine

TWO_STAGES = """
schema = 1
name = "two stages"
[cluster]
[[cluster.nodes]]
cpus = {cpus}
memory = "4GiB"
[dataset]
rows = 1500
row_bytes = "1KiB"
partitions = 1500
[[operators]]
name = "prepare"
kind = "map"
cost = {{ per_batch = "5ms", cv = {cv} }}
[[operators]]
name = "infer"
kind = "map"
cost = {{ per_batch = "10ms", cv = {cv} }}
resources = {{ cpus = {actor_cpus} }}
state = {{ kind = "actor", load = "1s" }}
concurrency = 1
row_bytes_out = "1B"
[[engines]]
name = "bulk"
"""


def run(text: str, engine: Any, **options: Any) -> Recorder:
    """Simulate a scenario through the engine's own door."""
    scenario = parse_scenario(text)
    assert scenario.workload is not None
    bound = scenario.workload.bind(Path())
    session = engine().open(scenario.cluster, options)
    recorder = Recorder()
    session.prepare(bound)
    session.run(bound, recorder, Path())
    return recorder


def test_streaming_overlaps_two_stages() -> None:
    """1,500 batches of 10 ms on one replica that loads for 1 s: 16 s, and the 5 ms stage hides behind it. Each task costs 0.3 ms more."""
    made = run(TWO_STAGES.format(cpus=2, cv=0.0, actor_cpus=0), SimStreamingEngine).counters
    assert 16.0 <= made["makespan_s"] <= 16.0 * 1.05
    assert made["loads"] == 1


def test_bulk_does_not_overlap_them() -> None:
    """The same in bulk: 1,500 × 5 ms on two slots, then the load, then 1,500 × 10 ms on one replica."""
    made = run(TWO_STAGES.format(cpus=2, cv=0.0, actor_cpus=0), SimBulkEngine).counters
    expected = 1500 * 0.005 / 2 + 1.0 + 1500 * 0.010
    assert expected <= made["makespan_s"] <= expected * 1.05


def test_the_bound_of_the_pipeline_is_its_slowest_stage() -> None:
    made = run(TWO_STAGES.format(cpus=2, cv=0.0, actor_cpus=0), SimStreamingEngine).counters
    assert made["lower_bound_s"] == pytest.approx(16.0)


def test_backpressure_bounds_what_waits_between_the_stages() -> None:
    text = TWO_STAGES.format(cpus=2, cv=0.0, actor_cpus=0).replace('"1s"', '"0s"')  # while it loads, liveness goes before
    few = run(text, SimStreamingEngine, queued_blocks=8).counters["peak_store_bytes"]
    many = run(text, SimStreamingEngine, backpressure=False).counters["peak_store_bytes"]
    assert few <= (8 + 2) * 1024 + 1500  # eight queued, two being read; and the result, a byte a row
    assert many >= 1000 * 1024  # the first stage is done when 375 of 1,500 are read


@pytest.mark.parametrize("engine", [SimBulkEngine, SimStreamingEngine])
def test_variance_costs_bulk_the_maximum_at_every_barrier(engine: Any) -> None:
    """64 tasks on 64 slots, three stages with exchanges: with cv > 0 each stage lasts as long as its longest task."""
    stages = "".join(
        f'[[operators]]\nname = "s{i}"\nkind = "aggregate"\ncost = {{{{ per_batch = "1s", cv = {{cv}} }}}}\n' for i in range(3)
    )
    text = (
        'schema = 1\nname = "barriers"\n[cluster]\n[[cluster.nodes]]\ncpus = 64\nmemory = "64GiB"\n'
        '[dataset]\nrows = 6400\nrow_bytes = "8B"\npartitions = 64\n' + stages + '[[engines]]\nname = "bulk"\n'
    )
    calm = run(text.format(cv=0.0), engine).counters["makespan_s"]
    wild = run(text.format(cv=0.5), engine, seed=3).counters["makespan_s"]
    assert wild > 1.1 * calm


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=30), st.integers(1, 4), st.sampled_from([Bulk, Streaming, None]))
@settings(max_examples=80, deadline=None)
def test_twice_the_cpus_are_never_slower_for_independent_tasks(durations: list[float], cpus: int, model: Any) -> None:
    """List scheduling of independent tasks knows none of Graham's anomalies, as long as nothing is bound to a worker early."""
    make = (lambda: Bulk(prefetch=False)) if model is Bulk else model
    few = simulate(cluster(cpus), source(durations), make() if make else None).makespan_s
    many = simulate(cluster(2 * cpus), source(durations), make() if make else None).makespan_s
    assert many <= few * (1 + 1e-9)


@given(st.integers(1, 200), st.integers(1, 8), st.floats(0.001, 1.0), st.sampled_from([Bulk, Streaming]))
@settings(max_examples=60, deadline=None)
def test_equal_tasks_fill_rounds(tasks: int, slots: int, seconds: float, model: Any) -> None:
    """D/D/c with all work there at time 0: ceil(n / c) rounds."""
    made = simulate(cluster(slots), source([seconds] * tasks), model()).makespan_s
    assert made == pytest.approx(-(-tasks // slots) * round(seconds * 1e6) / 1e6)


@given(st.integers(2, 40), st.integers(1, 4), st.floats(0.01, 0.2), st.floats(0.01, 0.2))
@settings(max_examples=40, deadline=None)
def test_a_barrier_never_beats_the_flow(tasks: int, cpus: int, a: float, b: float) -> None:
    """Forward edges on a pool, no variance: streaming is at most one task longer than bulk, and never beats the mean load."""
    job = two_stages(tasks, step("a", per_batch=a), step("b", per_batch=b))
    bulk = simulate(cluster(cpus), job, Bulk()).makespan_s
    streaming = simulate(cluster(cpus), job, Streaming()).makespan_s
    assert streaming <= bulk + max(a, b) + 1e-9
    assert streaming >= tasks * (a + b) / cpus * (1 - 1e-9)
