"""Bottleneck timelines by hand: who binds when, by the stated rule; and the screen that sets engines side by side."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reports.records import NODE, record
from windtunnel.records.record import Recorder
from windtunnel.reports.bottleneck import BUSY, FULL, RATES, Segment, bottlenecks, longest, timeline
from windtunnel.reports.compare import build
from windtunnel.reports.metrics import Curve
from windtunnel.reports.render import html, words
from windtunnel.reports.render.screen import screen as draw
from windtunnel.reports.screen import screen, strip
from windtunnel.reports.usage import Usage, usage

EVIL = '"><script>alert(1)</script>{{ 7 * 7 }}'


def used(end: float = 10.0, hot: dict[str, Any] | None = None, **use: tuple[float, ...]) -> Usage:
    """Shares in equal stretches up to ``end``."""

    def curve(values: tuple[float, ...]) -> Curve:
        return Curve(tuple(i * end / len(values) for i in range(len(values))), values)

    return Usage(end, {n: curve(v) for n, v in use.items()}, {n: curve(v) for n, v in (hot or {}).items()}, {}, {})


def shown(*args: Any, **kwargs: Any) -> list[tuple[float, float, str, float, bool]]:
    """Segments as tuples."""
    return [(s.start_s, s.end_s, s.resource, pytest.approx(s.share), s.hot) for s in timeline(*args, **kwargs)]


def test_a_disk_first_and_a_device_then() -> None:
    assert shown(used(disk_read=(0.9, 0.8, 0.1, 0.0), device=(0.0, 0.2, 0.95, 0.85), cpu=(0.5, 0.5, 0.5, 0.5))) == [
        (0.0, 5.0, "disk_read", 0.85, False),
        (5.0, 10.0, "device", 0.9, False),
    ]


def test_below_the_threshold_a_run_waits() -> None:
    below = BUSY - 0.01
    assert shown(used(cpu=(below, 1.0), device=(0.1, 0.1))) == [
        (0.0, 5.0, "waiting", below, False),
        (5.0, 10.0, "cpu", 1.0, False),
    ]
    assert shown(used(cpu=(BUSY,)))[0][2] == "cpu"


def test_waiting_is_named_where_spans_say_why() -> None:
    run = used(cpu=(0.5, 0.5, 0.5, 0.5))
    waits = [("barrier", 0.0, 2.5), ("backpressure", 3.0, 5.0), ("barrier", 5.0, 6.0), ("barrier", 7.4, 8.0)]
    assert [s.resource for s in timeline(run, waits)] == ["barrier", "backpressure", "waiting"]
    busy = used(cpu=(1.0,))
    assert [s.resource for s in timeline(busy, waits)] == ["cpu"]


def test_a_training_loop_stands_before_the_backpressure_that_it_makes() -> None:
    run, pushed = used(4.0, cpu=(0.1, 0.1)), [("backpressure", 0.0, 4.0)]
    assert [s.resource for s in timeline(run, [*pushed, ("workers:train", 0.0, 4.0)])] == ["workers:train"]
    assert [s.resource for s in timeline(run, [*pushed, ("workers:train", 0.0, 0.5)])] == ["backpressure"]


def test_the_higher_share_binds_and_equal_ones_by_order() -> None:
    assert shown(used(cpu=(0.8,), driver=(0.9,)))[0][2] == "driver"
    assert shown(used(cpu=(1.0,), device=(1.0,), **{"workers:infer": (1.0,)}))[0][2] == "device"
    assert shown(used(cpu=(0.2,), **{"workers:infer": (0.8,)}))[0][2] == "workers:infer"


def test_a_link_of_one_node_binds_where_no_resource_of_all_does() -> None:
    assert shown(used(hot={"nic_down": (1.0,)}, nic_down=(0.25,), cpu=(0.3,))) == [(0.0, 10.0, "nic_down", 1.0, True)]
    assert shown(used(hot={"nic_down": (1.0,)}, nic_down=(0.25,), cpu=(0.8,)))[0][2:] == ("cpu", 0.8, False)


def test_a_full_store_binds_where_nothing_is_busy() -> None:
    assert shown(used(cpu=(0.3,), store=(FULL,), memory=(1.0,)))[0][2:] == ("store", FULL, False)
    assert shown(used(cpu=(0.8,), store=(1.0,)))[0][2] == "cpu"
    assert shown(used(hot={"memory": (0.95,)}, cpu=(0.3,), memory=(0.4,)))[0][2:] == ("memory", 0.95, True)


@given(
    st.dictionaries(
        st.sampled_from([*RATES, "store", "workers:x"]), st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1
    ),
    st.floats(0.1, 1e6),
)
def test_segments_cover_the_run_and_neighbours_differ(shares: dict[str, list[float]], end: float) -> None:
    segments = timeline(used(end, **{n: tuple(v) for n, v in shares.items()}))
    assert segments[0].start_s == 0.0 and segments[-1].end_s == end
    for one, other in zip(segments, segments[1:], strict=False):
        assert one.end_s == other.start_s
        assert (one.resource, one.hot) != (other.resource, other.hot)
    assert sum(share for _, share in longest(segments)) == pytest.approx(1.0)
    assert all(s.share >= BUSY for s in segments if s.resource in RATES)


def test_longest_adds_up() -> None:
    segments = [Segment(0, 2, "cpu", 1), Segment(2, 3, "waiting", 0), Segment(3, 4, "cpu", 1)]
    assert longest(segments) == (("cpu", 0.75), ("waiting", 0.25))
    assert longest([]) == ()


# -- from records -----------------------------------------------------------------------------------------------------


def simulated(label: str = "sim:bulk", makespan_s: float = 8.0, **changes: Any) -> Any:
    """A simulated run: the disk for half of its time, a device then; a fault in between, half of its memory full."""
    recorder = Recorder()
    for number in range(4):
        recorder.sample("use:disk_write", number * makespan_s / 4, 1.0 if number < 2 else 0.0)
        recorder.sample("use:device", number * makespan_s / 4, 0.0 if number < 2 else 0.9)
        recorder.sample("use:store", number * makespan_s / 4, 0.5)
        recorder.sample("spill_bytes_per_s", number * makespan_s / 4, 1e6 if number < 2 else 0.0)
    recorder.span("fault", changes.pop("fault", "node_lost worker[1]"), makespan_s / 2, makespan_s)
    counters = {"lower_bound_s": 4.0, "bound_s:cpu": 4.0, "bound_s:critical_path": 1.0, "lost_device_s": 2.0, "tasks": 4}
    return record(
        "sim:bulk",
        makespan_s,
        label=label,
        counters=counters,
        samples=recorder.sample_table(),
        spans=recorder.span_table(),
        **changes,
    )


def test_the_timeline_of_a_simulated_record() -> None:
    assert [(s.resource, s.start_s, s.end_s) for s in bottlenecks(simulated())] == [
        ("disk_write", 0.0, 4.0),
        ("device", 4.0, 8.0),
    ]


def test_a_real_record_shows_cpu_memory_and_devices() -> None:
    recorder = Recorder()
    for time, cores in ((0.0, 0.2), (2.0, 2.0), (4.0, 0.5)):  # each since the last one
        recorder.sample("cpu_cores", time, cores)
        recorder.sample("memory_bytes", time, 2**31)
    recorder.span("compute", "infer", 2.0, 4.0)
    operators = [{"name": "infer", "inputs": [], "resources": {"cpus": 0.0, "gpus": 1.0}}]
    node = {**NODE, "gpus": {"count": 1}}
    run = record(
        "bulk", 4.0, samples=recorder.sample_table(), spans=recorder.span_table(), cluster_spec={"nodes": [node]},
        workload_spec={"dataset": {}, "pipeline": {"operators": operators}},
    )  # fmt: skip
    found = usage(run)
    assert found.use["cpu"] == Curve((0.0, 0.0, 2.0), (0.1, 1.0, 0.25))
    assert set(found.use["memory"].values) == {0.5}
    assert [s.resource for s in bottlenecks(run)] == ["cpu", "device"]


def test_a_strip_holds_what_the_table_says() -> None:
    found = strip(simulated())
    assert (found.bound_s, found.bound_by, found.of_optimum) == (4.0, "cpu", 0.5)
    assert found.busiest == (("device", 0.5), ("disk_write", 0.5))
    assert set(found.lines) == {"disk", "device"}
    assert found.faults == (("node_lost worker[1]", 4.0, 8.0),)
    cells = dict(zip(words.BOTTLENECK_HEADS, words.bottleneck_cells(found), strict=True))
    assert (cells["bound by"], cells["of optimum"], cells["lost work"]) == ("CPU", "50%", "2 s of devices")
    assert cells["bottlenecks"] == "device 50%, disk write 50%"


def test_engines_share_a_time_axis() -> None:
    slow, fast = simulated("slow", 8.0), simulated("fast", 4.0)
    found = screen("two", [slow, fast])
    assert [s.label for s in found.strips] == ["fast", "slow"] and found.end_s == 8.0
    root = ElementTree.fromstring(re.sub("<title>.*?</title>", "", draw(found)))
    devices = [r for r in root.iter("rect") if r.get("class") == "b-device"]
    # The fast run's device binds from 2 to 4 s, the slow one's from 4 to 8 s: half as wide, and where the slow one's disk still binds.
    (one, other) = [(float(r.get("x") or 0), float(r.get("width") or 0)) for r in devices]
    assert other[1] == pytest.approx(2 * one[1], abs=0.1)
    assert other[0] == pytest.approx(one[0] + one[1], abs=0.1)


def test_a_failed_run_is_drawn_as_far_as_it_came() -> None:
    failed = replace(simulated("gone"), makespan_s=None, status="out_of_memory", reason="node 0 ran out of memory")
    found = screen("one", [failed, simulated("good", 16.0)])
    assert [s.label for s in found.strips] == ["good", "gone"]
    assert "out of memory" in draw(found)
    assert found.strips[1].end_s == 6.0 and found.strips[1].of_optimum is None


def test_what_records_say_is_shown_and_never_run() -> None:
    evil = simulated(EVIL, fault=EVIL)
    recorder = Recorder()
    recorder.sample(f"use:workers:{EVIL}", 0.0, 1.0)
    page = html.render(build([evil, replace(simulated("other"), samples=recorder.sample_table())]))
    assert 'id="bottlenecks"' in page
    assert "<script" not in page and "{{ 7 * 7 }}" in page
