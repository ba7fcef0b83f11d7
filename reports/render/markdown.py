"""The comparison as Markdown, for a pull request or a document."""

from __future__ import annotations

from collections.abc import Iterable

from windtunnel.reports.compare import Comparison
from windtunnel.reports.render import serving_words, words
from windtunnel.reports.render.details import details


def render(comparison: Comparison) -> str:
    """Markdown text, ending in a line break."""
    parts = [f"# {_plain(comparison.title)}", ""]
    parts += [f"> **warning**: {_plain(w)}\n" for w in comparison.warnings]
    parts += [f"- {_plain(v)}" for v in comparison.verdicts]
    for group in comparison.groups:
        parts += ["", f"## {_plain(group.title)}", "", *_table(words.HEADS, (words.cells(r) for r in group.rows))]
        parts += ["", words.noise(group)]
        for detail in details(group):
            parts += ["", f"### {detail.title}", "", *_table(detail.heads, detail.rows), "", words.sentence(detail.hint)]
    if comparison.effects:
        rows = ((e.kind, e.workload, e.label, words.ratio_interval(e.ratio), e.verdict) for e in comparison.effects)
        parts += ["", "## Model effect and engine effect", "", "Makespan against bulk, everything else equal.", ""]
        parts += _table(("effect", "workload", "engine", "ratio", "shows"), rows)
    for found in comparison.decompositions:
        cells = ((p.name, words.signed(p.seconds), words.part_note(p)) for p in found.parts)
        parts += ["", f"## {_plain(f'Why {found.slower} takes longer than {found.faster}: {found.title}')}", ""]
        parts += [_plain(words.sentence(words.decomposition_title(found))), "", *_table(("part", "seconds", "known"), cells)]
    if comparison.fidelity.points or comparison.fidelity.unmeasured:
        parts += ["", "## Simulated against real", "", words.fidelity_sentence(comparison.fidelity)]
    for service in comparison.services:
        for number, table in enumerate(serving_words.tables(service)):
            parts += [
                "",
                f"{'##' if number == 0 else '###'} {_plain(table.title)}",
                "",
                *_table(table.heads, (c for c, _ in table.rows)),
            ]
    return "\n".join(parts) + "\n"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    lines = [_line(heads), _line(["---"] * len(heads))]
    return lines + [_line(row) for row in rows]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.replace("`", "\\`").replace("*", "\\*").split())
