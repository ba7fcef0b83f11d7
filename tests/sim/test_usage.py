"""Use of resources over time: averages against plain sums, runs computed by hand, and work that was lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.jobs import FREE, cluster, simulate, source, step, two_stages
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.models.traits import Traits
from windtunnel.records.record import Recorder
from windtunnel.sim.judging.bounds import volumes
from windtunnel.sim.world.meter import BUCKETS, Meter
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, DeviceSpec, DiskSpec, Fault, NodeSpec
from windtunnel.spec.plan import Concurrency, Resources, State
from windtunnel.spec.workload import Location

STRETCH = st.tuples(st.integers(0, 1), st.floats(0, 100), st.floats(0, 30), st.floats(0.1, 10))


@given(st.lists(STRETCH, min_size=1, max_size=40), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_averages_are_amounts_over_lengths(stretches: list[tuple[int, float, float, float]], often: int) -> None:
    meter, end = Meter(2), max(start + length for _, start, length, _ in stretches) + 0.5
    for number, (row, start, length, amount) in enumerate(stretches):
        meter.log += (row, start, start + length, amount)
        if number % often == 0:
            meter.flush()
    starts, averages = meter.averages(end)
    assert BUCKETS / 2 <= len(starts) <= BUCKETS
    lengths = np.diff(np.append(starts, end))
    for row in (0, 1):
        amounts = [a for r, _, _, a in stretches if r == row]
        assert meter.totals[row] == pytest.approx(sum(amounts))
        assert (averages[row] * lengths).sum() == pytest.approx(sum(amounts))
        at, upto = starts[len(starts) // 2], starts[len(starts) // 2] + lengths[len(starts) // 2]
        if all(length > 1e-2 for r, _, length, _ in stretches if r == row):  # none of them counts as a point
            inside = [
                a * max(0.0, min(upto, s + d) - max(at, s)) / d for r, s, d, a in stretches if r == row
            ]  # fmt: skip
            assert averages[row, len(starts) // 2] * (upto - at) == pytest.approx(sum(inside), abs=1e-9)


def curve(world: SimWorld, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of a sample."""
    points = [(t, v) for n, t, v in world.journal.recorder.samples if n == name]
    return tuple(np.array(points).T) if points else (np.empty(0), np.empty(0))  # type: ignore[return-value]


def mean(world: SimWorld, name: str, start: float, end: float) -> float:
    """The average of a sample between two times."""
    times, values = curve(world, name)
    edges = np.append(times, world.makespan_s)
    shares = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0.0, None)
    return float((shares * values).sum() / shares.sum())


@pytest.mark.parametrize("waves", [True, False])
def test_cpus_in_use(waves: bool) -> None:
    # Two CPUs, tasks of 4, 2 and 4 s: both are busy until 6 s, when one of them has nothing left; the other ends at 6 s, too.
    world = simulate(cluster(2), source([4.0, 2.0, 3.0]), Bulk(), waves=waves)
    assert world.makespan_s == pytest.approx(5.0)
    assert mean(world, "use:cpu", 0.0, 3.9) == pytest.approx(1.0, abs=1e-5)
    assert mean(world, "use:cpu", 4.1, 5.0) == pytest.approx(0.5, abs=1e-5)
    assert world.journal.recorder.counters["busy_cpu_s"] == pytest.approx(9.0)


