"""Sharing rules on examples that can be computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import OutOfMemory
from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.hardware.cpu import CoRun, Shared, cpu_rate
from windtunnel.sim.hardware.disk import Disk
from windtunnel.sim.hardware.gpu import check_device_memory, device_seconds
from windtunnel.sim.hardware.memory import Memory
from windtunnel.sim.hardware.network import Network, max_min
from windtunnel.sim.hardware.store import ObjectStore
from windtunnel.spec.cluster import DeviceSpec, DiskSpec


def test_max_min_by_hand() -> None:
    """Links of 10, 10 and 5: flow 0 on link 0; 1 on links 0 and 1; 2 on links 1 and 2; 3 on link 2."""
    rates = max_min([(0,), (0, 1), (1, 2), (2,)], {0: 10.0, 1: 10.0, 2: 5.0})
    assert rates == [5.0, 5.0, 2.5, 2.5]


def test_max_min_gives_what_others_cannot_use() -> None:
    assert max_min([(0, 1), (0,)], {0: 10.0, 1: 2.0}) == [2.0, 8.0]
    assert max_min([], {}) == []


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), max_size=12))
@settings(max_examples=60, deadline=None)
def test_max_min_fills_links_and_never_overfills(flows: list[list[int]]) -> None:
    capacity = {link: 1.0 + link for link in range(5)}
    rates = max_min(flows, capacity)
    load = {link: sum(r for f, r in zip(flows, rates, strict=True) if link in f) for link in capacity}
    assert all(load[link] <= capacity[link] * (1 + 1e-9) for link in capacity)
    for links in flows:  # every flow has a bottleneck: a full link
        assert any(load[link] >= capacity[link] * (1 - 1e-9) for link in links)


def _network(
    transfers: list[tuple[float, int, int, int]], oversubscription: float = 1.0, latency: float = 0.0, slow: float | None = None
) -> list[float]:
    """Finishing times of (start, source, target, bytes) on three nodes of 10 bytes/s; node 2's links halve at ``slow``."""
    clock = Clock()
    network = Network(clock, [10.0] * 3, oversubscription, latency)
    if slow is not None:
        Timer(clock, lambda _: network.scale(2, 0.5)).arm(slow)
    ends = [0.0] * len(transfers)

    def begin(i: int) -> None:
        def done(_: object) -> None:
            ends[i] = clock.now

        _, source, target, size = transfers[i]
        network.transfer(source, target, size, done, None)

    for i, (start, *_) in enumerate(transfers):
        Timer(clock, lambda _, i=i: begin(i)).arm(start)
    clock.run()
    return ends


def _fluid(
    transfers: list[tuple[float, int, int, int]], oversubscription: float, latency: float, slow: float | None
) -> list[float]:
    """The same by the definition: all rates anew whenever anything begins, ends or changes."""
    capacity = dict.fromkeys(range(6), 10.0) | ({6: 30.0 / oversubscription} if oversubscription > 1.0 else {})
    links = [(a, 3 + b, 6) if 6 in capacity else (a, 3 + b) for _, a, b, _ in transfers]
    begins = [start + latency for start, *_ in transfers]
    left, ends, now = [float(size) for *_, size in transfers], [math.inf] * len(transfers), 0.0
    while math.inf in ends:
        if slow is not None and now >= slow:
            capacity[2] = capacity[5] = 5.0
        under_way = [i for i, begin in enumerate(begins) if begin <= now and ends[i] == math.inf]
        rates = dict(zip(under_way, max_min([links[i] for i in under_way], capacity), strict=True))
        coming = [t for t in (*begins, slow or 0.0) if t > now]
        step = min([*(left[i] / rate for i, rate in rates.items()), *(t - now for t in coming)])
        to = min([t for t in coming if t - now <= step], default=now + step)
        for i, rate in rates.items():
            left[i] -= rate * (to - now)
            if left[i] < 1e-9:
                ends[i] = to
        now = to
    return ends


FLOWS = st.lists(
    st.tuples(st.integers(0, 40).map(lambda n: n / 4), st.integers(0, 2), st.integers(0, 2), st.integers(1, 60)),
    min_size=1,
    max_size=9,
)


@given(FLOWS, st.sampled_from([1.0, 3.0]), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([None, 1.0, 3.3]))
@settings(max_examples=150, deadline=None)
def test_flows_alone_or_not_end_when_a_fluid_would(
    transfers: list[tuple[float, int, int, int]], oversubscription: float, latency: float, slow: float | None
) -> None:
    """A flow that finds its links free is told its end at once; whoever comes later, and slower links, must still count."""
    expected = _fluid(transfers, oversubscription, latency, slow)
    assert _network(transfers, oversubscription, latency, slow) == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_flows_into_one_node_share_its_link() -> None:
    assert _network([(0.0, 0, 2, 100), (0.0, 1, 2, 100)]) == pytest.approx([20.0, 20.0])


