"""What goes in comes out: rows, bytes, memory, the store; and Little's law on the store's samples. On random jobs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.jobs import FREE, cluster, simulate, step, two_stages
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.physical import compile_job
from windtunnel.model import Job
from windtunnel.records.record import Recorder
from windtunnel.scenario.reading import parse_scenario
from windtunnel.sim.costs.laws import stage_laws
from windtunnel.sim.costs.measured import Calibration, EngineCost
from windtunnel.sim.judging.bounds import lower_bound
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.plan import Concurrency, State

HEAD = """
schema = 1
name = "random"
[cluster]
[[cluster.nodes]]
cpus = 1
memory = "1GiB"
[[engines]]
name = "bulk"
"""

KINDS = ("map", "flat_map", "aggregate", "sort")
OPERATOR = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS), "batch_rows": st.integers(0, 5), "per_batch": st.integers(0, 50), "per_row": st.integers(0, 9),
        "cv": st.sampled_from([0.0, 0.0, 0.4]), "rows_out": st.sampled_from([1.0, 2.0, 3.0]), "width": st.integers(1, 5000),
        "actor": st.booleans(),
    }
)  # fmt: skip
SCENARIOS = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 200), "partitions": st.integers(1, 12), "skew": st.sampled_from([0.0, 1.0]),
        "operators": st.lists(OPERATOR, min_size=1, max_size=4), "cpus": st.integers(2, 4), "nodes": st.integers(1, 3),
        "exchange": st.integers(1, 5), "store": st.sampled_from([2_000, 50_000, 10**9]), "block": st.sampled_from([1_000, 10**7]),
        "model": st.sampled_from(["bulk", "streaming"]), "seed": st.integers(0, 3),
    }
)  # fmt: skip


def text(scenario: dict[str, Any]) -> str:
    """As a scenario file."""
    lines = [HEAD, "[dataset]", f"rows = {scenario['rows']}", 'row_bytes = "100B"']
    lines += [f"partitions = {min(scenario['partitions'], scenario['rows'])}", f"skew = {scenario['skew']}"]
    for i, op in enumerate(scenario["operators"]):
        lines += [
            "[[operators]]",
            f'name = "op{i}"',
            f'kind = "{op["kind"]}"',
            f"batch_rows = {op['batch_rows']}",
            f'cost = {{ per_batch = "{op["per_batch"]}ms", per_row = "{op["per_row"]}ms", cv = {op["cv"]} }}',
            f"rows_out = {op['rows_out'] if op['kind'] == 'flat_map' else 1.0}",
            f'row_bytes_out = "{op["width"]}B"',
        ]
        if op["actor"] and op["kind"] in ("map", "flat_map"):
            lines += ['state = { kind = "actor", load = "30ms", memory = "1MB" }', "concurrency = 1", "resources = { cpus = 0 }"]
    return "\n".join(lines)


def run(scenario: dict[str, Any], cost: EngineCost = FREE) -> tuple[SimWorld, list[Any], Job, Any, ClusterSpec]:
    """Simulate a random scenario; the world, its result's blocks and what it ran."""
    from pathlib import Path

    workload = parse_scenario(text(scenario)).workload
    assert workload is not None
    bound = workload.bind(Path())
    job = compile_job(bound, partitions=scenario["exchange"])
    laws = stage_laws(job, bound, Calibration())
    where = ClusterSpec(nodes=(NodeSpec(count=scenario["nodes"], cpus=scenario["cpus"], memory_bytes=2**34),))
    world = SimWorld(
        where,
        job,
        laws,
        Recorder(),
        cost=cost,
        seed=scenario["seed"],
        store_bytes=scenario["store"],
        block_bytes=scenario["block"],
    )
    result = world.run(Bulk() if scenario["model"] == "bulk" else Streaming())
    return world, result, job, laws, where