@pytest.mark.parametrize("spans", [True, False])
def test_a_disk_first_and_a_device_then(spans: bool) -> None:
    # Eight partitions of 500 MB are read at 100 MB/s (40 s, all the time), then 8 calls of 10 s run on two devices (40 s).
    job, laws = two_stages(
        8, step("a", row_bytes_out=1), step("b", per_batch=10.0, row_bytes_out=1, work_class="device"), size=500_000_000,
        resources=Resources(cpus=0.0, gpus=1.0),
    )  # fmt: skip
    node = NodeSpec(cpus=8, memory_bytes=2**40, gpus=DeviceSpec(count=2), disk=DiskSpec(read_bytes_per_s=100e6))
    world = SimWorld(ClusterSpec(nodes=(node,)), job, laws, Recorder(), cost=FREE, spans=spans, location=Location(kind="local"))
    world.run(Bulk())
    assert world.makespan_s == pytest.approx(80.0, rel=1e-3)
    assert mean(world, "use:disk_read", 0.0, 39.0) == pytest.approx(1.0, abs=1e-5)
    assert mean(world, "use:device", 0.0, 39.0) == 0.0
    assert mean(world, "use:disk_read", 41.0, 80.0) == 0.0
    assert mean(world, "use:device", 41.0, 79.0) == pytest.approx(1.0, abs=1e-5)
    counters = world.journal.recorder.counters
    assert counters["busy_device_s"] == pytest.approx(80.0)
    assert "lost_device_s" not in counters


def test_the_busiest_link_is_told_apart() -> None:
    # Four nodes send 10 MB each to the one that runs the only task: its down link is full, a quarter of all down links.
    job = two_stages(4, step("a", per_batch=1.0, row_bytes_out=10e6), step("b", per_batch=0.1), partitions=1)
    world = simulate(cluster(1, 4, nic_bytes_per_s=1e6), job, Bulk())
    begin, end = 1.5, 30.0
    assert mean(world, "hot:nic_down", begin, end) == pytest.approx(1.0, abs=0.01)
    assert mean(world, "use:nic_down", begin, end) == pytest.approx(0.25, abs=0.01)
    assert mean(world, "hot:nic_up", begin, end) == pytest.approx(1 / 3, abs=0.02)


def test_the_driver_and_the_queue_of_a_stage() -> None:
    # A launch takes 0.5 s and a task 1 s on 8 CPUs: the driver is what all wait for.
    cost = FREE.__class__(**{**{f: getattr(FREE, f) for f in FREE.__dataclass_fields__}, "launch_s": 0.5})
    world = simulate(cluster(8), source([1.0] * 40), Bulk(), cost=cost, waves=False)
    assert mean(world, "use:driver", 0.0, 19.0) == pytest.approx(1.0, abs=0.02)
    assert world.journal.recorder.counters["busy_driver_s"] == pytest.approx(20.0)
    # Blocks of 10 bytes wait for a stage that has not begun: 6 of them, until it takes them.
    job = two_stages(6, step("a", per_batch=1.0, row_bytes_out=10), step("b", per_batch=5.0))
    world = simulate(cluster(6), job, Bulk())
    assert mean(world, "queue_bytes:b", 1.5, 5.0) == pytest.approx(60.0)


FAULTS = st.lists(
    st.builds(
        Fault, kind=st.sampled_from(["worker_killed", "node_lost"]), at_s=st.floats(0.5, 60.0),
        target=st.sampled_from(["worker[0]", "worker[1]"]), until_s=st.just(90.0),
    ),
    max_size=3,
)  # fmt: skip


