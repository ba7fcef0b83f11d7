"""Claims as one HTML file: a verdict table, then a section a claim with its test, a plot a rule, what was found, and caveats.

No script, no network: as the report of a comparison. A plot shows a rule's values over the points of its sweep, real ones (dots)
beside simulated ones (diamonds), with intervals, the bound, and shade where the rule does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10
from typing import Any

from windtunnel.reports.judging import Judged, Point, Verdict
from windtunnel.reports.render.charts import short, svg, text
from windtunnel.reports.render.claims import flips, place, shown_value
from windtunnel.reports.render.html import resource, template
from windtunnel.reports.verdicts import number

LEFT, WIDTH, ROW = 230.0, 900.0, 26.0


def page(found: Sequence[Verdict]) -> str:
    """The page. Equal verdicts give equal bytes."""
    from markupsafe import Markup

    html: str = template("claims.html.j2").render(
        found=found, style=Markup(resource("report.css")), plots=lambda v: [Markup(p) for p in plots(v)], flips=flips, place=place,
        value=shown_value, agreement=agreement, bound=bound,
    )  # fmt: skip
    return html


def agreement(verdict: Verdict) -> str:
    """How far the two worlds say the same; empty where only one says anything."""
    real, simulated = verdict.of("real"), verdict.of("simulated")
    if real is None or simulated is None or "inconclusive" in (real, simulated):
        return ""
    same, of = verdict.places
    at = f" at {same} of {of} places that both tell" if of else ", by tests of their own"
    if real == simulated:
        return f"Real and simulated verdicts agree{at}."
    return f"Real ({real}) and simulated ({simulated}) verdicts differ{at}: {verdict.claim.differs or 'no reason is known.'}"


def bound(judged: Judged) -> str:
    """Of the rule, for people."""
    return f"≥ {judged.rule.least:g}" if judged.rule.least is not None else f"≤ {judged.rule.most:g}"


def plots(verdict: Verdict) -> Iterator[str]:
    """One for each rule that has a value; equal words in both worlds share one."""
    groups: dict[str, list[Judged]] = {}
    for judged in verdict.judged:
        groups.setdefault(judged.rule.say, []).append(judged)
    for say, members in groups.items():
        lines = [(p, j) for j in members for p in j.points if p.found is not None and p.found.value > 0]
        if lines:
            yield _plot(say, lines)


def _plot(say: str, lines: Sequence[tuple[Point, Judged]]) -> str:
    rule = lines[0][1].rule
    limit = rule.least if rule.least is not None else rule.most
    assert limit is not None
    values = [v for p, _ in lines for v in (p.found.value, p.found.low, p.found.high) if p.found and v]  # type: ignore[union-attr]
    ends = [*values, *([limit] if limit > 0 else [])]
    low, high = log10(min(ends) / 1.2), log10(max(ends) * 1.2)
    right, bottom = WIDTH - 90, 34 + len(lines) * ROW

    def x(value: float) -> float:
        return LEFT + (log10(value) - low) / (high - low) * (right - LEFT)

    body = text(0, 16, f"{short(say, 90)} ({_sides(lines[0][1])})", "name")
    if limit > 0:
        ends_x = (LEFT, x(limit)) if rule.least is not None else (x(limit), right)
        body += f'<rect x="{ends_x[0]:.1f}" y="26" width="{max(0.0, ends_x[1] - ends_x[0]):.1f}" height="{bottom - 26:g}" class="floor"/>'
        body += f'<line x1="{x(limit):.1f}" y1="26" x2="{x(limit):.1f}" y2="{bottom:g}" class="one"/>'
        body += text(x(limit), bottom + 14, f"bound {limit:g}", "tick", "middle")
    for row, (point, judged) in enumerate(lines):
        body += _mark(point, judged, 34 + (row + 0.5) * ROW, x)
    return svg(bottom + 20, f"{say}: values and bound", body)


def _sides(judged: Judged) -> str:
    rule = judged.rule
    name = rule.quantity.removeprefix("counters.").replace("_", " ")
    return f"{name} of {rule.of.engine}" + (f" ÷ that of {rule.over.engine}" if rule.over else "")


def _mark(point: Point, judged: Judged, y: float, x: Any) -> str:
    assert point.found is not None
    kind = "sim" if judged.test.world == "simulated" else "real"
    name = place(point) or judged.test.name
    parts = [text(LEFT - 12, y + 4, short(f"{name} · {judged.test.world}", 33), "name", "end")]
    middle = x(point.found.value)
    if point.found.low and point.found.high:
        parts.append(
            f'<line x1="{x(point.found.low):.1f}" y1="{y:g}" x2="{x(point.found.high):.1f}" y2="{y:g}" class="interval {kind}"/>'
        )
    if kind == "sim":
        parts.append(
            f'<path d="M{middle - 6:.1f} {y:g}L{middle:.1f} {y - 6:g}L{middle + 6:.1f} {y:g}L{middle:.1f} {y + 6:g}Z" class="median sim"/>'
        )
    else:
        parts.append(f'<circle cx="{middle:.1f}" cy="{y:g}" r="5.5" class="median real"/>')
    parts.append(text(WIDTH - 80, y + 4, number(point.found.value), "value"))
    return "".join(parts) + f"<title>{escape(name)}: {escape(shown_value(point))}</title>"
