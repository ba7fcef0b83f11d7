"""Schedules with known answers: serial sums, Graham's list bound, two-stage pipelines, barriers, M/D/c-like servers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.jobs import FREE, cluster, simulate, source, step, two_stages
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.judging.bounds import lower_bound
from windtunnel.spec.plan import State

DURATIONS = st.lists(st.floats(0.001, 5.0), min_size=1, max_size=25)


@given(DURATIONS)
@settings(max_examples=30, deadline=None)
def test_one_slot_takes_the_sum(durations: list[float]) -> None:
    assert simulate(cluster(1), source(durations)).makespan_s == pytest.approx(sum(round(d * 1e6) for d in durations) / 1e6)


@given(DURATIONS, st.integers(1, 5), st.sampled_from([Bulk(prefetch=False), Streaming(ahead=False), Bulk(), Streaming(), None]))
@settings(max_examples=40, deadline=None)
def test_list_scheduling_stays_within_grahams_bound(durations: list[float], slots: int, model: Any) -> None:
    """Graham 1969: makespan ≤ (2 - 1/m) of the optimum, which is at least the mean load and the longest task.

    A task queued behind a running one may wait for it though another worker is idle: at most one longest task more.
    """
    waits = model is not None and (getattr(model, "_prefetch", False) or getattr(model, "_ahead", False))
    made = simulate(cluster(slots), source(durations), model).makespan_s
    optimum = max(sum(durations) / slots, max(durations))
    assert made >= lower_bound(*source(durations), cluster(slots)) - 1e-9
    assert made <= (2 - 1 / slots) * optimum + (max(durations) if waits else 0.0) + 1e-4


def test_longest_first_on_two_slots_by_hand() -> None:
    assert simulate(cluster(2), source([5, 4, 3, 3, 3])).makespan_s == pytest.approx(10.0)  # 5+3, 4+3, then 3
    assert simulate(cluster(2), source([3, 3, 3, 4, 5])).makespan_s == pytest.approx(11.0)  # 3+3, 3+4, then 5 at 6


@given(st.integers(1, 40), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_two_stage_pipeline_takes_the_slower_stage_plus_fill(tasks: int, a: float, b: float) -> None:
    """Each stage has its own slot (the second one a device): fill of one a, then the slower stage, then drain of one b."""
    from windtunnel.spec.cluster import ClusterSpec, DeviceSpec, NodeSpec
    from windtunnel.spec.plan import Concurrency, Resources, State

    where = ClusterSpec(nodes=(NodeSpec(cpus=1, gpus=DeviceSpec(count=1, pcie_bytes_per_s=1e30), memory_bytes=2**34),))
    job = two_stages(
        tasks, step("a", per_batch=a), step("b", per_batch=b, work_class="device"),
        resources=Resources(cpus=0, gpus=1), state=State(kind="actor"), concurrency=Concurrency(maximum=1),
    )  # fmt: skip
    expected = a + (tasks - 1) * max(a, b) + b
    assert simulate(where, job, Streaming()).makespan_s == pytest.approx(expected, rel=1e-6)
    assert simulate(where, job, Bulk()).makespan_s == pytest.approx(tasks * (a + b), rel=1e-6)


def test_a_barrier_waits_for_the_slowest_task() -> None:
    job, laws = two_stages(4, step("a", per_row=1.0), step("b", per_batch=1.0, batch_rows=100), partitions=2)
    uneven = laws[0].__class__(steps=laws[0].steps, source=((1, 8), (1, 8), (1, 8), (9, 8)), shares=laws[0].shares)
    assert simulate(cluster(4), (job, (uneven, laws[1])), Bulk()).makespan_s == pytest.approx(10.0)


def test_the_driver_is_a_server() -> None:
    """A thousand empty tasks: each costs the driver its launch and its completion, one after the other."""
    cost = EngineCost(engine="x", launch_s=1e-3, done_s=2e-3, task_s=0.0, emit_block_s=0.0, emit_bytes_per_s=0.0)
    made = simulate(cluster(8), source([1e-6] * 1000), Bulk(), cost=cost).makespan_s
    assert made == pytest.approx(3.0, rel=0.01)


def test_oversubscribed_cpus_are_shared() -> None:
    from tests.sim.fifo import Fifo

    assert simulate(cluster(1), source([1.0] * 4), Fifo(workers=4)).makespan_s == pytest.approx(4.0)
    assert simulate(cluster(2), source([1.0, 3.0]), Fifo(workers=4)).makespan_s == pytest.approx(3.0)


def test_co_running_slows_down_by_the_law() -> None:
    """Two tasks at once run at 1/1.5; when one is left it runs at full speed: 1.5 s for a second each, then 1 s more."""
    slow = EngineCost(**{**_fields(FREE), "slowdown": ((1, 1.0), (2, 1.5))})
    assert simulate(cluster(2), source([1.0, 2.0]), cost=slow).makespan_s == pytest.approx(2.5)
    assert simulate(cluster(1), source([1.0, 2.0]), cost=slow).makespan_s == pytest.approx(3.0)


@pytest.mark.parametrize(("sensitivity", "seconds"), [(0.0, 1.0), (1.0, 1.5), (2.0, 2.0)])
def test_operators_feel_their_share_of_the_law(sensitivity: float, seconds: float) -> None:
    slow = EngineCost(**{**_fields(FREE), "slowdown": ((1, 1.0), (2, 1.5))})
    assert simulate(cluster(2), source([1.0, 1.0], sensitivity=sensitivity), cost=slow).makespan_s == pytest.approx(seconds)


def test_a_workers_first_task_is_slower() -> None:
    """Two workers, four tasks of a second: the first of each takes 1.5 s."""
    cold = EngineCost(**{**_fields(FREE), "cold": 1.5})
    assert simulate(cluster(2), source([1.0] * 4), cost=cold).makespan_s == pytest.approx(2.5)


@pytest.mark.parametrize("slowdown", [(), ((1, 1.0), (2, 1.5))], ids=["undisturbed", "co-run"])
def test_a_stateful_workers_first_task_pays_its_first_call(slowdown: tuple[tuple[float, float], ...]) -> None:
    """One worker, three tasks of a second a stage, one after the other; the actor loads for 2 s and its first task takes half a second
    more: 3 + 2 + 0.5 + 3."""
    job, laws = two_stages(3, step(per_row=1.0), step(per_row=1.0), state=State(kind="actor", load_s=2.0))
    cost = EngineCost(**{**_fields(FREE), "slowdown": slowdown})
    found = simulate(cluster(1), (job, (laws[0], replace(laws[1], first_s=0.5))), Bulk(), cost=cost)
    assert found.makespan_s == pytest.approx(8.5)


def test_forgetting_inputs_delays_what_follows() -> None:
    """100 bytes a task at 100 bytes/s. Bulk, one worker, two tasks a stage of a second, three stages: when the second stage is over,
    the driver gives back what its first task read (1 s), the worker what it still maps (1 s). After the last stage the driver
    alone is left: 1 s more."""
    from windtunnel.model import Job, Stage, StageInput
    from windtunnel.sim.costs.laws import StageLaw

    slow = EngineCost(**{**_fields(FREE), "forget_bytes_per_s": 100.0})
    job, laws = two_stages(2, step("a", per_batch=1.0, row_bytes_out=100), step("b", per_batch=1.0))
    third = Stage(index=2, name="c", operators=("c",), inputs=(StageInput(stage=1, mode="forward"),), partitions=None)
    chain = Job(stages=(*job.stages, third)), (*laws, StageLaw(steps=(step("c", per_batch=1.0),)))
    assert simulate(cluster(1), chain, Bulk()).makespan_s == pytest.approx(6.0)
    assert simulate(cluster(1), chain, Bulk(), cost=slow).makespan_s == pytest.approx(6.0 + 2.0 + 1.0)


def test_every_overhead_of_a_task_is_paid_once() -> None:
    """A source task: its second, 0.1 s fixed, 0.3 s for the block it writes. Its reader pays 0.2 s for mapping it as well."""
    cost = EngineCost(
        **{**_fields(FREE), "task_s": 0.1, "fetch_block_s": 0.2, "emit_block_s": 0.3, "startup_s": 1.0, "finish_s": 2.0}
    )
    job = two_stages(1, step("a", per_batch=1.0), step("b", per_batch=1.0))
    assert simulate(cluster(1), job, cost=cost).makespan_s == pytest.approx(
        1.0 + (1.0 + 0.1 + 0.3) + (1.0 + 0.1 + 0.2 + 0.3) + 2.0
    )


def test_the_bound_counts_a_call_a_block() -> None:
    """Three source tasks, three blocks, three calls of each follower: 9 s of work; a chain of one block each takes 3 s."""
    from windtunnel.model import Job, Stage, StageInput
    from windtunnel.sim.costs.laws import StageLaw

    job, laws = two_stages(3, step("a", per_batch=1.0), step("b", per_batch=1.0))
    third = Stage(index=2, name="c", operators=("c",), inputs=(StageInput(stage=1, mode="forward"),), partitions=None)
    chain = Job(stages=(*job.stages, third)), (*laws, StageLaw(steps=(step("c", per_batch=1.0),)))
    assert lower_bound(*chain, cluster(1)) == pytest.approx(9.0)
    assert lower_bound(*chain, cluster(9)) == pytest.approx(3.0)
    assert simulate(cluster(1), chain, Streaming()).makespan_s == pytest.approx(9.0)
    assert simulate(cluster(3), chain, Bulk()).makespan_s == pytest.approx(3.0)


def _fields(cost: EngineCost) -> dict[str, object]:
    return {name: getattr(cost, name) for name in cost.__dataclass_fields__}


def test_lognormal_durations_have_the_declared_mean_and_spread() -> None:
    where, n = cluster(1), 4000
    job, laws = source([1.0] * n)
    law = laws[0].__class__(steps=(step(per_batch=1.0, cv=0.5),), source=((1, 8),) * n)
    assert simulate(where, (job, (law,)), seed=3).makespan_s / n == pytest.approx(1.0, abs=4 * 0.5 / math.sqrt(n))


def test_the_maximum_of_varying_tasks_is_what_a_barrier_pays() -> None:
    job, laws = source([1.0] * 64)
    varying = laws[0].__class__(steps=(step(per_batch=1.0, cv=0.5),), source=((1, 8),) * 64)
    assert simulate(cluster(64), (job, (varying,))).makespan_s > 1.8


@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5), st.floats(0.0, 0.2), st.floats(0.0, 1.0),
    st.sampled_from([Bulk, Streaming, None]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_run_beats_the_bound(
    tasks: int, cpus: int, nodes: int, partitions: int, per_row: float, per_batch: float, model: type | None
) -> None:
    where = cluster(cpus, nodes)
    job = two_stages(
        tasks, step("a", per_row=per_row), step("b", per_batch=per_batch, batch_rows=2), rows=3, partitions=partitions
    )
    made = simulate(where, job, model() if model else None).makespan_s
    assert made >= lower_bound(*job, where) * (1 - 1e-9)
