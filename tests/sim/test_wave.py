"""A wave gives what the general path gives, to the last bit: times, counters, samples, spans, memory, blocks, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.sim.jobs import FREE, cluster, source, step
from windtunnel.engines.models.bulk import Bulk
from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.model import Job, Stage, StageInput
from windtunnel.records.record import Recorder
from windtunnel.sim.costs.laws import StageLaw
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.world import journal, steady
from windtunnel.sim.world.wave import WaveBlocks, total_rows
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.plan import Concurrency, Resources, State

COSTS = st.builds(
    EngineCost,
    engine=st.just("x"), startup_s=st.sampled_from([0.0, 0.3]), finish_s=st.sampled_from([0.0, 1.0]),
    worker_start_s=st.sampled_from([0.0, 0.01, 0.5]), launch_s=st.sampled_from([0.0, 3e-5, 0.02, 0.1]),
    done_s=st.sampled_from([0.0, 3e-5, 0.03]), task_s=st.sampled_from([0.0, 1e-4]), emit_block_s=st.sampled_from([0.0, 1e-4]),
    worker_memory_bytes=st.sampled_from([0, 1000]), driver_memory_bytes=st.sampled_from([0, 500]),
)  # fmt: skip
NODES = st.lists(
    st.builds(
        NodeSpec, count=st.integers(1, 3), cpus=st.integers(1, 4), memory_bytes=st.sampled_from([5_000, 100_000, 2**34]),
        startup_s=st.sampled_from([0.0, 0.0, 0.7]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
FOLLOWERS = st.sampled_from(["", "forward", "partition", "actor", "two", "greedy"])
JOBS = st.fixed_dictionaries(
    {
        "tasks": st.integers(1, 200), "rows": st.lists(st.integers(0, 4), min_size=1, max_size=5),
        "per_row": st.sampled_from([0.0, 0.1, 0.07]),
        "per_batch": st.sampled_from([0.0, 0.05, 1.0]), "cv": st.sampled_from([0.0, 0.3]), "width": st.sampled_from([0, 1, 40, 300]),
        "rows_factor": st.sampled_from([0.0, 1.0, 0.3, 2.0]), "memory": st.sampled_from([0, 100]), "follower": FOLLOWERS,
        "partitions": st.integers(1, 3), "cpus": st.sampled_from([1, 2, 0.5, 0.1, 0]),
    }
)  # fmt: skip


def job_of(spec: dict[str, Any]) -> tuple[Job, tuple[StageLaw, ...]]:
    """A source stage, and what may follow it."""
    rows = spec["rows"]
    law = StageLaw(
        steps=(step(per_row=spec["per_row"], per_batch=spec["per_batch"], cv=spec["cv"], row_bytes_out=spec["width"],
                    rows_factor=spec["rows_factor"], batch_rows=0),),
        source=tuple((rows[i % len(rows)], 8 * rows[i % len(rows)]) for i in range(spec["tasks"])),
        shares=(1 / spec["partitions"],) * spec["partitions"] if spec["follower"] == "partition" else (), turns=spec["memory"] > 0,
    )  # fmt: skip
    resources = Resources(cpus=spec["cpus"], memory_bytes=spec["memory"])
    wide = spec["follower"] == "partition"
    parts = spec["partitions"] if wide else 0
    stages = [
        Stage(
            index=0, name="a", operators=("a",), inputs=(), partitions=spec["tasks"], resources=resources, output_partitions=parts
        )
    ]
    laws = [law]
    for i in range(1, {"": 1, "two": 3}.get(spec["follower"], 2)):
        given = StageInput(stage=i - 1, mode="partition" if wide else "forward")
        state = State(kind="actor", load_s=0.2) if spec["follower"] == "actor" else State()
        stages.append(
            Stage(index=i, name=f"s{i}", operators=(f"s{i}",), inputs=(given,), partitions=parts or None, state=state,
                  resources=Resources(cpus=2 if spec["follower"] == "greedy" else 1),
                  concurrency=Concurrency(maximum=2) if state.kind == "actor" else None)
        )  # fmt: skip
        laws.append(StageLaw(steps=(step(f"s{i}", per_batch=0.4, cv=0.2, row_bytes_out=50),)))
    return Job(stages=tuple(stages)), tuple(laws)


def outcome(
    where: ClusterSpec, what: tuple[Job, tuple[StageLaw, ...]], prefetch: bool, waves: bool, **more: Any
) -> dict[str, Any]:
    """All that a run leaves."""
    world = SimWorld(where, what[0], what[1], Recorder(), waves=waves, **more)
    made: dict[str, Any] = {"world": world, "error": None}
    try:
        result = world.run(Bulk(prefetch=prefetch))
        made |= {
            "rows": total_rows(result),
            "length": len(result),
            "blocks": list(result),
            "lazy": isinstance(result, WaveBlocks),
        }
    except (OutOfMemory, RunFailed) as error:
        made["error"] = str(error)
    return made


def without_usage(numbers: Any) -> Any:
    """Counters or samples that are the same to the last bit."""
    if isinstance(numbers, dict):
        return {name: value for name, value in numbers.items() if not name.startswith("busy_")}
    return [sample for sample in numbers if sample[0] in ("store_bytes", "memory_bytes")]


def compare_usage(one: Recorder, other: Recorder) -> None:
    """A wave takes many tasks together: CPU time agrees over time, the driver's in sum. Few tasks are all told apart."""
    for name in ("busy_cpu_s", "busy_driver_s"):
        assert one.counters.get(name, 0.0) == pytest.approx(other.counters.get(name, 0.0), rel=1e-9, abs=1e-9)
    pairs = zip(*([s[1:] for s in r.samples if s[0] == "use:cpu"] for r in (one, other)), strict=True)
    for (time, value), (other_time, other_value) in pairs:
        assert time == other_time
        assert value == pytest.approx(
            other_value, abs=1.1e-3
        )  # a task too short for a bucket may fall on either side of its edge


