"""A run as lanes of bars, small enough to draw: spans of one worker side by side, merged where a pixel would hold several.

Pure; the module knows records, not pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from windtunnel.records.record import RunRecord
from windtunnel.reports.metrics import Curve, sampled, throughput, worker_seconds

PIXELS = 800  # horizontal resolution that bars are merged to
MOST_LANES = 24
MOST_BARS = 12_000  # in all timelines of a comparison: a page stays below 3 MB
STAGE_KINDS = ("barrier", "blocked")  # of a stage, not of a worker


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
    """One run to look at. ``title`` is its group's; ``hidden_lanes``: lanes left out."""

    title: str
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


def timeline(title: str, record: RunRecord) -> Timeline:
    """The drawing of a good run."""
    lanes = _lanes(record)
    return Timeline(
        title=title,
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


def tracks(starts: Sequence[float], ends: Sequence[float]) -> list[int]:
    """For intervals in order of their start the first track that is free: 0 unless a worker did several things at once."""
    busy_until: list[float] = []
    found = []
    for start, end in zip(starts, ends, strict=True):
        track = next((n for n, until in enumerate(busy_until) if until <= start), len(busy_until))
        busy_until[track : track + 1] = [end]
        found.append(track)
    return found


def _lanes(record: RunRecord) -> tuple[Lane, ...]:
    """Stages' waits first, then the driver, then workers by number; what a worker did beside gets a lane of its own."""
    order = [("start_s", "ascending"), ("end_s", "descending")]
    spans = record.spans.take(pc.sort_indices(record.spans, sort_keys=order))
    found: dict[tuple[int, str], list[Bar]] = {}
    columns = [spans[c].to_pylist() for c in ("kind", "operator", "worker", "start_s", "end_s")]
    for kind, operator, worker, start, end in zip(*columns, strict=True):
        lane = (-2, f"{kind} {operator}") if kind in STAGE_KINDS else (worker, "driver" if worker < 0 else f"worker {worker}")
        found.setdefault(lane, []).append(Bar(kind, operator, start, end, 1))
    pixel = max(record.makespan_s or 0.0, 1e-9) / PIXELS
    return tuple(
        lane for (_, name), bars in sorted(found.items(), key=lambda item: item[0]) for lane in _side_by_side(name, bars, pixel)
    )


def _side_by_side(name: str, bars: list[Bar], pixel_s: float) -> list[Lane]:
    by_track: dict[int, list[Bar]] = {}
    for track, bar in zip(tracks([b.start_s for b in bars], [b.end_s for b in bars]), bars, strict=True):
        by_track.setdefault(track, []).append(bar)
    return [Lane(name if track == 0 else f"{name}, beside", merged(part, pixel_s)) for track, part in sorted(by_track.items())]


def merged(bars: Sequence[Bar], pixel_s: float) -> tuple[Bar, ...]:
    """Bars in order; those that share a pixel with the one before become part of it, and the longer one names the kind."""
    result: list[Bar] = []
    longest = 0.0
    for bar in bars:
        last = result[-1] if result else None
        length = bar.end_s - bar.start_s
        if last is not None and last.end_s - last.start_s < pixel_s and bar.end_s - last.start_s < 2 * pixel_s:
            named = bar if length > longest else last
            longest = max(longest, length)
            result[-1] = Bar(named.kind, named.operator, last.start_s, max(last.end_s, bar.end_s), last.count + bar.count)
        else:
            result.append(bar)
            longest = length
    return tuple(result)


def thinned(timelines: Sequence[Timeline]) -> tuple[Timeline, ...]:
    """The timelines with ever coarser pixels until they hold at most `MOST_BARS` together."""
    found, pixels = tuple(timelines), float(PIXELS)
    while sum(len(lane.bars) for t in found for lane in t.lanes) > MOST_BARS and pixels > 1:
        pixels /= 2
        found = tuple(replace(t, lanes=_coarser(t, pixels)) for t in found)
    return found


def _coarser(timeline: Timeline, pixels: float) -> tuple[Lane, ...]:
    return tuple(Lane(lane.name, merged(lane.bars, timeline.makespan_s / pixels)) for lane in timeline.lanes)
