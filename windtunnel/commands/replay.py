"""``windtunnel replay LOG``: a recorded job simulated as it was, and how far off that is, part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windtunnel.commands.common import json_option, print_json, results_console, say

if TYPE_CHECKING:
    from windtunnel.sim.recorded.replay import Replay
    from windtunnel.spec.jobgraph import JobGraph


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--mapping", type=click.Path(path_type=Path), help="TOML file that says which spans of a trace are tasks.")
@json_option
def replay(log: Path, mapping: Path | None, as_json: bool) -> int:
    """Simulate a recorded job on its recorded cluster; LOG is any log that `import` reads, or a saved job graph."""
    from windtunnel.errors import InputError
    from windtunnel.logs.reading import read_logs
    from windtunnel.sim.recorded.replay import replay as replayed
    from windtunnel.spec.jobgraph import JobGraph

    found = read_logs((log,), mapping, False)
    graphs = [g for g in found if isinstance(g, JobGraph)]
    if not graphs:
        raise InputError(f"{log} holds requests to a service and no job; `windtunnel import {log}` makes a scenario of it")
    results = [(g, replayed(g)) for g in graphs]
    if as_json:
        print_json({"schema": 1, "replayed": [_document(g, r) for g, r in results]})
        return 0
    for graph, result in results:
        _print(graph, result)
    return 0


def _document(graph: JobGraph, result: Replay) -> dict[str, object]:
    parts = [
        {"part": p.number, "groups": p.groups, "tasks": p.tasks, "recorded_s": list(p.recorded), "replayed_s": list(p.replayed)}
        for p in result.parts
    ]
    return {
        "name": graph.name, "system": graph.system, "recorded_s": result.recorded_s, "replayed_s": result.replayed_s,
        "error": result.error, "parts": parts, "notes": list(graph.notes),
    }  # fmt: skip


def _print(graph: JobGraph, result: Replay) -> None:
    from rich.table import Table
    from rich.text import Text

    from windtunnel.spec.units import format_seconds

    console = results_console()
    told = (
        f"recorded {format_seconds(result.recorded_s)}, replayed {format_seconds(result.replayed_s)}, error {result.error:+.1%}"
    )
    console.print(Text.assemble((graph.name, "bold"), f"  {told}"))
    table = Table("part", "tasks", "began", "replayed", "ended", "replayed", box=None)
    for part in result.parts:
        ends = (part.recorded[0], part.replayed[0], part.recorded[1], part.replayed[1])
        table.add_row(str(part.number), str(part.tasks), *map(format_seconds, ends))
    console.print(table)
    for note in graph.notes:
        say(f"note: {note}")