def compare(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Everything but the objects."""
    a, b = one["world"], other["world"]
    assert one["error"] == other["error"]
    assert repr(a.makespan_s) == repr(b.makespan_s)
    compare_usage(a.journal.recorder, b.journal.recorder)
    for exact in ("counters", "samples"):
        assert without_usage(getattr(a.journal.recorder, exact)) == without_usage(getattr(b.journal.recorder, exact))
    assert sorted(a.journal.recorder.spans) == sorted(b.journal.recorder.spans)
    assert a.journal.recorder.spans == b.journal.recorder.spans
    for key in ("rows", "length", "blocks"):
        assert one.get(key) == other.get(key)
    assert a._blocks == b._blocks
    for m, n in zip(a._machines, b._machines, strict=True):
        assert (m.memory.used, m.memory.peak, m.memory.peak_s) == (n.memory.used, n.memory.peak, n.memory.peak_s)
        assert (m.store.used, m.store.peak, m.store.spilled) == (n.store.used, n.store.peak, n.store.spilled)
    assert a.stored_bytes == b.stored_bytes


@given(
    JOBS, NODES, COSTS, st.booleans(), st.integers(0, 3), st.sampled_from([None, True, False]), st.sampled_from([None, 2_000]),
    st.sampled_from([7, 20_000]), st.sampled_from([1, 24]),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_wave_is_the_general_path(
    spec: dict[str, Any], nodes: list[NodeSpec], cost: EngineCost, prefetch: bool, seed: int, spans: bool | None, store: int | None,
    most: int, short: int,
) -> None:  # fmt: skip
    where, what = ClusterSpec(nodes=tuple(NodeSpec(**{**fields(n), "name": f"g{i}"}) for i, n in enumerate(nodes))), job_of(spec)
    before, journal.MOST_TASKS, steady.SHORT = (journal.MOST_TASKS, steady.SHORT), most, short
    try:
        more: dict[str, Any] = {"cost": cost, "seed": seed, "spans": spans, "store_bytes": store}
        with_wave, without = (outcome(where, what, prefetch, waves, **more) for waves in (True, False))
    finally:
        journal.MOST_TASKS, steady.SHORT = before
    event(f"wave: {with_wave['world'].waved}, error: {without['error'] is not None}")
    compare(with_wave, without)


def fields(spec: NodeSpec) -> dict[str, Any]:
    """The arguments of a node."""
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_it_is_a_wave_where_it_can_be() -> None:
    made = outcome(cluster(2, 3), source([1.0, 2.0, 0.5] * 9), True, True, cost=FREE)
    assert made["world"].waved and made["lazy"]
    assert not outcome(cluster(2, 3), source([1.0]), True, False, cost=FREE)["world"].waved


@pytest.mark.parametrize(
    "cost", [EngineCost(engine="x", cold=1.5), EngineCost(engine="x", slowdown=((1, 1.0), (2, 1.5)))], ids=["cold", "co-run"]
)
def test_it_is_none_where_it_would_not_be_exact(cost: EngineCost) -> None:
    made = [outcome(cluster(2, 3), source([1.0, 2.0, 0.5] * 9), True, waves, cost=cost) for waves in (True, False)]
    assert not made[0]["world"].waved
    compare(*made)


def test_a_full_store_takes_the_general_path() -> None:
    what = job_of({"tasks": 40, "rows": [2], "per_row": 0.1, "per_batch": 0.0, "cv": 0.3, "width": 300, "rows_factor": 1.0,
                   "memory": 0, "follower": "", "partitions": 1, "cpus": 1})  # fmt: skip
    made = [outcome(cluster(2, 3), what, True, waves, cost=FREE, store_bytes=3 * 8_100) for waves in (True, False)]
    assert not made[0]["world"].waved
    assert made[0]["world"].journal.recorder.counters["spilled_bytes"] > 0
    compare(*made)