def test_a_flow_speeds_up_when_the_other_ends() -> None:
    """Both at 5 until the short one ends at 10; the long one has 50 left at 10 a second."""
    assert _network([(0.0, 0, 2, 50), (0.0, 1, 2, 100)]) == pytest.approx([10.0, 15.0])


def test_a_late_flow_takes_its_share() -> None:
    assert _network([(0.0, 0, 2, 100), (5.0, 1, 2, 25)]) == pytest.approx([12.5, 10.0])


def test_the_core_limits_all() -> None:
    """A core of 15: two flows that share no other link get 7.5 each."""
    assert _network([(0.0, 0, 1, 75), (0.0, 1, 2, 75)], oversubscription=2.0) == pytest.approx([10.0, 10.0])
    assert _network([(0.0, 0, 1, 75), (0.0, 1, 2, 75)]) == pytest.approx([7.5, 7.5])


def test_disk_readers_share_and_writers_do_not_disturb_them() -> None:
    clock = Clock()
    disk = Disk(clock, DiskSpec(read_bytes_per_s=100.0, write_bytes_per_s=10.0))
    ends: dict[str, float] = {}
    for name, size in (("a", 100), ("b", 300)):
        disk.read(size, lambda n: ends.__setitem__(n, clock.now), name)
    disk.write(30, lambda n: ends.__setitem__(n, clock.now), "w")
    clock.run()
    assert ends == pytest.approx({"a": 2.0, "b": 4.0, "w": 3.0})
    assert (disk.read_bytes, disk.written_bytes) == (400, 30)


def test_a_spinning_disk_goes_to_a_place_before_it_reads_there() -> None:
    """A drive of 100 B/s and a second a seek: 100 bytes in one place take 2 s, in four 5 s; two streams lose a second every 100 bytes."""
    spec = DiskSpec(read_bytes_per_s=100.0, write_bytes_per_s=100.0, kind="hdd", seek_s=1.0, chunk_bytes=100)
    assert _hdd(spec, {"a": (100, 1)}) == {"a": pytest.approx(2.0)}
    assert _hdd(spec, {"a": (100, 4)}) == {"a": pytest.approx(5.0)}
    # Each needs 200 units of 100 a second alone; half of that is useful where they take turns.
    assert _hdd(spec, {"a": (100, 1), "b": (100, 1)}) == {"a": pytest.approx(8.0), "b": pytest.approx(8.0)}


def test_streams_on_drives_of_their_own_do_not_disturb_each_other() -> None:
    """Two drives of 100 B/s together: one stream gets 50, two get 50 each; of three, two share a drive and lose a third of its time."""
    spec = DiskSpec(read_bytes_per_s=100.0, write_bytes_per_s=100.0, kind="hdd", drives=2, seek_s=1.0, chunk_bytes=100)
    assert _hdd(spec, {"a": (100, 0)}) == {"a": pytest.approx(2.0)}
    assert _hdd(spec, {"a": (100, 0), "b": (100, 0)}) == {"a": pytest.approx(2.0), "b": pytest.approx(2.0)}
    three = _hdd(spec, {"a": (100, 0), "b": (100, 0), "c": (100, 0)})
    assert three["a"] == pytest.approx(300 / (50 + 50 * 100 / 150))


def test_reads_and_writes_of_a_spinning_disk_share_its_arm() -> None:
    spec = DiskSpec(read_bytes_per_s=100.0, write_bytes_per_s=50.0, kind="hdd", seek_s=0.0, chunk_bytes=100)
    clock = Clock()
    disk, ends = Disk(clock, spec), {}
    disk.read(100, lambda n: ends.__setitem__(n, clock.now), "r")
    disk.write(50, lambda n: ends.__setitem__(n, clock.now), "w")  # as long as a read of 100
    clock.run()
    assert ends == {"r": pytest.approx(2.0), "w": pytest.approx(2.0)}


def _hdd(spec: DiskSpec, reads: dict[str, tuple[int, int]]) -> dict[str, float]:
    """When each of these reads (bytes, places), begun together, ends."""
    clock = Clock()
    disk, ends = Disk(clock, spec), dict[str, float]()
    for name, (size, places) in reads.items():
        disk.read(size, lambda n: ends.__setitem__(n, clock.now), name, places)
    clock.run()
    return ends


