"""Small drawings as inline SVG: intervals, timelines, curves. Colours are classes of the style sheet, so that both themes work.

Every text goes through `escape`; every drawing has a title for readers that see none. The module computes nothing but places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import floor, log10

from windtunnel.reports.compare import Effect
from windtunnel.reports.decompose import Decomposition
from windtunnel.reports.metrics import Curve
from windtunnel.reports.rows import Row
from windtunnel.reports.timeline import Bar, Lane, Timeline
from windtunnel.spec.units import format_bytes, format_seconds

WIDTH = 900
_LABEL = 170  # room for names on the left
_ROW, _LANE = 30, 17
HATCHED = {"barrier": 45, "blocked": -45, "spill": 90}  # kinds of waiting, and how their stripes are turned
FEW = 8  # points of a curve that are marked, since a line may not show them


def svg(height: float, title: str, body: str, width: float = WIDTH) -> str:
    """A drawing that shrinks with its place."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
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


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def axis(end_s: float, left: float, right: float, top: float, bottom: float, count: int = 5) -> str:
    """Vertical lines with their seconds below."""
    parts = []
    for value in ticks(end_s, count):
        x = left + value / end_s * (right - left) if end_s else left
        parts.append(f'<line x1="{x:.1f}" y1="{top:g}" x2="{x:.1f}" y2="{bottom:g}" class="grid"/>')
        anchor = "start" if value == 0 else "end" if x > right - 20 else "middle"
        parts.append(text(x, bottom + 14, format_seconds(value), "tick", anchor))
    return "".join(parts)


# -- intervals --------------------------------------------------------------------------------------------------------


def intervals(rows: Sequence[Row], title: str) -> str:
    """Median, interval and single runs of each configuration, from 0; without a result, how it ended."""
    highest = max((r.slowest_s or 0.0 for r in rows), default=0.0) * 1.05
    if highest <= 0:
        return ""
    bottom = 8 + len(rows) * _ROW
    scale = (WIDTH - _LABEL - 90) / highest
    body = axis(highest, _LABEL, WIDTH - 90, 4, bottom)
    for number, row in enumerate(rows):
        body += _interval_row(row, 8 + number * _ROW + _ROW / 2, scale)
    return svg(bottom + 22, title, body)


