"""Timelines and traces: nothing overlaps on a line, everything is there, and a page stays small."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.reports.records import record
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.reports.compare import build
from windtunnel.reports.render import html
from windtunnel.reports.render.trace import chrome_trace
from windtunnel.reports.timeline import MOST_BARS, MOST_LANES, Bar, merged, timeline, tracks

intervals = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)).map(lambda t: (t[0], t[0] + t[1])), max_size=40)


def overlapping() -> RunRecord:
    """A worker that fetches the next block while it computes, a barrier and backpressure."""
    recorder = Recorder()
    recorder.span("compute", "scan", 0.0, 1.0, worker=0, partition=0, rows=10, bytes=20)
    recorder.span("fetch", "scan", 0.5, 1.5, worker=0, partition=1)
    recorder.span("compute", "scan", 1.5, 2.0, worker=0, partition=1)
    recorder.span("barrier", "scan", 0.2, 2.0)
    recorder.span("blocked", "scan", 0.1, 0.3)
    recorder.sample("queue_bytes:scan", 1.0, 5.0)
    return record("bulk", 2.0, spans=recorder.span_table(), samples=recorder.sample_table())


def crowded(workers: int, tasks: int) -> RunRecord:
    recorder = Recorder()
    for worker in range(workers):
        for task in range(tasks):
            recorder.span("compute", "scan", task / tasks, (task + 0.9) / tasks, worker=worker, partition=task)
    return record("bulk", 1.0, spans=recorder.span_table())


def test_lanes_tell_waits_of_stages_from_work() -> None:
    lanes = timeline("title", overlapping()).lanes
    assert [lane.name for lane in lanes] == ["barrier scan", "blocked scan", "worker 0", "worker 0, beside"]
    assert [b.kind for b in lanes[2].bars] == ["compute", "compute"]


@given(intervals)
def test_tracks_never_overlap_and_leave_no_one_out(pairs: list[tuple[float, float]]) -> None:
    ordered = sorted(pairs, key=lambda p: (p[0], -p[1]))
    found = tracks([p[0] for p in ordered], [p[1] for p in ordered])
    assert len(found) == len(ordered)
    for track in set(found):
        mine = [p for p, t in zip(ordered, found, strict=True) if t == track]
        assert all(before[1] <= after[0] for before, after in pairwise(mine))


@given(intervals, st.floats(0.01, 5))
def test_merging_loses_no_span_and_no_time(pairs: list[tuple[float, float]], pixel: float) -> None:
    bars = [Bar("compute", "scan", start, end, 1) for start, end in sorted(pairs)]
    found = merged(bars, pixel)
    assert sum(b.count for b in found) == len(bars)
    if bars:
        assert (found[0].start_s, max(b.end_s for b in found)) == (bars[0].start_s, max(b.end_s for b in bars))


def test_a_short_spill_beside_a_long_task_stays_visible() -> None:
    found = merged([Bar("spill", "scan", 0.0, 0.5, 1), Bar("compute", "scan", 0.5, 90.0, 1)], 1.0)
    assert [b.kind for b in found] == ["spill", "compute"]


def test_many_workers_and_tasks_make_a_small_page() -> None:
    records = [crowded(40, 3_000)]
    comparison = build([*records, *(record("bulk", 1.0, 0, label=f"bulk {n}", spans=records[0].spans) for n in range(4))])
    assert all(len(t.lanes) == MOST_LANES and t.hidden_lanes == 40 - MOST_LANES for t in comparison.timelines)
    assert sum(len(lane.bars) for t in comparison.timelines for lane in t.lanes) <= MOST_BARS
    assert len(html.render(comparison).encode()) < 3_000_000


def test_complete_events_of_a_thread_do_not_overlap() -> None:
    events = json.loads(json.dumps(chrome_trace([overlapping()]), allow_nan=False))["traceEvents"]
    threads: dict[int, list[dict[str, Any]]] = {}
    for event in (e for e in events if e["ph"] == "X"):
        threads.setdefault(event["tid"], []).append(event)
    assert sum(map(len, threads.values())) == 5
    for spans in threads.values():
        assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(spans))
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names.keys() == threads.keys()


def test_events_of_a_trace_have_the_fields_of_the_format() -> None:
    trace = chrome_trace([overlapping()])
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    needed = {
        "X": {"pid", "tid", "ts", "dur", "name", "cat", "args"},
        "C": {"pid", "ts", "name", "args"},
        "M": {"pid", "name", "args"},
    }
    for event in trace["traceEvents"]:
        assert needed[event["ph"]] <= event.keys()
    counter = next(e for e in trace["traceEvents"] if e["ph"] == "C")
    assert counter["args"] == {"queue_bytes:scan": 5.0} and counter["ts"] == 1e6
