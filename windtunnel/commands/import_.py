"""``windtunnel import FILE…``: logs of other systems as job graphs, and records of a service as a scenario."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, results_console, say

if TYPE_CHECKING:
    from windtunnel.logs.requests import ServiceLog
    from windtunnel.spec.jobgraph import JobGraph

_SUFFIXES = re.compile(r"(\.graph)?(\.(json|jsonl|html|txt|zstd|zst|gz|lz4|snappy|log|msgpack))*$")
#: the machine of an imported service, to be changed by whoever knows it
_SERVICE_NODE = '[[cluster.nodes]]\nname = "gpu"\ncount = 1\ncpus = 8\nmemory = "64GiB"\ngpus = { count = 1, memory = "80GiB" }\n'


@click.command(name="import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=".", help="Folder to write to.  [default: here]")
@click.option("--mapping", type=click.Path(path_type=Path), help="TOML file that says which spans of a trace are tasks.")
@click.option("--keep-names", is_flag=True, help="Keep names of hosts and call sites too (by default they are dropped).")
@json_option
def import_log(files: tuple[Path, ...], out: Path, mapping: Path | None, keep_names: bool, as_json: bool) -> int:
    """Read logs of Spark, Dask, Ray, Flink, workflow managers, traces or token services, and keep each as a job graph."""
    from windtunnel.logs.reading import read_logs
    from windtunnel.spec.jobgraph import JobGraph

    logs = read_logs(files, mapping, keep_names)
    out.mkdir(parents=True, exist_ok=True)
    documents = [_keep_job(g, out, as_json) if isinstance(g, JobGraph) else _keep_service(g, out, as_json) for g in logs]
    if as_json:
        print_json({"schema": 1, "imported": documents})
    return 0


def _keep_job(graph: JobGraph, out: Path, quiet: bool) -> dict[str, Any]:
    from windtunnel.logs.saved import save_graph
    from windtunnel.reports.recorded import describe_graph

    path = out / f"{stem(graph.name)}.graph.json.gz"
    save_graph(graph, path)
    told = describe_graph(graph)
    if not quiet:
        print_recorded(graph)
        say(f"job graph: {path}; next: `windtunnel replay {path}`")
    return {
        "kind": "job", "file": str(path), "name": graph.name, "system": graph.system, "version": graph.version,
        "groups": len(graph.groups), **asdict(told), "settings": dict(graph.settings), "notes": list(graph.notes),
    }  # fmt: skip


def _keep_service(log: ServiceLog, out: Path, quiet: bool) -> dict[str, Any]:
    from windtunnel.logs.requests import scenario_text, write_trace

    name = stem(log.name)
    trace, scenario = out / f"{name}.requests.csv", out / f"{name}.toml"
    write_trace(log, trace)
    scenario.write_text(scenario_text(log, trace.name, _SERVICE_NODE), encoding="utf-8")
    if not quiet:
        for note in log.notes:
            say(f"note: {note}")
        click.echo(f"{log.name}: {len(log.arrival_s)} requests to {log.system} over {float(log.arrival_s[-1]):.4g} s")
        say(f"scenario: {scenario}; say there what it runs on, then: `windtunnel simulate {scenario}`")
    step = None if log.step is None else dict(zip(("iteration_s", "decode_s", "prefill_s"), log.step, strict=True))
    return {
        "kind": "service", "file": str(scenario), "trace": str(trace), "name": log.name, "system": log.system,
        "requests": len(log.arrival_s), "step": step, "notes": list(log.notes),
    }  # fmt: skip


def stem(name: str) -> str:
    """A log's name without its suffixes, fit for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", _SUFFIXES.sub("", name)).strip("-.") or "job"


def print_recorded(graph: JobGraph) -> None:
    """What a job says of itself, in a few lines."""
    from rich.text import Text

    console = results_console()
    console.print(Text.assemble((graph.name, "bold"), f"  {graph.system} {graph.version}".rstrip()))
    for head, text in recorded_lines(graph):
        console.print(Text.assemble((f"  {head:<12}", "bold"), text))


def recorded_lines(graph: JobGraph) -> list[tuple[str, str]]:
    """The same as heads and texts."""
    from windtunnel.reports.recorded import PART_NAMES, describe_graph
    from windtunnel.spec.units import format_bytes, format_seconds

    told = describe_graph(graph)
    hosts = len({m.host for m in graph.machines})
    before = f"; {format_seconds(told.before_s)} from the application's start to it" if told.before_s else ""
    idle = f", of which {format_seconds(told.idle_s)} without any task" if graph.timed else ""
    busy = f", busy {told.busy:.0%} of their time" if graph.timed else ""
    shares = [(s, PART_NAMES[n]) for n, s in told.parts_s.items() if told.task_s and s >= 0.005 * told.task_s]
    moved = ((told.fetched_bytes, "fetched from other machines"), (told.spilled_bytes, "spilled"))
    bad = ", ".join(f"{n} {s}" for s, n in told.attempts.items())
    return [
        ("job", f"{format_seconds(told.window_s)}{idle}{before}"),
        ("tasks", f"{told.tasks} in {len(graph.groups)} groups, {format_seconds(told.task_s)} together"),
        ("ran on", f"{len(graph.machines)} machine(s) on {hosts} host(s), {told.slots} slots in all{busy}"),
        ("their time", ", ".join(f"{s / told.task_s:.0%} {name}" for s, name in sorted(shares, reverse=True)) or "not told"),
        ("bytes", ", ".join(f"{format_bytes(n)} {what}" for n, what in moved if n is not None) or "not told"),
        *([("attempts", f"not ended well: {bad}")] if bad else []),
        *(("note", note) for note in graph.notes),
    ]