def test_a_full_disk_is_a_failure() -> None:
    disk = Disk(Clock(), DiskSpec(capacity_bytes=10))
    with pytest.raises(OutOfMemory, match="disk is full"):
        disk.write(11, lambda _: None, None)


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_processor_sharing_conserves_work(works: list[float], cpus: int) -> None:
    """All begin at once: the last ends when all work is done or the longest is, whichever is later."""
    clock = Clock()
    cpu = Shared(clock, cpu_rate(cpus))
    ends: list[float] = []
    for work in works:
        cpu.add(work, 1.0, lambda _: ends.append(clock.now), None)
    clock.run()
    assert len(ends) == len(works)
    assert max(ends) >= max(sum(works) / cpus, max(works)) * (1 - 1e-9)
    if len(works) > cpus == 1:
        assert max(ends) == pytest.approx(sum(works))


@given(
    st.lists(st.tuples(st.floats(0, 2.0), st.floats(0.01, 5.0), st.floats(0, 3.0)), min_size=1, max_size=12), st.integers(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_co_running_users_finish_when_their_rates_say(users: list[tuple[float, float, float]], cpus: int) -> None:
    """Against a simulation in small steps of time: each progresses at its own rate, which changes as others come and go."""
    points = ((1.0, 1.0), (2.0, 1.5), (4.0, 2.0))
    clock = Clock()
    cpu = CoRun(clock, cpus, points)
    ends: dict[int, float] = {}
    for i, (start, work, felt) in enumerate(users):
        Timer(
            clock, lambda _, i=i, work=work, felt=felt: cpu.add(work, 1.0, felt, lambda n: ends.__setitem__(n, clock.now), i)
        ).arm(start)
    clock.run()
    assert len(ends) == len(users) and len(cpu) == 0 and cpu.load == 0
    left, now, expected = {i: u[1] for i, u in enumerate(users)}, 0.0, dict[int, float]()
    while left:
        active = [i for i in left if users[i][0] <= now]
        load = len(active)
        law = 1.0 if min(load, cpus) <= 1 else 1.5 if min(load, cpus) == 2 else 1.75 if min(load, cpus) == 3 else 2.0
        rates = {i: min(1.0, cpus / load) / (1 + users[i][2] * (law - 1)) for i in active}
        upcoming = [users[i][0] - now for i in left if users[i][0] > now]
        step = min([left[i] / rates[i] for i in active] + upcoming)
        now += step
        for i in active:
            left[i] -= step * rates[i]
            if left[i] <= 1e-9:
                expected[i] = now
                del left[i]
    assert ends == pytest.approx(expected, abs=1e-6)


def test_memory_breaks_above_its_limit() -> None:
    memory = Memory(3, 100, Clock())
    memory.take(100, "x")
    with pytest.raises(OutOfMemory, match=r"node 3 ran out of memory: the state of 'b' brings it to 101 B"):
        memory.take(1, "the state of 'b'")


def test_the_store_says_what_does_not_fit() -> None:
    memory = Memory(0, 1000, Clock())
    store = ObjectStore(100, memory)
    assert store.put(60) and not store.put(41) and store.put(40)
    assert (store.used, store.spilled, memory.used, store.peak) == (100, 41, 100, 100)
    store.free(60)
    assert (store.used, memory.used) == (40, 40)


def test_devices() -> None:
    spec = DeviceSpec(count=1, memory_bytes=100, pcie_bytes_per_s=10.0, speed=2.0)
    assert device_seconds(spec, 4.0, 30.0) == 5.0
    check_device_memory(spec, 60, 40, "infer")
    with pytest.raises(OutOfMemory, match="operator 'infer' needs 101 B of device memory"):
        check_device_memory(spec, 61, 40, "infer")


def test_reads_and_writes_share_a_volume_with_one_limit() -> None:
    """100 bytes each way at 100 a second: one second apart, two together."""
    ended: dict[str, float] = {}
    for total, expected in ((0.0, 1.0), (100.0, 2.0)):
        clock = Clock()
        disk = Disk(clock, DiskSpec(read_bytes_per_s=100.0, write_bytes_per_s=100.0, total_bytes_per_s=total))
        disk.read(100, lambda name: ended.__setitem__(name, clock.now), "read")
        disk.write(100, lambda name: ended.__setitem__(name, clock.now), "write")
        clock.run()
        assert ended == {"read": pytest.approx(expected), "write": pytest.approx(expected)}
