"""Drawings of services as inline SVG: the distribution of latencies, latency over load, a service over time, where time went.

Colour tells configurations apart, the line tells worlds apart: solid is real, dashed simulated. Places only; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import ceil, floor, log10

from windtunnel.reports.breakdown import PARTS, Breakdown
from windtunnel.reports.metrics import Curve
from windtunnel.reports.render.charts import WIDTH, axis, short, svg, text, ticks
from windtunnel.reports.render.serving_words import name, rate
from windtunnel.reports.services import Curves, Point, Service
from windtunnel.spec.units import format_seconds

_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 660.0, 12.0, 290.0
_COLOURS = 8
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
Place = Callable[[float], float]


def _logs(low: float, high: float) -> list[float]:
    """Round values between two, few where they are far apart."""
    steps = (1,) if high / low > 1e3 else (1, 2, 5)
    values = [s * 10.0**p for p in range(floor(log10(low)), ceil(log10(high)) + 1) for s in steps]
    return [v for v in values if low <= v <= high * 1.0001]


def _log_place(low: float, high: float, start: float, end: float) -> Place:
    span = log10(high / low) or 1.0
    return lambda v: start + log10(max(v, low) / low) / span * (end - start)


def _colours(labels: Iterable[str]) -> dict[str, int]:
    return {label: n % _COLOURS for n, label in enumerate(dict.fromkeys(labels))}


def _line(points: Sequence[tuple[float, float]], colour: int, dashed: bool) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="series s{colour}{" dashed" if dashed else ""}"/>'


def _legend(entries: Sequence[tuple[str, int, bool]]) -> str:
    """On the right, one line each."""
    body = ""
    for number, (words, colour, dashed) in enumerate(entries):
        y = _TOP + 10 + number * 19
        body += _line([(_RIGHT + 16, y), (_RIGHT + 40, y)], colour, dashed) + text(_RIGHT + 46, y + 4, short(words, 30), "tick")
    return body


def distributions(service: Service) -> list[str]:
    """A drawing for each of some loads, all configurations and both worlds in it: the share of requests that took no longer.

    The tail is stretched: each step of the axis is a tenth of what is left. All have one axis of time.
    """
    shown = [p for p in service.points if p.cdf]
    ends = [v for p in shown for _, v in p.cdf if v > 0]
    if not ends:
        return []
    low, high = min(ends) / 1.1, max(ends) * 1.1
    hues, both = _colours(p.label for p in shown), both_worlds(service)
    return [
        _distribution(load, [p for p in shown if p.load == load], service.objective_s, hues, (low, high), both)
        for load in some_loads(shown)
    ]


def some_loads(points: Sequence[Point], most: int = 4) -> list[str]:
    """From the lowest to the highest, evenly, at most so many."""
    loads = list(dict.fromkeys(p.load for p in sorted(points, key=lambda p: p.offered or 0.0)))
    if len(loads) <= most:
        return loads
    return [loads[round(i * (len(loads) - 1) / (most - 1))] for i in range(most)]


def both_worlds(service: Service) -> bool:
    """Only then lines need to tell worlds apart."""
    return len({p.clock for p in service.points}) > 1


def _distribution(
    load: str, points: Sequence[Point], objective: float | None, hues: dict[str, int], ends: tuple[float, float], both: bool
) -> str:
    left, right, top, bottom = 50.0, 424.0, 26.0, 210.0
    deepest = max(p.cdf[-1][0] for p in points)
    x, depth = _log_place(*ends, left, right), -log10(1 - deepest)

    def y(share: float) -> float:
        return bottom + log10(1 - share) / depth * (bottom - top)

    body = text(left, 14, load, "name")
    for value in _logs(*ends)[:: 1 + len(_logs(*ends)) // 7]:
        body += f'<line x1="{x(value):.1f}" y1="{top}" x2="{x(value):.1f}" y2="{bottom}" class="grid"/>'
        body += text(x(value), bottom + 15, format_seconds(value), "tick", "middle")
    for share in _SHARES:
        if share <= deepest:
            body += f'<line x1="{left}" y1="{y(share):.1f}" x2="{right}" y2="{y(share):.1f}" class="grid"/>'
            body += text(left - 6, y(share) + 4, f"{share * 100:g} %", "tick", "end")
    if objective is not None and ends[0] <= objective <= ends[1]:
        at = f"{x(objective):.1f}"
        body += f'<line x1="{at}" y1="{top}" x2="{at}" y2="{bottom}" class="bound"><title>objective</title></line>'
    for p in points:
        body += _line([(x(v), y(share)) for share, v in p.cdf], hues[p.label], both and p.clock == "virtual")
    return svg(bottom + 24, f"distribution of latencies at {load}", body, 430)


def legend(service: Service) -> str:
    """Colours of the configurations, in one row."""
    hues, both = _colours(p.label for p in service.points), both_worlds(service)
    body, x = "", 4.0
    for label, clock in dict.fromkeys((p.label, p.clock) for p in service.points):
        words = f"{label} (simulated)" if clock == "virtual" else label
        body += _line([(x, 10), (x + 26, 10)], hues[label], both and clock == "virtual") + text(x + 32, 14, words, "tick")
        x += 56 + 6.6 * len(words)
    return svg(20, "legend", body, max(WIDTH, x))


def load_curves(service: Service) -> str:
    """p50 (thin) and p99 over the offered load; a ring is the knee, the dashed level the objective."""
    curves = [c for c in service.curves if len(c.points) > 1]
    if not curves:
        return ""
    values = [p.percentiles[k].value for c in curves for p in c.points for k in ("p50", "p99")]
    low, high = min(values) / 1.3, max([*values, service.objective_s or 0.0]) * 1.3
    most = max(p.offered or 0.0 for c in curves for p in c.points) * 1.03
    up = _log_place(low, high, _BOTTOM, _TOP)

    def x(load: float) -> float:
        return _LEFT + load / most * (_RIGHT - _LEFT)

    body = ""
    for value in _logs(low, high):
        body += f'<line x1="{_LEFT}" y1="{up(value):.1f}" x2="{_RIGHT}" y2="{up(value):.1f}" class="grid"/>'
        body += text(_LEFT - 8, up(value) + 4, format_seconds(value), "tick", "end")
    for load in ticks(most):
        body += text(x(load), _BOTTOM + 16, f"{load:g}", "tick", "middle")
    unit = "clients" if curves[0].points[0].closed else "requests offered a second"
    body += text((_LEFT + _RIGHT) / 2, _BOTTOM + 34, unit, "name", "middle")
    body += f'<line x1="{_LEFT}" y1="{_BOTTOM}" x2="{_RIGHT}" y2="{_BOTTOM}" class="frame"/>'
    if service.objective_s is not None:
        y = up(service.objective_s)
        body += f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}" class="bound"/>'
        body += text(_LEFT + 6, y - 5, f"objective: p99 of {format_seconds(service.objective_s)}", "tick")
    hues, entries, both = _colours(p.label for p in service.points), [], both_worlds(service)
    for c in curves:
        colour, dashed = hues[c.label], both and c.clock == "virtual"
        body += _load_curve(c, colour, dashed, x, up)
        entries += [(f"{name(c.points[0])} p99", colour, dashed)]
    return svg(_BOTTOM + 42, f"latency over load of {service.title}", body + _legend(entries))


def _load_curve(curves: Curves, colour: int, dashed: bool, x: Place, up: Place) -> str:
    body = ""
    for quantity in ("p50", "p99"):
        places = [(x(p.offered or 0.0), up(p.percentiles[quantity].value)) for p in curves.points]
        line = _line(places, colour, dashed)
        body += line.replace("series", "series thin") if quantity == "p50" else line
    for p in curves.points:
        found, at = p.percentiles["p99"], x(p.offered or 0.0)
        tip = f"{name(p)}, {p.load}: p99 {format_seconds(found.value)}, {rate(p.answered_per_s)}/s answered"
        if found.low is not None and found.high is not None:
            body += f'<line x1="{at:.1f}" y1="{up(found.low):.1f}" x2="{at:.1f}" y2="{up(found.high):.1f}" class="whisker s{colour}"/>'
        body += (
            f'<circle cx="{at:.1f}" cy="{up(found.value):.1f}" r="3" class="dot s{colour}"><title>{escape(tip)}</title></circle>'
        )
        if p.offered == curves.knee:
            body += f'<circle cx="{at:.1f}" cy="{up(found.value):.1f}" r="8" class="knee s{colour}"><title>knee</title></circle>'
    return body


def over_time(curves: dict[str, Curve], end_s: float, title: str, steps: bool) -> str:
    """A number of each deployment over the time of a run, half a page wide. ``steps``: it holds until it changes."""
    if not curves or end_s <= 0:
        return ""
    left, right, top, bottom = 34.0, 424.0, 30.0, 120.0
    peak = max(max(c.values) for c in curves.values()) or 1.0
    body = (
        axis(end_s, left, right, top, bottom, 4)
        + text(left, 16, title, "name")
        + text(left - 6, top + 6, f"{peak:g}", "tick", "end")
    )
    body += f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" class="frame"/>'
    shown = list(curves.items())[:_COLOURS]
    for number, (deployment, found) in enumerate(shown):
        points = [
            (left + min(t, end_s) / end_s * (right - left), bottom - v / peak * (bottom - top))
            for t, v in zip(found.times_s, found.values, strict=True)
        ]
        if steps:
            points = [
                *(q for p, after in zip(points, points[1:], strict=False) for q in (p, (after[0], p[1]))),
                points[-1],
                (right, points[-1][1]),
            ]
        body += _line(points, number, False)
        x = left + number * (right - left) / len(shown)
        body += _line([(x, bottom + 30), (x + 14, bottom + 30)], number, False) + text(
            x + 18, bottom + 34, short(deployment, int(52 / len(shown))), "tick"
        )
    return svg(bottom + 40, f"{title} over time, at most {peak:g}", body, 430)


def time_parts(service: Service) -> str:
    """One bar a point and one of its slowest requests, cut into the parts of `PARTS`; each bar has its own scale."""
    shown = [p for p in service.points if p.breakdown is not None]
    loads = some_loads(shown)
    rows = [(name(p), p.load, p.breakdown) for p in shown if p.load in loads]
    if not rows:
        return ""
    body, y = "", 6.0
    for label, load, found in rows:
        assert found is not None
        body += text(206, y + 21, short(f"{label} {load}", 31), "name", "end")
        for tail in (False, True):
            body += _part_bar(found, tail, y)
            y += 18
        y += 10
    return svg(y, "where a request's time went", body)


def _part_bar(found: Breakdown, tail: bool, y: float) -> str:
    parts = found.tail if tail else found.mean
    total, left, right = sum(parts.values()) or 1.0, 290.0, WIDTH - 80.0
    body, x = text(left - 8, y + 12, "slowest 1 %" if tail else "mean", "tick", "end"), left
    for number, part in enumerate(PARTS):
        width = parts[part] / total * (right - left)
        tip = f"{part}: {format_seconds(parts[part])} ({parts[part] / total:.0%})"
        body += (
            f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="15" class="t{number}"><title>{escape(tip)}</title></rect>'
        )
        x += width
    return body + text(right + 8, y + 12, format_seconds(sum(parts.values())), "value")
