"""A run as lanes of bars, small enough to draw: spans of one worker side by side, merged where a pixel would hold several.

Pure; the module knows records, not pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc
from windtunnel.reports.metrics import Curve, sampled, throughput, worker_seconds

from windtunnel.record import RunRecord

PIXELS = 1_000  # horizontal resolution that bars are merged to
MOST_LANES = 24
_WHOLE = ("barrier", "blocked")  # of a stage, not of a worker


@dataclass(frozen=True, slots=True)
class Bar:
    """What a worker did: kind of span, operator, seconds since the start; ``count`` spans were merged into it."""

    kind: str
    operator: str
    start_s: float
    end_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A worker's bars, or the barriers and backpressure of the stages."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run to look at. ``hidden_lanes``: workers left out."""

    workload: str
    label: str
    clock: str
    run_id: str
    makespan_s: float
    lanes: tuple[Lane, ...]
    hidden_lanes: int
    worker_seconds: dict[str, float]
    memory_bytes: Curve
    store_bytes: Curve
    cpu_cores: Curve
    rows_per_s: Curve


def timeline(record: RunRecord) -> Timeline:
    """The drawing of a good run."""
    lanes = _lanes(record)
    return Timeline(
        workload=record.workload,
        label=record.label,
        clock=record.clock,
        run_id=record.run_id,
        makespan_s=record.makespan_s or 0.0,
        lanes=lanes[:MOST_LANES],
        hidden_lanes=max(0, len(lanes) - MOST_LANES),
        worker_seconds=worker_seconds(record),
        memory_bytes=sampled(record, "memory_bytes"),
        store_bytes=sampled(record, "store_bytes"),
        cpu_cores=sampled(record, "cpu_cores"),
        rows_per_s=throughput(record),
    )


def _lanes(record: RunRecord) -> tuple[Lane, ...]:
    """Stages' waits first, then the driver, then workers by number."""
    order = [("start_s", "ascending"), ("end_s", "ascending")]
    spans = record.spans.take(pc.sort_indices(record.spans, sort_keys=order))
    rows: dict[tuple[int, str], list[Bar]] = {}
    columns = [spans[c].to_pylist() for c in ("kind", "operator", "worker", "start_s", "end_s")]
    for kind, operator, worker, start, end in zip(*columns, strict=True):
        lane = (-2, f"{kind} {operator}") if kind in _WHOLE else (worker, "driver" if worker < 0 else f"worker {worker}")
        rows.setdefault(lane, []).append(Bar(kind, operator, start, end, 1))
    pixel = max(record.makespan_s or 0.0, 1e-9) / PIXELS
    return tuple(Lane(name, merged(bars, pixel)) for (_, name), bars in sorted(rows.items(), key=lambda item: item[0]))


def merged(bars: list[Bar], pixel_s: float) -> tuple[Bar, ...]:
    """Bars in order; those that share a pixel with the one before become part of it, and the longer one names the kind."""
    result: list[Bar] = []
    longest = 0.0
    for bar in bars:
        last = result[-1] if result else None
        length = bar.end_s - bar.start_s
        if last is not None and last.end_s - last.start_s < pixel_s and bar.start_s - last.end_s < pixel_s:
            named = bar if length > longest else last
            longest = max(longest, length)
            result[-1] = Bar(named.kind, named.operator, last.start_s, max(last.end_s, bar.end_s), last.count + bar.count)
        else:
            result.append(bar)
            longest = length
    return tuple(result)
