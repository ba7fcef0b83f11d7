"""The screen of a group as one drawing: a block an engine on a common time axis, from the bottleneck strip down to memory.

The module computes nothing but places; every text goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from windtunnel.reports.metrics import Curve
from windtunnel.reports.render import words
from windtunnel.reports.render.charts import WIDTH, axis, short, svg, text
from windtunnel.reports.screen import Screen, Strip
from windtunnel.spec.units import format_bytes, format_seconds

_LEFT, _RIGHT = 178.0, WIDTH - 16.0
_STRIP, _USE, _SPACE, _GAP = 16, 48, 30, 22
_BLOCK = _STRIP + 4 + _USE + 4 + _SPACE + _GAP
_HEAD = 6


def screen(found: Screen) -> str:
    """The drawing; empty without a run to show."""
    if not found.strips or found.end_s <= 0:
        return ""
    bottom = _HEAD + len(found.strips) * _BLOCK - _GAP + 6
    body = axis(found.end_s, _LEFT, _RIGHT, 2, bottom)
    scale = (_RIGHT - _LEFT) / found.end_s
    for number, strip in enumerate(found.strips):
        body += _block(strip, _HEAD + number * _BLOCK, scale)
    return svg(bottom + 20, f"bottlenecks and use of resources of {found.title}", body)


def _block(strip: Strip, y: float, scale: float) -> str:
    use, space = y + _STRIP + 4, y + _STRIP + 4 + _USE + 4
    end = _LEFT + strip.end_s * scale
    parts = [_names(strip, y)]
    parts += [_segment(strip, number, y, scale) for number in range(len(strip.segments))]
    for top, height in ((use, _USE), (space, _SPACE)):
        parts.append(f'<rect x="{_LEFT}" y="{top:g}" width="{max(end - _LEFT, 0):.1f}" height="{height}" class="panel"/>')
    for name, curve in strip.lines.items():
        parts.append(_steps(curve, strip.end_s, use, _USE, scale, f"l-{name}", f"{name} in use"))
    if "store" in strip.spaces:
        parts.append(
            _steps(strip.spaces["store"], strip.end_s, space, _SPACE, scale, "a-store", "store, of its limit", filled=True)
        )
    if "memory" in strip.spaces:
        parts.append(_steps(strip.spaces["memory"], strip.end_s, space, _SPACE, scale, "l-memory", "memory, of its limit"))
    parts += [_spill(strip, space + _SPACE, scale), _bound(strip, y, scale)]
    parts += [_fault(*fault, y, scale) for fault in strip.faults]
    if strip.status != "ok":
        parts.append(text(min(end + 6, _RIGHT - 90), use + 20, f"✕ {strip.status.replace('_', ' ')}", "ended"))
    return "".join(parts)


def _names(strip: Strip, y: float) -> str:
    """What stands left of a block."""
    world = " (simulated)" if strip.clock == "virtual" else ""
    lines = [("name strong", short(strip.label, 24)), ("tick", f"{format_seconds(strip.makespan_s)}{world}")]
    if strip.of_optimum is not None:
        lines.append(("tick", f"{strip.of_optimum:.0%} of optimum ({format_seconds(strip.bound_s)})"))
    if strip.busiest:
        resource, share = strip.busiest[0]
        lines.append(("tick", f"{short(words.resource(resource), 16)} {share:.0%} of time"))
    if strip.cost_usd:
        lines.append(("tick", f"${strip.cost_usd:.4g}"))
    return "".join(text(_LEFT - 12, y + 12 + 16 * i, line, kind, "end") for i, (kind, line) in enumerate(lines))


def _segment(strip: Strip, number: int, y: float, scale: float) -> str:
    s = strip.segments[number]
    where = " of one node" if s.hot else ""
    share = f", {s.share:.0%} in use" if s.share else ""
    tip = f"{words.resource(s.resource)}{where}{share}: {format_seconds(s.seconds)} from {format_seconds(s.start_s)}"
    return (
        f'<rect x="{_LEFT + s.start_s * scale:.2f}" y="{y:g}" width="{max(s.seconds * scale, 0.3):.2f}" height="{_STRIP}" '
        f'class="b-{words.family(s.resource)}"><title>{escape(tip)}</title></rect>'
    )


def _steps(
    curve: Curve, end: float, top: float, height: float, scale: float, kind: str, title: str, *, filled: bool = False
) -> str:
    """A share as steps; with ``filled`` the area under them."""
    places: list[tuple[float, float]] = []
    steps = [*_visible(curve), (end, 0.0)]
    for (start, value), (stop, _) in zip(steps, steps[1:], strict=False):
        y = top + height - value * height
        places += [(_LEFT + start * scale, y), (_LEFT + stop * scale, y)]
    if not places:
        return ""
    points = _points(places)
    tip = f"<title>{escape(title)}, at most {max(curve.values):.0%}</title>"
    if filled:
        low = f"{top + height:g}"
        return f'<polygon points="{places[0][0]:.1f},{low} {points} {places[-1][0]:.1f},{low}" class="{kind}">{tip}</polygon>'
    return f'<polyline points="{points}" class="line {kind}">{tip}</polyline>'


def _visible(curve: Curve) -> list[tuple[float, float]]:
    """Steps without those that change nothing that can be seen."""
    found: list[tuple[float, float]] = []
    for time, value in zip(curve.times_s, curve.values, strict=True):
        if not found or abs(value - found[-1][1]) > 0.004:
            found.append((time, value))
    return found


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _spill(strip: Strip, bottom: float, scale: float) -> str:
    """A bar under the memory wherever blocks were written to disk for want of it."""
    parts = []
    times = (*strip.spill.times_s, strip.end_s)
    for start, stop, rate in zip(times, times[1:], strip.spill.values, strict=False):
        if rate > 0:
            tip = f"spilled {format_bytes(rate * (stop - start))} from {format_seconds(start)}"
            parts.append(
                f'<rect x="{_LEFT + start * scale:.1f}" y="{bottom + 1:g}" width="{max((stop - start) * scale, 0.5):.1f}" '
                f'height="4" class="spilled"><title>{escape(tip)}</title></rect>'
            )
    return "".join(parts)


def _bound(strip: Strip, y: float, scale: float) -> str:
    """Where the run would have ended at best."""
    if strip.bound_s is None or strip.bound_s > strip.end_s * 1.0001:
        return ""
    x, tip = (
        _LEFT + strip.bound_s * scale,
        f"lower bound {format_seconds(strip.bound_s)}, by {words.resource(strip.bound_by or '')}",
    )
    bottom = y + _BLOCK - _GAP
    return f'<line x1="{x:.1f}" y1="{y - 3:g}" x2="{x:.1f}" y2="{bottom:g}" class="bound"><title>{escape(tip)}</title></line>'


def _fault(name: str, start: float, end: float, y: float, scale: float) -> str:
    """A mark where something broke, and a line until it was back."""
    x, until = _LEFT + start * scale, _LEFT + end * scale
    tip = f"<title>{escape(name)} at {format_seconds(start)}</title>"
    line = f'<line x1="{x:.1f}" y1="{y - 3:g}" x2="{x:.1f}" y2="{y + _BLOCK - _GAP:g}" class="fault">{tip}</line>'
    if until - x > 1:
        line += f'<line x1="{x:.1f}" y1="{y - 3:g}" x2="{until:.1f}" y2="{y - 3:g}" class="fault">{tip}</line>'
    return line + f'<path d="M{x - 5:.1f} {y - 6:g}h10l-5 8z" class="faulted">{tip}</path>'
