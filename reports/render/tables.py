"""Pages of plain sections: a title, sentences, a command, a table, a link to another page. Knows no record and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.reports.render.html import resource, template


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """With a ``link`` it is a card that leads to another page."""

    title: str
    lines: Sequence[str] = ()
    command: str = ""
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Title, sentences at the top, sections."""

    title: str
    lead: Sequence[str] = ()
    sections: Sequence[Section] = ()


def render(page: Page) -> str:
    """One self-contained HTML file; everything is escaped."""
    from markupsafe import Markup

    html: str = template("tables.html.j2").render(page=page, style=Markup(resource("report.css")))
    return html
