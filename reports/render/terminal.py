"""The comparison on a terminal: verdicts first, a table a group, effects, errors of the simulation. Plain text through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from windtunnel.reports.compare import Comparison, Effect, Group
from windtunnel.reports.decompose import Decomposition
from windtunnel.reports.render import serving_words, words
from windtunnel.reports.render.details import Detail, details
from windtunnel.reports.rows import Row
from windtunnel.reports.services import Service
from windtunnel.spec.units import format_seconds

PLAIN_WIDTH = 160  # where nobody says how wide the output may be
_RIGHT = ("makespan", "95% interval", "runs", "against", "peak memory", "spilled", "start")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print it to ``console`` (standard output)."""
    out = console or _console()
    forbidding = len(comparison.left_aside) + len(comparison.not_comparable)
    for warning in comparison.warnings[:forbidding]:
        out.print(Text(warning, style="bold red"))
    out.print(Text("Verdict", style="bold"))
    for sentence in comparison.verdicts:
        out.print(Text(f"  {sentence}"))
    for group in comparison.groups:
        out.print()
        out.print(_table(group))
        out.print(Text(words.noise(group), style="dim"))
        for found in details(group):
            out.print()
            out.print(_detail(found))
            out.print(Text(words.sentence(found.hint), style="dim"))
    if comparison.effects:
        out.print()
        out.print(_effects(comparison.effects))
    _print_parts(comparison.decompositions, out)
    if comparison.fidelity.points or comparison.fidelity.unmeasured:
        out.print()
        out.print(Text("Simulated against real", style="bold"))
        out.print(Text(f"  {words.fidelity_sentence(comparison.fidelity)}"))
    for service in comparison.services:
        _service(service, out)
    for warning in comparison.warnings[forbidding:]:
        out.print(Text(f"warning: {warning}", style="yellow"))


def _console() -> Console:
    """Plain text through a pipe and with NO_COLOR; rich alone would keep bold."""
    plain = False if os.environ.get("NO_COLOR") else None
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, force_terminal=plain)


def _table(group: Group) -> Table:
    table = Table(title=Text(group.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head in words.HEADS:
        table.add_column(Text(head), justify="right" if head in _RIGHT else "left", overflow="fold")
    for row in group.rows:
        table.add_row(*(Text(cell) for cell in words.cells(row)), style=_style(row))
    return table


def _detail(found: Detail) -> Table:
    table = Table(title=Text(found.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, head in enumerate(found.heads):
        table.add_column(Text(head), justify="right" if number else "left", overflow="fold")
    for cells, clock in zip(found.rows, found.clocks, strict=True):
        table.add_row(*(Text(cell) for cell in cells), style="dim" if clock == "virtual" else "")
    return table


def _service(service: Service, out: Console) -> None:
    for table in serving_words.tables(service):
        out.print()
        shown = Table(title=Text(table.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False)
        for place, head in enumerate(table.heads):
            shown.add_column(Text(head), justify="left" if place < table.names or head == "note" else "right", overflow="fold")
        for cells, kind in table.rows:
            shown.add_row(*(Text(c) for c in cells), style={"bad": "red", "virtual": "dim"}.get(kind, ""))
        out.print(shown)


def _style(row: Row) -> str:
    if row.status != "ok":
        return "red"
    return "dim" if row.aa or row.clock == "virtual" else ""


def _print_parts(found: Sequence[Decomposition], out: Console) -> None:
    """One difference in full, several as a table a group with a column a part."""
    for title in dict.fromkeys(d.title for d in found):
        group = [d for d in found if d.title == title]
        out.print()
        if len(group) == 1:
            out.print(_parts(group[0]))
            out.print(Text(words.sentence(words.decomposition_title(group[0])), style="dim"))
            continue
        table = Table(
            title=Text(f"Why slower: {title}", style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
        )
        shown = [words.part_cells(d) for d in group]
        for number, head in enumerate(words.PART_HEADS):
            if number < 3 or any(cells[number] != "0" for cells in shown):
                table.add_column(Text(head), justify="left" if number < 2 else "right", overflow="fold")
        for cells in shown:
            table.add_row(*(Text(c) for n, c in enumerate(cells) if n < 3 or any(other[n] != "0" for other in shown)))
        out.print(table)
        out.print(Text(words.PARTS_HINT, style="dim"))


def _parts(found: Decomposition) -> Table:
    title = Text(f"Why {found.slower} takes longer than {found.faster}: {found.title}", style="bold")
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head in ("part", "seconds", "known"):
        table.add_column(Text(head), justify="right" if head == "seconds" else "left")
    table.add_row(Text(found.faster), Text(format_seconds(found.faster_s)), Text("start-up and run"))
    for part in found.parts:
        table.add_row(Text(f"  {part.name}"), Text(words.signed(part.seconds)), Text(words.part_note(part)))
    table.add_row(Text(found.slower), Text(format_seconds(found.slower_s)), Text("start-up and run"))
    return table


def _effects(effects: tuple[Effect, ...]) -> Table:
    title = Text("Model effect and engine effect (makespan against bulk, everything else equal)", style="bold")
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head in ("effect", "workload", "engine", "ratio", "shows"):
        table.add_column(Text(head), justify="right" if head == "ratio" else "left")
    for effect in effects:
        cells = (effect.kind, effect.workload, effect.label, words.ratio_interval(effect.ratio), effect.verdict)
        table.add_row(*(Text(c) for c in cells))
    return table
