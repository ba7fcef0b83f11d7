"""The engines of a group side by side: how far each is from its bound, what bound it when, what it used. Data to draw; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from windtunnel.records.document import bound_numbers
from windtunnel.records.record import RunRecord
from windtunnel.reports import arms
from windtunnel.reports.bottleneck import SPACES, Segment, bottlenecks, longest
from windtunnel.reports.metrics import Curve, cost_usd, middle, spilled_bytes
from windtunnel.reports.usage import Usage, usage

#: a line of the drawing and the resources whose highest share it shows
LINES = {
    "cpu": ("cpu",), "device": ("device",), "disk": ("disk_read", "disk_write"),
    "network": ("nic_up", "nic_down", "network_core", "remote_store"), "driver": ("driver",),
}  # fmt: skip
_SEEN = 0.02  # a line that never comes above this share is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The middle run of a configuration, or its first failed one as far as it came.

    ``lines``: shares by name of `LINES`; ``spaces``: shares of memory and store; ``spill``: bytes a second. ``faults``: name,
    start, end. ``busiest``: (resource, share of the time that it binds), longest first. ``lost_device_s``: work done for nothing.
    """

    label: str
    clock: str
    status: str
    makespan_s: float | None
    end_s: float
    bound_s: float | None
    bound_by: str | None
    of_optimum: float | None
    cost_usd: float | None
    spilled_bytes: int | None
    peak_memory_bytes: int | None
    lost_device_s: float
    lost_cpu_s: float
    segments: tuple[Segment, ...]
    busiest: tuple[tuple[str, float], ...]
    lines: dict[str, Curve]
    spaces: dict[str, Curve]
    spill: Curve
    faults: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Screen:
    """All configurations of a group on one time axis of ``end_s`` seconds."""

    title: str
    end_s: float
    strips: tuple[Strip, ...]


def screen(title: str, records: Sequence[RunRecord]) -> Screen:
    """Real runs first, each world by its makespan; A/A arms show nothing new. Runs that show nothing of their resources are left out."""
    strips = sorted((s for s in _strips(records) if s.segments or s.lines), key=_order)
    return Screen(title, max((s.end_s for s in strips), default=0.0), tuple(strips))


def _order(found: Strip) -> tuple[bool, bool, float, str]:
    return found.clock != "wall", found.makespan_s is None, found.makespan_s or 0.0, found.label


def _strips(records: Sequence[RunRecord]) -> Iterator[Strip]:
    for (_, label), part in arms.by_label(records).items():
        if not arms.is_aa(label):
            yield strip(middle(arms.good(part)) if arms.good(part) else part[0])


def strip(record: RunRecord) -> Strip:
    """One run."""
    used, segments = usage(record), bottlenecks(record)
    bound = bound_numbers(record)
    lines = {name: _highest(used, parts) for name, parts in LINES.items()}
    spaces: dict[str, Curve] = {name: used.use[name] for name in SPACES if name in used.use}
    return Strip(
        label=record.label, clock=record.clock, status=record.status, makespan_s=record.makespan_s, end_s=used.end_s,
        bound_s=bound["lower_bound_s"], bound_by=bound["bound_by"], of_optimum=bound["of_optimum"], cost_usd=cost_usd(record),
        spilled_bytes=spilled_bytes(record), peak_memory_bytes=record.peak_memory_bytes,
        lost_device_s=record.counters.get("lost_device_s", 0.0), lost_cpu_s=record.counters.get("lost_cpu_s", 0.0),
        segments=segments, busiest=longest(segments),
        lines={name: curve for name, curve in lines.items() if max(curve.values, default=0.0) >= _SEEN},
        spaces=spaces, spill=used.amounts.get("spill_bytes_per_s", Curve((), ())), faults=tuple(_faults(record, used.end_s)),
    )  # fmt: skip


def _highest(used: Usage, names: Sequence[str]) -> Curve:
    """At each time the highest of some shares, which have the same times."""
    curves = [used.use[n] for n in names if n in used.use]
    if not curves:
        return Curve((), ())
    return Curve(curves[0].times_s, tuple(max(v) for v in zip(*(c.values for c in curves), strict=True)))


def _faults(record: RunRecord, end: float) -> Iterator[tuple[str, float, float]]:
    spans = record.spans.filter(pc.equal(record.spans["kind"].cast("string"), "fault"))
    columns = (spans[c] for c in ("operator", "start_s", "end_s"))
    for name, start, stop in zip(*(c.to_pylist() for c in columns), strict=True):
        if start <= end:
            yield str(name), start, min(stop, end)
