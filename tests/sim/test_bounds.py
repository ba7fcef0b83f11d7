"""Lower bounds part by part, each computed by hand, and against random runs: none beats any of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.jobs import cluster, simulate, step, two_stages
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
from windtunnel.model import Job
from windtunnel.sim.judging.bounds import Bound, bound, lower_bound
from windtunnel.spec.cluster import ClusterSpec, DeviceSpec, DiskSpec, NetworkSpec, NodeSpec
from windtunnel.spec.plan import Concurrency, Resources, State
from windtunnel.spec.workload import Location


def test_the_largest_part_binds() -> None:
    assert Bound({"cpu": 3.0, "network": 5.0}).binds == "network"
    assert Bound({"cpu": 3.0, "network": 5.0}).seconds == 5.0
    assert (Bound({}).seconds, Bound({}).binds) == (0.0, "")


def test_cpu_device_and_its_link() -> None:
    # 12 tasks of 2 s on 4 CPUs; then 12 calls of 3 s on 2 devices of twice the speed; 12 × 1 GB in and 8 B out over two links.
    job = two_stages(
        12, step("a", per_batch=2.0, row_bytes_out=1e9), step("b", per_batch=3.0, row_bytes_out=8, work_class="device"),
        resources=Resources(cpus=0.0, gpus=1.0), state=State(kind="actor", load_s=5.0), concurrency=Concurrency(maximum=2),
    )  # fmt: skip
    node = NodeSpec(cpus=4, memory_bytes=2**36, gpus=DeviceSpec(count=2, speed=2.0, pcie_bytes_per_s=1e9))
    parts = bound(*job, ClusterSpec(nodes=(node,))).parts
    assert parts["cpu"] == pytest.approx(12 * 2 / 4)
    assert parts["device"] == pytest.approx(12 * 3 / 2 / 2)
    assert parts["device_link"] == pytest.approx(12 * (1e9 + 8) / 2e9)
    assert parts["workers:b"] == pytest.approx(5.0 + 12 * 3 / 2 / 2)
    assert parts["critical_path"] == pytest.approx(max(2.0, 5.0) + 3.0 / 2)
    assert set(parts) == {"cpu", "device", "device_link", "workers:b", "critical_path"}


@pytest.mark.parametrize(
    ("location", "name", "seconds"),
    [
        (Location(kind="local"), "disk_read", 40.0),  # 8 × 1 GB over two disks of 100 MB/s
        (Location(kind="remote", bandwidth_per_node=0.5e9), "remote_store", 8.0),
        (Location(kind="remote", bandwidth_per_node=9e9), "remote_store", 3.2),  # never faster than the network card
    ],
)
def test_source_bytes_over_what_can_read_them(location: Location, name: str, seconds: float) -> None:
    job = two_stages(8, step("a", per_batch=0.1, row_bytes_out=1), step("b"), size=10**9)
    where = cluster(4, 2, disk=DiskSpec(read_bytes_per_s=100e6), nic_bytes_per_s=1.25e9)
    found = bound(*job, where, location=location)
    assert found.parts[name] == pytest.approx(seconds)
    assert found.binds == name
    assert lower_bound(*job, where, location=location, times=3.0) == pytest.approx(3 * seconds)
    assert name not in bound(*job, where).parts


def exchange(rows: int, per_row: float) -> tuple[Job, tuple[object, ...]]:
    """4 tasks send 1 kB a row to 4 partitions."""
    return two_stages(4, step("a", row_bytes_out=1000), step("b", per_row=per_row), rows=rows, partitions=4)


def test_bytes_of_an_exchange_cross_the_network() -> None:
    # Of B = 4 MB rounding may keep 4 rows a task from being even: 3.984 MB. The consumers' W = 4 s of work need n = 2 CPUs of a
    # node for 2 s, so that not all of them can be on one node before; R = 2 × 1 MB/s. The bound is 3.984 MB / (R + B n / W).
    job = exchange(1000, 1e-3)
    found = bound(*job, cluster(2, 2, nic_bytes_per_s=1e6)).parts
    assert found["network"] == pytest.approx(4e6 * (1 - 16 / 4000) / (2e6 + 4e6 * 2 / 4))
    assert "network" not in bound(*job, cluster(4)).parts
    # What costs no CPU may all be done on one node; so may one row a task.
    assert "network" not in bound(*exchange(1000, 0.0), cluster(2, 2)).parts
    assert "network" not in bound(*exchange(1, 1.0), cluster(2, 2)).parts
    core = ClusterSpec(nodes=cluster(2, 2, nic_bytes_per_s=1e6).nodes, network=NetworkSpec(oversubscription=2.0))
    assert bound(*job, core).parts["network"] == pytest.approx(4e6 * (1 - 16 / 4000) / (1e6 + 4e6 * 2 / 4))


def test_who_asks_for_no_cpu_keeps_one_busy_unless_asleep() -> None:
    for work_class, seconds in (("cpu", 5.0), ("sleep", 0.0)):
        job, laws = two_stages(
            10, step("a", row_bytes_out=1), step("b", per_batch=1.0, work_class=work_class), resources=Resources(cpus=0.0)
        )
        assert bound(job, laws, cluster(2)).parts.get("cpu", 0.0) == pytest.approx(seconds)


@given(
    st.integers(1, 12), st.integers(1, 400), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.0, 1e-4, 1e-2]),
    st.sampled_from([1e4, 1e6]), st.sampled_from([1.0, 3.0]), st.sampled_from(["generated", "local", "remote"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_run_beats_any_part(
    tasks: int, rows: int, partitions: int, cpus: int, nodes: int, per_row: float, nic: float, core: float, kind: str, bulk: bool
) -> None:
    job = two_stages(
        tasks,
        step("a", per_row=1e-4, row_bytes_out=100),
        step("b", per_row=per_row),
        rows=rows,
        size=rows * 50,
        partitions=partitions,
    )
    location = Location(kind=kind, bandwidth_per_node=nic / 2 if kind == "remote" else None)  # type: ignore[arg-type]
    node = NodeSpec(count=nodes, cpus=cpus, memory_bytes=2**34, nic_bytes_per_s=nic, disk=DiskSpec(read_bytes_per_s=2e4))
    where = ClusterSpec(nodes=(node,), network=NetworkSpec(oversubscription=core, latency_s=0.0))
    world = simulate(where, job, Bulk() if bulk else Streaming(), location=location)
    for name, seconds in bound(*job, where, location=location).parts.items():
        assert world.makespan_s >= seconds * (1 - 1e-9), name
