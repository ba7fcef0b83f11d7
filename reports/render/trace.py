"""Runs as a Chrome trace (the JSON array format, "complete" and "counter" events), which Perfetto opens.

Format: "Trace Event Format", Google, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. One
process a run, one thread a worker; times in microseconds since the start of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from windtunnel.record import RunRecord


def chrome_trace(records: Iterable[RunRecord]) -> dict[str, Any]:
    """The trace as a JSON-ready document; warm-ups are left out."""
    events: list[dict[str, Any]] = []
    for number, record in enumerate((r for r in records if not r.warmup), start=1):
        events += _names(record, number)
        events += _spans(record, number)
        events += _samples(record, number)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(record: RunRecord, process: int) -> Iterator[dict[str, Any]]:
    title = f"{record.workload} · {record.label} · {record.clock} · run {record.repetition}"
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": title}}
    for worker in sorted(set(record.spans["worker"].to_pylist())):
        name = "driver" if worker < 0 else f"worker {worker}"
        yield {"ph": "M", "pid": process, "tid": worker + 1, "name": "thread_name", "args": {"name": name}}


def _spans(record: RunRecord, process: int) -> Iterator[dict[str, Any]]:
    for span in record.spans.to_pylist():
        yield {
            "ph": "X",
            "pid": process,
            "tid": span["worker"] + 1,
            "cat": span["kind"],
            "name": f"{span['kind']} {span['operator']}",
            "ts": span["start_s"] * 1e6,
            "dur": max(0.0, span["end_s"] - span["start_s"]) * 1e6,
            "args": {k: span[k] for k in ("partition", "attempt", "rows", "bytes")},
        }


def _samples(record: RunRecord, process: int) -> Iterator[dict[str, Any]]:
    for sample in record.samples.to_pylist():
        name = sample["name"]
        yield {"ph": "C", "pid": process, "name": name, "ts": sample["time_s"] * 1e6, "args": {name: sample["value"]}}
