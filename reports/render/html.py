"""The comparison as one HTML file: no script, no network, no outside file; a content policy in the page forbids them.

Records are untrusted: the template escapes all it shows (Jinja2 autoescape), and the drawings escape their own texts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from windtunnel.reports.breakdown import PARTS
from windtunnel.reports.compare import Comparison
from windtunnel.reports.metrics import KINDS
from windtunnel.reports.render import charts, serving_charts, serving_words, words
from windtunnel.reports.render.details import details
from windtunnel.reports.render.screen import screen
from windtunnel.spec.units import format_bytes, format_seconds


def render(comparison: Comparison) -> str:
    """The page. Equal comparisons give equal bytes."""
    from markupsafe import Markup

    served = _serving(comparison, Markup) if comparison.services else ""
    used = {bar.kind for t in comparison.timelines for lane in t.lanes for bar in lane.bars}
    page: str = template("report.html.j2").render(
        comparison=comparison,
        served=Markup(served),
        words=words,
        details=details,
        heads=words.HEADS,
        chart=lambda name, *args: Markup(getattr(charts, name)(*args)),
        screen=lambda found: Markup(screen(found)),
        kinds=[k for k in KINDS if k in used],
        parity=[(p.real_s, p.simulated_s) for p in comparison.fidelity.points],
        seconds=format_seconds,
        bytes=format_bytes,
        plain=_plain,
        style=Markup(resource("report.css")),
    )
    return page


def _serving(comparison: Comparison, mark: Callable[[str], Any]) -> str:
    """The part on services."""
    section: str = template("serving.html.j2").render(
        services=comparison.services,
        words=serving_words,
        name=serving_words.name,
        parts=tuple(PARTS),
        distributions=lambda service: [mark(d) for d in serving_charts.distributions(service)],
        chart=lambda name, *args: mark(getattr(serving_charts, name)(*args)),
    )
    return section


@cache
def template(name: str) -> Any:
    """A template that escapes all it shows."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(resource(name))


def resource(name: str) -> str:
    """A file that ships beside this module."""
    return files("windtunnel.reports.render").joinpath(name).read_text(encoding="utf-8")


def _plain(value: Any) -> str:
    """A value of an option or an environment as short text."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in sorted(value.items())) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "–"
    return "default" if value is None else str(value)