@given(SCENARIOS)
@settings(max_examples=120, deadline=None)
def test_rows_bytes_and_memory_are_conserved(scenario: dict[str, Any]) -> None:
    world, result, _, _, _ = run(scenario)
    expected = scenario["rows"]
    for op in scenario["operators"]:
        expected *= int(op["rows_out"]) if op["kind"] == "flat_map" else 1
    assert sum(b.rows for b in result) == expected
    assert sum(b.bytes for b in result) == expected * scenario["operators"][-1]["width"]

    # After the result is given back, nothing is left anywhere: no block, no byte of memory, store or disk.
    world._release([b.id for b in result])
    assert all(b is None for b in world._blocks)
    assert world.stored_bytes == 0
    for node in world._machines:
        assert (node.store.used, node.disk.used) == (0, 0)
        alive = [w for w in world._workers.values() if w.node is node and w.stage >= 0]
        assert node.memory.used == sum(world._stages[w.stage].spec.state.memory_bytes for w in alive)


@given(SCENARIOS)
@settings(max_examples=80, deadline=None)
def test_the_store_stays_within_its_limits(scenario: dict[str, Any]) -> None:
    world, _, _, _, _ = run(scenario)
    values = [v for name, _, v in world.journal.recorder.samples if name == "store_bytes"]
    times = [t for name, t, _ in world.journal.recorder.samples if name == "store_bytes"]
    assert min(values, default=0) >= 0
    assert max(values, default=0) <= scenario["store"]
    assert times == sorted(times)
    assert all(0 <= s[5] <= s[6] <= world.makespan_s * (1 + 1e-9) for s in world.journal.recorder.spans)


@given(SCENARIOS)
@settings(max_examples=30, deadline=None)
def test_a_worker_does_one_thing_at_a_time_and_nothing_begins_before_its_input(scenario: dict[str, Any]) -> None:
    """A slot is never given twice, no more workers compute on a node than it has CPUs, and no reader is ahead of its stage."""
    world, _, job, _, where = run(scenario)
    spans = [s for s in world.journal.recorder.spans if s[0] in ("fetch", "compute", "serialize", "emit") and s[6] > s[5]]
    by_worker: dict[int, list[tuple[float, float]]] = {}
    for s in spans:
        by_worker.setdefault(s[3], []).append((s[5], s[6]))
    for stretches in by_worker.values():
        stretches.sort()
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(stretches, stretches[1:], strict=False))
    pool = {i for i, w in world._workers.items() if w.stage < 0}
    assert len(pool) <= where.cpus
    begins: dict[str, float] = {}  # of the first task; its first block may leave before its end
    for s in spans:
        begins[s[1]] = min(begins.get(s[1], s[5]), s[5])
    for stage in job.stages:
        for given_by in stage.inputs:
            first = min((s[5] for s in spans if s[1] in stage.operators), default=None)
            source = job.stages[given_by.stage].operators[0]
            assert first is None or source not in begins or first >= begins[source]


@given(SCENARIOS)
@settings(max_examples=120, deadline=None)
def test_no_random_scenario_beats_its_bound(scenario: dict[str, Any]) -> None:
    for op in scenario["operators"]:
        op["cv"] = 0.0  # the bound holds for the mean where durations vary
    world, _, job, laws, where = run(scenario, EngineCost(engine="x"))
    assert world.makespan_s >= lower_bound(job, laws, where) * (1 - 1e-9)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_littles_law_on_the_store(tasks: int, first_ms: int, second_ms: int) -> None:
    """Little 1961, as an identity of every sample path: the integral of stored bytes is the sum of bytes × time in the store."""
    job = two_stages(
        tasks, step("a", per_batch=first_ms / 1e3, row_bytes_out=100), step("b", per_batch=second_ms / 1e3, rows_factor=0.0),
        state=State(kind="actor"), concurrency=Concurrency(maximum=1),
    )  # fmt: skip
    world = simulate(cluster(2), job, Streaming())
    points = [(t, v) for name, t, v in world.journal.recorder.samples if name == "store_bytes"]
    area = sum(v * (t2 - t1) for (t1, v), (t2, _) in zip(points, points[1:], strict=False))
    made = {s[2]: s[6] for s in world.journal.recorder.spans if s[0] == "emit" and s[1] == "a"}
    used = {s[2]: s[6] for s in world.journal.recorder.spans if s[0] == "emit" and s[1] == "b"}
    assert made.keys() == used.keys() == set(range(tasks))
    assert area == pytest.approx(sum(100 * (used[p] - made[p]) for p in made), rel=1e-6, abs=1e-9)
