"""``windtunnel validate [TABLE…]``: published measurements, simulated, with the error of every cell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, progress
from windtunnel.errors import ExitCode

if TYPE_CHECKING:
    from windtunnel.sim.judging.validate import Checked, Summary


@click.command()
@click.argument("tables", nargs=-1)
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown, as in the documentation.")
@click.option("--jobs", type=click.IntRange(1), help="Cells simulated side by side; default one a CPU.")
def validate(tables: tuple[str, ...], as_json: bool, markdown: bool, jobs: int | None) -> int:
    """Simulate published measurements and print the error of every cell; TABLES by name or as files, default all."""
    from windtunnel.running.environment import usable_cpus
    from windtunnel.running.experiment import Progress
    from windtunnel.sim.judging import validate as check

    loaded = [check.load(name) for name in tables or check.names()]
    total = sum(len(t.cells) for t in loaded)
    with progress() as show:
        done = 0

        def told(checked: Checked) -> None:
            nonlocal done
            done += 1
            show(Progress(kind="cell", index=done, total=total, text=f"{checked.cell.table}: {checked.cell.name}"))

        summaries = check.validate(loaded, told, processes=jobs or usable_cpus())
    if as_json:
        print_json({"schema": 1, "tables": [_document(s) for s in summaries]})
    elif markdown:
        click.echo("\n\n".join([overview_markdown(summaries), *(table_markdown(s) for s in summaries), constants_markdown()]))
    else:
        _print(summaries)
    right = all(s.status_right[0] == s.status_right[1] for s in summaries)
    return ExitCode.OK if right else ExitCode.INCOMPLETE


def _document(summary: Summary) -> dict[str, Any]:
    cells = [
        {
            "system": c.cell.system, "at": dict(c.cell.at), "fitted": c.cell.fitted, "quantity": c.cell.quantity,
            "published": {"status": c.cell.status, "value": c.cell.value},
            "simulated": {"status": c.status, "value": c.value, "reason": c.reason}, "error": c.error,
        }
        for c in summary.checked
    ]  # fmt: skip
    return {
        "table": summary.table.name, "title": summary.table.title, "unit": summary.table.unit, "source": summary.table.source,
        "cells": cells, "median_error": summary.median, "median_error_unfitted": summary.unfitted, "worst_error": summary.worst,
        "status_right": list(summary.status_right), "order_kept": list(summary.order), "below_floor": summary.below_floor,
    }  # fmt: skip


def _verdict(summary: Summary) -> str:
    """One line: errors, order, statuses."""
    parts = []
    if summary.median is not None and summary.worst is not None:
        parts.append(f"median error {summary.median:.1%}, worst {summary.worst:.0%}")
        if summary.unfitted is not None and any(c.cell.fitted for c in summary.checked):
            parts.append(f"{summary.unfitted:.1%} in cells that nothing was fitted to")
    kept, columns = summary.order
    if columns:
        parts.append(f"order of systems kept in {kept} of {columns}")
    right, cells = summary.status_right
    parts.append(f"status right in {right} of {cells}")
    if summary.table.floor:
        parts.append(f"{summary.below_floor or 'none'} below the optimum of {summary.table.floor:g} {summary.table.unit}")
    return "; ".join(parts)


def _rows(summary: Summary) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for c in summary.checked:
        place = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in c.cell.at)
        error = "" if c.error is None else f"{c.error:+.1%}"
        if c.error is None:
            error = "same" if c.status == c.cell.status else "differs"
        rows.append((c.cell.system, place, _shown(c.cell.status, c.cell.value), _shown(c.status, c.value), error,
                     "fitted" if c.cell.fitted else ""))  # fmt: skip
    return rows


def _shown(status: str, value: float | None) -> str:
    return status.replace("_", " ") if value is None else f"{value:.4g}"


def overview_markdown(summaries: list[Summary]) -> str:
    """A line a table."""
    lines = ["| table | cells | fitted | median error | not fitted | worst | order kept | status right |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for s in summaries:
        fitted = sum(c.cell.fitted for c in s.checked)
        errors = ["" if e is None else f"{e:.1%}" for e in (s.median, s.unfitted, s.worst)]
        lines.append(f"| [{s.table.title}](#{_anchor(s.table.title)}) | {len(s.checked)} | {fitted} | {' | '.join(errors)} | "
                     f"{s.order[0]} of {s.order[1]} | {s.status_right[0]} of {s.status_right[1]} |")  # fmt: skip
    return "\n".join(lines)


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return re.sub(r"[\s-]+", "-", kept.strip())


def constants_markdown() -> str:
    """Every constant of every model of an engine, with its source and what it was fitted to."""
    from windtunnel.engines.models import catalogue, serving

    lines = ["## Constants of the models", "", "| engine | constant | value | source | fitted to |", "|---|---|---:|---|---|"]
    tables = [(name, entry.traits.constants) for name, entry in catalogue.ENTRIES.items()]
    tables += [(f"{name}, {way}", found) for name, entry in catalogue.ENTRIES.items() for way, found in entry.variants.items()]
    for name, entry in serving.ENTRIES.items():
        tables += [(name if len(entry.proxies) == 1 else f"{name}, {proxy}", found) for proxy, found in entry.proxies.items()]
    for name, constants in tables:
        lines += [f"| {name} | `{c.name}` | {c.value:.4g} | {c.source} | {c.fitted} |" for c in constants]
    return "\n".join(lines)


def table_markdown(summary: Summary) -> str:
    """A table's cells, and what is to be said about them."""
    table = summary.table
    head = f"## {table.title}\n\n`{table.name}` · {table.source}\n\n{_verdict(summary)}.\n"
    lines = [head, f"| system | at | published ({table.unit}) | simulated | error | |", "|---|---|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(summary)]
    return "\n".join([*lines, "", table.notes.strip()]).rstrip()


def _print(summaries: list[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for summary in summaries:
        table = Table(
            title=Text(summary.table.title), title_justify="left", caption=Text(_verdict(summary)), caption_justify="left"
        )
        for head in ("system", "at", f"published ({summary.table.unit})", "simulated", "error", ""):
            table.add_column(Text(head), justify="right" if head not in ("system", "at", "") else "left")
        for row in _rows(summary):
            style = "red" if row[4] == "differs" else ""
            table.add_row(*(Text(cell, style=style) for cell in row))
        console.print(table)
        for reason in dict.fromkeys(
            f"{c.cell.name}: {c.reason}" for c in summary.checked if c.reason and c.status != c.cell.status
        ):
            console.print(reason, markup=False, highlight=False)
        console.print()