def _interval_row(row: Row, y: float, scale: float) -> str:
    mark = "sim" if row.clock == "virtual" else "aa" if row.aa else "real"
    parts = [text(_LABEL - 10, y + 4, short(row.label, 22), "name", "end")]
    if row.makespan_s is None:
        return parts[0] + text(_LABEL + 8, y + 4, f"✕ {row.status.replace('_', ' ')}", "ended")
    middle = _LABEL + row.makespan_s.value * scale
    parts += [f'<circle cx="{_LABEL + v * scale:.1f}" cy="{y:g}" r="2.5" class="run {mark}"/>' for v in row.runs_s]
    if row.makespan_s.low is not None and row.makespan_s.high is not None:
        low, high = _LABEL + row.makespan_s.low * scale, _LABEL + row.makespan_s.high * scale
        parts.append(f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" class="interval {mark}"/>')
    parts.append(
        _diamond(middle, y, mark) if mark == "sim" else f'<circle cx="{middle:.1f}" cy="{y:g}" r="6" class="median {mark}"/>'
    )
    parts.append(text(WIDTH - 80, y + 4, format_seconds(row.makespan_s.value), "value"))
    return "".join(parts)


def _diamond(x: float, y: float, mark: str) -> str:
    return f'<path d="M{x - 7:.1f} {y:g}L{x:.1f} {y - 7:g}L{x + 7:.1f} {y:g}L{x:.1f} {y + 7:g}Z" class="median {mark}"/>'


def short(words: str, most: int) -> str:
    """Cut off what does not fit."""
    return words if len(words) <= most else words[: most - 1] + "…"


# -- timelines --------------------------------------------------------------------------------------------------------


def gantt(timeline: Timeline) -> str:
    """Lanes of bars over the time of a run."""
    end = timeline.makespan_s or 1e-9
    bottom = 4 + len(timeline.lanes) * _LANE
    body = axis(end, _LABEL, WIDTH - 14, 2, bottom)
    for number, lane in enumerate(timeline.lanes):
        body += _lane(lane, 4 + number * _LANE, end)
    return svg(bottom + 20, f"timeline of {timeline.label} on {timeline.workload}", body)


def _lane(lane: Lane, y: float, end: float) -> str:
    parts = [text(_LABEL - 10, y + 11, short(lane.name, 24), "name", "end")]
    return "".join(parts + [_bar(bar, y, (WIDTH - 14 - _LABEL) / end) for bar in lane.bars])


def _bar(bar: Bar, y: float, scale: float) -> str:
    width = max(0.6, (bar.end_s - bar.start_s) * scale)
    many = f", {bar.count} spans" if bar.count > 1 else ""
    tip = f"{bar.kind} {bar.operator}: {format_seconds(bar.end_s - bar.start_s)} from {format_seconds(bar.start_s)}{many}"
    return (
        f'<rect x="{_LABEL + bar.start_s * scale:.1f}" y="{y + 1:g}" width="{width:.1f}" height="{_LANE - 3}" '
        f'class="k-{escape(bar.kind)}"><title>{escape(tip)}</title></rect>'
    )


def patterns() -> str:
    """Hatches of the kinds of waiting, so that colour is not all that tells them from work."""
    lines = "".join(
        f'<pattern id="hatch-{kind}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate({turn})">'
        f'<rect width="6" height="6" class="p-{kind}"/><line x1="0" y1="0" x2="0" y2="6" class="stripe"/></pattern>'
        for kind, turn in HATCHED.items()
    )
    return f'<svg width="0" height="0" aria-hidden="true" class="patterns"><defs>{lines}</defs></svg>'


# -- curves -----------------------------------------------------------------------------------------------------------


def curve(found: Curve, end: float, title: str, unit: str) -> str:
    """A quantity over the time of a run, half a page wide; ``unit`` is "bytes", "cores" or "rows"."""
    if not found.times_s or end <= 0:
        return ""
    left, right, top, bottom, peak = 6.0, 424.0, 30.0, 120.0, max(found.values)
    scale_x, scale_y = (right - left) / end, (bottom - top) / (peak or 1.0)
    places = [
        (left + min(max(t, 0.0), end) * scale_x, bottom - v * scale_y) for t, v in zip(found.times_s, found.values, strict=True)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    body = axis(end, left, right, top, bottom, 4)
    body += f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" class="frame"/>'
    body += text(left, 16, title, "name") + text(right, 16, f"at most {_amount(peak, unit)}", "tick", "end")
    area = f"{places[0][0]:.1f},{bottom:g} {points} {places[-1][0]:.1f},{bottom:g}"
    body += f'<polygon points="{area}" class="area"/><polyline points="{points}" class="curve"/>'
    if len(places) <= FEW:
        body += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="median real"/>' for x, y in places)
    return svg(bottom + 20, f"{title} over time, at most {_amount(peak, unit)}", body, 430)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return format_bytes(value)
    if unit == "rows":
        return (
            f"{value / 1e6:.3g} M rows/s"
            if value >= 1e6
            else f"{value / 1e3:.3g} k rows/s"
            if value >= 1e3
            else f"{value:.3g} rows/s"
        )
    return f"{value:.2g} cores"


# -- effects ----------------------------------------------------------------------------------------------------------


def effects(found: Sequence[Effect]) -> str:
    """Ratios of makespans with their intervals on a logarithmic axis; model effects are squares, engine effects dots."""
    if not found:
        return ""
    floors = [1 + e.noise for e in found if e.noise]
    ends = [v for e in found for v in (e.ratio.value, e.ratio.low, e.ratio.high) if v is not None]
    ends += [1.0, *floors, *(1 / f for f in floors)]
    low, high = log10(min(ends) / 1.15), log10(max(ends) * 1.15)
    left, right, bottom = 290.0, WIDTH - 30.0, 8.0 + len(found) * _ROW

    def place(value: float) -> float:
        return left + (log10(value) - low) / (high - low) * (right - left)

    body = "".join(_floor(e.noise, 8 + n * _ROW, place) for n, e in enumerate(found) if e.noise)
    body += "".join(
        f'<line x1="{place(v):.1f}" y1="4" x2="{place(v):.1f}" y2="{bottom:g}" class="{"one" if v == 1 else "grid"}"/>'
        + text(place(v), bottom + 14, f"{v:g}×", "tick", "middle")
        for v in _ratios(10**low, 10**high)
    )
    for number, effect in enumerate(found):
        body += _effect(effect, 8 + (number + 0.5) * _ROW, left - 12, place)
    return svg(bottom + 22, "makespan against bulk: below 1 is faster", body)


def _floor(noise: float, y: float, place: Callable[[float], float]) -> str:
    """The band in which two equal arms may lie."""
    low, high = place(1 / (1 + noise)), place(1 + noise)
    return f'<rect x="{low:.1f}" y="{y + 3:g}" width="{high - low:.1f}" height="{_ROW - 6}" class="floor"/>'


def _ratios(low: float, high: float) -> list[float]:
    """1 and round ratios within bounds: few where the bounds are far apart."""
    steps = (1,) if high / low > 1e3 else (1, 2, 5) if high / low > 4 else (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8)
    values = {round(step * 10.0**power, 9) for power in range(floor(log10(low)) - 1, floor(log10(high)) + 1) for step in steps}
    return sorted(v for v in values | {1.0} if low <= v <= high)


def _effect(effect: Effect, y: float, right: float, place: Callable[[float], float]) -> str:
    x, low, high = place(effect.ratio.value), effect.ratio.low, effect.ratio.high
    kind = "sim" if effect.kind == "model" else "real"
    parts = [text(right, y + 4, short(f"{effect.label} · {effect.workload}", 44), "name", "end")]
    if low is not None and high is not None:
        parts.append(f'<line x1="{place(low):.1f}" y1="{y:g}" x2="{place(high):.1f}" y2="{y:g}" class="interval {kind}"/>')
    if effect.kind == "model":
        parts.append(f'<rect x="{x - 5.5:.1f}" y="{y - 5.5:g}" width="11" height="11" class="median sim"/>')
    else:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:g}" r="6" class="median real"/>')
    return "".join(parts)


# -- parts of a difference --------------------------------------------------------------------------------------------


def waterfall(found: Decomposition) -> str:
    """From the faster arm's seconds to the slower one's, a step a part."""
    levels = [found.faster_s]
    for part in found.parts:
        levels.append(levels[-1] + part.seconds)
    low, high = min(0.0, *levels), max(*levels, found.slower_s) * 1.02
    count = len(found.parts) + 2
    left, right, bottom = 200.0, WIDTH - 110.0, 8.0 + count * _STEP

    def place(value: float) -> float:
        return left + (value - low) / (high - low or 1.0) * (right - left)

    body = axis(high, place(0.0), right, 4, bottom)
    body += _step(found.faster, 0.0, found.faster_s, 0, "total", place)
    for number, part in enumerate(found.parts):
        kind = "unknown" if part.key == "unexplained" else "more" if part.seconds > 0 else "less"
        body += _step(part.name, levels[number], levels[number + 1], number + 1, kind, place)
    body += _step(found.slower, 0.0, found.slower_s, count - 1, "total", place)
    return svg(bottom + 22, f"why {found.slower} takes longer than {found.faster}", body)


_STEP = 22


def _step(name: str, start: float, end: float, number: int, kind: str, place: Callable[[float], float]) -> str:
    y, (low, high) = 8.0 + number * _STEP, sorted((place(start), place(end)))
    amount = format_seconds(end) if kind == "total" else f"{'+' if end >= start else '−'}{format_seconds(abs(end - start))}"
    parts = [text(190, y + 14, short(name, 30), "name", "end")]
    parts.append(
        f'<rect x="{low:.1f}" y="{y + 3:g}" width="{max(high - low, 1.0):.1f}" height="{_STEP - 6}" class="fall {kind}"/>'
    )
    if kind != "total":
        parts.append(f'<line x1="{place(end):.1f}" y1="{y + 3:g}" x2="{place(end):.1f}" y2="{y + _STEP + 3:g}" class="grid"/>')
    return "".join([*parts, text(high + 6, y + 14, amount, "value")])


# -- simulated against real -------------------------------------------------------------------------------------------


def parity(pairs: Sequence[tuple[float, float]]) -> str:
    """Simulated over real durations on logarithmic axes; on the diagonal they are equal, the band is ±25%."""
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
        body += text(x, top + size + 16, format_seconds(value), "tick", "middle")
        body += text(left - 8, y + 4, format_seconds(value), "tick", "end")
    body += text(left + size / 2, top + size + 34, "measured", "name", "middle") + text(0, top + size / 2, "simulated", "name")
    return svg(top + size + 42, "simulated over measured makespans", body, 420)
