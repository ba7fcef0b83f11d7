"""The short path of simple source tasks (`Quick`) gives what the general path gives, phase by phase: times, counters, blocks, memory.

Durations are added up in another order there, so that times agree to their last digits and not to the bit.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.sim.test_wave import COSTS, JOBS, NODES, fields, job_of
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, NodeSpec

MODELS = {"bulk": Bulk, "streaming": lambda: Streaming(queued_blocks=4)}


def outcome(where: ClusterSpec, spec: dict[str, Any], model: str, quick: bool, **more: Any) -> dict[str, Any]:
    """All that a run leaves, task by task; ``quick`` False: on the general path."""
    job, laws = job_of(spec)
    world = SimWorld(where, job, laws, Recorder(), waves=False, **more)
    if not quick:
        for stage in world._stages:
            stage.quick = [None] * len(stage.law.source)
    made: dict[str, Any] = {"world": world, "error": None}
    try:
        made["result"] = list(world.run(MODELS[model]()))
    except (OutOfMemory, RunFailed) as error:
        made["error"] = str(error)
    made["quick"] = any(stage.quick and any(stage.quick) for stage in world._stages)
    return made


def close(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of floats."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-9, abs=1e-9)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Everything but the objects, and samples of use, which begin and end where phases do."""
    a, b = one["world"], other["world"]
    assert one["error"] == other["error"]
    assert close(a.makespan_s, b.makespan_s)
    assert one.get("result") == other.get("result")
    assert a._blocks == b._blocks
    largest = max((q.bytes for s in a._stages for q in s.kinds if q), default=0)
    coming = largest + max(s.memory_bytes for s in a._stages)
    left, right = a.journal.recorder, b.journal.recorder
    assert left.counters.keys() == right.counters.keys()
    for name, value in left.counters.items():
        if name != "peak_memory_bytes":
            assert value == pytest.approx(right.counters[name], rel=1e-9, abs=1e-9), name
    assert close(sorted(left.spans), sorted(right.spans))
    for m, n in zip(a._machines, b._machines, strict=True):
        assert m.memory.used == n.memory.used
        # There an output is counted twice for a moment: where it was made, and in the store already. Here a task's memory is counted
        # while its launch is on the way.
        assert n.memory.peak <= m.memory.peak + largest
        assert m.memory.peak <= n.memory.peak + len(a._workers) * coming
        assert (m.store.used, m.store.peak, m.store.spilled) == (n.store.used, n.store.peak, n.store.spilled)
    assert a.stored_bytes == b.stored_bytes


@given(
    JOBS, NODES, COSTS, st.sampled_from([*MODELS]), st.integers(0, 3), st.sampled_from([True, False]), st.sampled_from([None, 2_000])
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_short_path_is_the_general_path(
    spec: dict[str, Any], nodes: list[NodeSpec], cost: EngineCost, model: str, seed: int, spans: bool, store: int | None
) -> None:
    where = ClusterSpec(
        nodes=tuple(NodeSpec(**{**fields(n), "name": f"g{i}", "memory_bytes": 2**34}) for i, n in enumerate(nodes))
    )
    # No two tasks end at the same time, where order would be chance.
    drawn = {**spec, "cv": 0.3, "per_batch": 0.5, "rows": [max(r, 1) for r in spec["rows"]]}
    more: dict[str, Any] = {"cost": cost, "seed": seed, "spans": spans, "store_bytes": store}
    short, general = (outcome(where, drawn, model, quick, **more) for quick in (True, False))
    event(f"short: {short['quick']}, error: {short['error'] is not None}")
    assert not general["quick"]
    same(short, general)


def test_it_is_short_where_it_can_be() -> None:
    spec = {"tasks": 20, "rows": [2], "per_row": 0.1, "per_batch": 0.5, "cv": 0.3, "width": 40, "rows_factor": 1.0, "memory": 0,
            "follower": "forward", "partitions": 1, "cpus": 1}  # fmt: skip
    where = ClusterSpec(nodes=(NodeSpec(count=2, cpus=2, memory_bytes=2**30),))
    made = [outcome(where, spec, "streaming", quick, cost=EngineCost(engine="x")) for quick in (True, False)]
    assert made[0]["quick"] and not made[1]["quick"]
    same(*made)