@given(FAULTS, st.integers(1, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_lost_work_is_apart_and_useful_work_is_counted_once(faults: list[Fault], tasks: int, bulk: bool) -> None:
    job, laws = two_stages(
        tasks, step("a", per_batch=2.0, row_bytes_out=100), step("b", per_batch=3.0, row_bytes_out=1, work_class="device"),
        resources=Resources(cpus=0.0, gpus=1.0),
    )  # fmt: skip
    nodes = NodeSpec(count=3, cpus=2, memory_bytes=2**34, gpus=DeviceSpec(count=1, pcie_bytes_per_s=1e18))
    kept = tuple({(f.kind, f.target): f for f in faults}.values())
    world = simulate(ClusterSpec(nodes=(nodes,), faults=kept), (job, laws), Bulk() if bulk else Streaming())
    counters, work = world.journal.recorder.counters, volumes(job, laws)
    assert counters["busy_device_s"] == pytest.approx(sum(v.device_s for v in work))
    assert counters["busy_cpu_s"] == pytest.approx(sum(v.slot_s for v in work))
    if not kept:
        assert "lost_device_s" not in counters
    times, values = curve(world, "lost:device")
    lengths = np.diff(np.append(times, world.makespan_s))
    if all(f.kind == "worker_killed" for f in kept):  # shares of three devices
        assert (values * lengths).sum() * 3 == pytest.approx(counters.get("lost_device_s", 0.0), abs=1e-3)


def test_a_killed_attempt_is_lost() -> None:
    # One device; its worker dies after 4 of 10 s, and the task runs again for 10.
    job = source([10.0], work_class="device")
    node = NodeSpec(cpus=1, memory_bytes=2**34, gpus=DeviceSpec(count=1, pcie_bytes_per_s=1e18))
    job = (job[0].__class__(stages=(job[0].stages[0].__class__(
        index=0, name="a", operators=("a",), inputs=(), partitions=1, resources=Resources(cpus=0.0, gpus=1.0)),)), job[1])  # fmt: skip
    fault = Fault(kind="worker_killed", at_s=4.0, target="worker[0]")
    world = simulate(ClusterSpec(nodes=(node,), faults=(fault,)), job, Bulk())
    counters = world.journal.recorder.counters
    assert counters["lost_device_s"] == pytest.approx(4.0)
    assert counters["busy_device_s"] == pytest.approx(10.0)
    assert mean(world, "lost:device", 0.0, 4.0) == pytest.approx(1.0, abs=0.02)


def test_shares_are_of_what_is_there() -> None:
    # Two nodes with a CPU each run 40 tasks of 1 s; one is away from 5.5 to 15 s. The CPUs that are there are busy all the time.
    for nodes in (2, 70):
        fault = Fault(kind="node_lost", at_s=5.5, target="worker[1]", until_s=15.0)
        where = ClusterSpec(nodes=(NodeSpec(count=nodes, cpus=1, memory_bytes=2**34),), faults=(fault,))
        world = simulate(where, source([1.0] * 20 * nodes), Bulk())
        assert mean(world, "use:cpu", 0.0, 4.5) == pytest.approx(1.0, abs=1e-5)
        assert mean(world, "use:cpu", 6.0, 14.0) == pytest.approx(1.0, abs=1e-3)
        assert mean(world, "use:cpu", 16.0, 19.0) == pytest.approx(1.0, abs=1e-3)
    late = Fault(kind="node_joins", at_s=10.0, target="worker[1]")
    where = ClusterSpec(nodes=(NodeSpec(count=2, cpus=1, memory_bytes=2**34),), faults=(late,))
    world = simulate(where, source([1.0] * 30), Bulk())
    assert mean(world, "use:cpu", 1.0, 9.0) == pytest.approx(1.0, abs=1e-3)
    assert mean(world, "use:cpu", 11.0, 19.0) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("device", [True, False])
def test_an_actor_pool_is_in_use_while_its_actors_work(device: bool) -> None:
    # One actor runs 20 calls of 0.5 s, each fetched while it works on the one before; its pool may have two.
    job = two_stages(
        20, step("a", per_batch=0.1, row_bytes_out=10), step("b", per_batch=0.5, work_class="device" if device else "cpu"),
        resources=Resources(cpus=0.0, gpus=1.0) if device else Resources(cpus=0.0),
        state=State(kind="actor"), concurrency=Concurrency(minimum=1, maximum=2),
    )  # fmt: skip
    node = NodeSpec(cpus=1, memory_bytes=2**34, gpus=DeviceSpec(count=2, pcie_bytes_per_s=1e18))
    world = simulate(ClusterSpec(nodes=(node,)), job, Streaming(), traits=Traits(prefetch=True))
    used = mean(world, "use:workers:b", 0.0, world.makespan_s) * world.makespan_s * 2
    if device:
        assert used == pytest.approx(10.0, rel=1e-3)
    else:  # beside the sources on a single CPU calls take longer
        assert 10.0 * (1 - 1e-3) <= used <= 2 * world.makespan_s * (1 + 1e-9)
