"""Small drawings as inline SVG: intervals, timelines, curves. Colours are classes of the style sheet, so that both themes work.

Every text goes through `escape`; every drawing has a title for readers that see none. The module computes nothing but places.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import floor, log10

from windtunnel.reports.metrics import Curve
from windtunnel.reports.rows import Row
from windtunnel.reports.timeline import Bar, Lane, Timeline

from windtunnel.units import format_bytes, format_seconds

WIDTH = 900
_LABEL = 170  # room for names on the left
_ROW, _LANE = 30, 17
FEW = 8  # points of a curve that are marked, since a line may not show them


def svg(height: float, title: str, body: str) -> str:
    """A drawing `WIDTH` wide that shrinks with its place."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}" '
        f'preserveAspectRatio="xMinYMin meet"><title>{escape(title)}</title>{body}</svg>'
    )


def ticks(highest: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from 0 to ``highest``."""
    if highest <= 0:
        return [0.0]
    raw = highest / count
    unit = 10 ** floor(log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    return [i * step for i in range(int(highest / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _axis(highest: float, left: float, right: float, top: float, bottom: float, tell: str = "seconds") -> str:
    """Vertical lines with their values below."""
    parts = []
    for value in ticks(highest):
        x = left + value / highest * (right - left) if highest else left
        name = format_seconds(value) if tell == "seconds" else f"{value:g}"
        parts.append(f'<line x1="{x:.1f}" y1="{top:g}" x2="{x:.1f}" y2="{bottom:g}" class="grid"/>')
        parts.append(_text(x, bottom + 14, name, "tick", "middle"))
    return "".join(parts)


# -- intervals --------------------------------------------------------------------------------------------------------


def intervals(rows: Sequence[Row], title: str) -> str:
    """Median, interval and single runs of each configuration, from 0."""
    shown = [r for r in rows if r.makespan_s is not None]
    if not shown:
        return ""
    highest = max(max(r.runs_s) for r in shown) * 1.05
    bottom = 8 + len(shown) * _ROW
    scale = (WIDTH - _LABEL - 90) / highest
    body = _axis(highest, _LABEL, WIDTH - 90, 4, bottom)
    for number, row in enumerate(shown):
        body += _interval_row(row, 8 + number * _ROW + _ROW / 2, scale)
    return svg(bottom + 22, title, body)


def _interval_row(row: Row, y: float, scale: float) -> str:
    assert row.makespan_s is not None
    mark = "sim" if row.clock == "virtual" else "aa" if row.aa else "real"
    middle = _LABEL + row.makespan_s.value * scale
    parts = [_text(_LABEL - 10, y + 4, _short(row.label, 22), "name", "end")]
    parts += [f'<circle cx="{_LABEL + v * scale:.1f}" cy="{y:g}" r="2.5" class="run {mark}"/>' for v in row.runs_s]
    if row.makespan_s.low is not None and row.makespan_s.high is not None:
        low, high = _LABEL + row.makespan_s.low * scale, _LABEL + row.makespan_s.high * scale
        parts.append(f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" class="interval {mark}"/>')
    parts.append(
        _diamond(middle, y, mark) if mark == "sim" else f'<circle cx="{middle:.1f}" cy="{y:g}" r="6" class="median {mark}"/>'
    )
    parts.append(_text(WIDTH - 80, y + 4, format_seconds(row.makespan_s.value), "value"))
    return "".join(parts)


def _diamond(x: float, y: float, mark: str) -> str:
    return f'<path d="M{x - 7:.1f} {y:g}L{x:.1f} {y - 7:g}L{x + 7:.1f} {y:g}L{x:.1f} {y + 7:g}Z" class="median {mark}"/>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# -- timelines --------------------------------------------------------------------------------------------------------


def gantt(timeline: Timeline) -> str:
    """Lanes of bars over the time of a run."""
    end = timeline.makespan_s or 1e-9
    bottom = 4 + len(timeline.lanes) * _LANE
    body = _axis(end, _LABEL, WIDTH - 14, 2, bottom)
    for number, lane in enumerate(timeline.lanes):
        body += _lane(lane, 4 + number * _LANE, end)
    return svg(bottom + 20, f"timeline of {timeline.label} on {timeline.workload}", body)


def _lane(lane: Lane, y: float, end: float) -> str:
    parts = [_text(_LABEL - 10, y + 11, _short(lane.name, 24), "name", "end")]
    return "".join(parts + [_bar(bar, y, (WIDTH - 14 - _LABEL) / end) for bar in lane.bars])


def _bar(bar: Bar, y: float, scale: float) -> str:
    width = max(0.6, (bar.end_s - bar.start_s) * scale)
    many = f", {bar.count} spans" if bar.count > 1 else ""
    tip = f"{bar.kind} {bar.operator}: {format_seconds(bar.end_s - bar.start_s)} from {format_seconds(bar.start_s)}{many}"
    return (
        f'<rect x="{_LABEL + bar.start_s * scale:.1f}" y="{y + 1:g}" width="{width:.1f}" height="{_LANE - 3}" '
        f'class="k-{escape(bar.kind)}"><title>{escape(tip)}</title></rect>'
    )


# -- curves -----------------------------------------------------------------------------------------------------------


def curve(found: Curve, end: float, title: str, unit: str) -> str:
    """A quantity over the time of a run; ``unit`` is "bytes", "cores" or "rows"."""
    if not found.times_s or end <= 0:
        return ""
    height, highest = 110.0, max(found.values) * 1.1 or 1.0
    scale_x, scale_y = (WIDTH - 14 - _LABEL) / end, (height - 8) / highest
    points = " ".join(
        f"{_LABEL + min(t, end) * scale_x:.1f},{height - v * scale_y:.1f}"
        for t, v in zip(found.times_s, found.values, strict=True)
    )
    body = _axis(end, _LABEL, WIDTH - 14, 4, height)
    body += _text(_LABEL - 10, 14, _amount(max(found.values), unit), "tick", "end") + _text(
        _LABEL - 10, height, "0", "tick", "end"
    )
    body += _text(0, height / 2, title, "name") + f'<polyline points="{points}" class="curve"/>'
    if len(found.times_s) <= FEW:
        places = (p.split(",") for p in points.split())
        body += "".join(f'<circle cx="{x}" cy="{y}" r="3" class="median real"/>' for x, y in places)
    return svg(height + 20, f"{title} over time, at most {_amount(max(found.values), unit)}", body)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return format_bytes(value)
    if unit == "rows":
        return f"{value / 1e6:.3g} M/s" if value >= 1e6 else f"{value / 1e3:.3g} k/s" if value >= 1e3 else f"{value:.3g}/s"
    return f"{value:.2g} cores"


# -- simulated against real -------------------------------------------------------------------------------------------


def parity(pairs: Sequence[tuple[float, float]]) -> str:
    """Simulated over real durations on logarithmic axes; on the diagonal they are equal, the band is ±25 %."""
    if not pairs:
        return ""
    low = min(min(p) for p in pairs) / 1.5
    high = max(max(p) for p in pairs) * 1.5
    size, left, top = 300.0, 90.0, 8.0

    def place(real: float, made: float) -> tuple[float, float]:
        span = log10(high / low)
        return left + log10(real / low) / span * size, top + size - log10(made / low) / span * size

    band = [place(low, low * 1.25), place(high, high * 1.25), place(high, high * 0.75), place(low, low * 0.75)]
    body = f'<clipPath id="square"><rect x="{left}" y="{top}" width="{size}" height="{size}"/></clipPath><g clip-path="url(#square)">'
    body += f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in band)}" class="band"/>'
    (x1, y1), (x2, y2) = place(low, low), place(high, high)
    body += f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="grid"/></g>'
    body += f'<rect x="{left}" y="{top}" width="{size}" height="{size}" class="frame"/>'
    for real, made in pairs:
        x, y = place(real, made)
        body += _diamond(x, y, "sim")
    for value in (low * 1.5, high / 1.5):
        x, y = place(value, value)
        body += _text(x, top + size + 16, format_seconds(value), "tick", "middle")
        body += _text(left - 8, y + 4, format_seconds(value), "tick", "end")
    body += _text(left + size / 2, top + size + 34, "measured", "name", "middle") + _text(0, top + size / 2, "simulated", "name")
    return svg(top + size + 42, "simulated over measured makespans", body).replace(f"0 0 {WIDTH} ", "0 0 420 ", 1)
