"""Runs as a Chrome trace (the JSON object format, "complete" and "counter" events), which Perfetto opens.

Format: "Trace Event Format", Google, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. One
process a run, one thread a worker; times in microseconds since the start of the run. Complete events of a thread may not
overlap, so barriers and backpressure of a stage, and what a worker did beside its task, get threads of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from windtunnel.records.record import RunRecord
from windtunnel.reports.timeline import STAGE_KINDS, tracks

Event = dict[str, Any]


def chrome_trace(records: Iterable[RunRecord]) -> dict[str, Any]:
    """The trace as a JSON-ready document; warm-ups are left out."""
    events: list[Event] = []
    for number, record in enumerate((r for r in records if not r.warmup), start=1):
        title = f"{record.workload} · {record.label} · {record.clock} · run {record.repetition}"
        events.append(_name("process_name", number, 0, title))
        for thread, (name, spans) in enumerate(_threads(record)):
            events.append(_name("thread_name", number, thread, name))
            events += (_complete(span, number, thread) for span in spans)
        events += _counters(record, number)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(what: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}


def _threads(record: RunRecord) -> Iterator[tuple[str, list[Event]]]:
    """Waits of stages, then the driver, then workers, each with its spans in order and without overlap."""
    lanes: dict[tuple[int, str], list[Event]] = {}
    for span in sorted(record.spans.to_pylist(), key=lambda s: (s["start_s"], -s["end_s"])):
        worker = span["worker"]
        of_stage = span["kind"] in STAGE_KINDS
        lane = (
            (-2, f"{span['kind']} {span['operator']}") if of_stage else (worker, "driver" if worker < 0 else f"worker {worker}")
        )
        lanes.setdefault(lane, []).append(span)
    for (_, name), spans in sorted(lanes.items(), key=lambda item: item[0]):
        places = tracks([s["start_s"] for s in spans], [s["end_s"] for s in spans])
        for track in range(max(places) + 1):
            chosen = [s for s, place in zip(spans, places, strict=True) if place == track]
            yield name if track == 0 else f"{name}, beside", chosen


def _complete(span: Event, process: int, thread: int) -> Event:
    return {
        "ph": "X",
        "pid": process,
        "tid": thread,
        "cat": span["kind"],
        "name": f"{span['kind']} {span['operator']}",
        "ts": _microseconds(span["start_s"]),
        "dur": _microseconds(max(0.0, span["end_s"] - span["start_s"])),
        "args": {k: span[k] for k in ("partition", "attempt", "rows", "bytes")},
    }


def _counters(record: RunRecord, process: int) -> Iterator[Event]:
    for sample in record.samples.to_pylist():
        name = sample["name"]
        yield {"ph": "C", "pid": process, "name": name, "ts": _microseconds(sample["time_s"]), "args": {name: sample["value"]}}


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)
