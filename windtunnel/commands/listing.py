"""``windtunnel engines``, ``workloads`` and ``doctor``: what there is, and what works here."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from windtunnel.commands.common import json_option, print_json

PLAIN_WIDTH = 160  # where nobody says how wide the output may be


markdown_option = click.option("--markdown", is_flag=True, help="Print the tables of the documentation.")


@click.command()
@markdown_option
@json_option
def engines(markdown: bool, as_json: bool) -> int:
    """List the engines, whether they can run here, and their options."""
    rows = [_engine(name) for name in _engine_names()]
    if markdown:
        click.echo(engines_markdown(rows), nl=False)
        return 0
    if as_json:
        print_json({"schema": 1, "engines": rows})
        return 0
    _print(("engine", "here", "options"), [(r["name"], r["here"], ", ".join(o["name"] for o in r["options"])) for r in rows])
    return 0


def _engine_names() -> tuple[str, ...]:
    from windtunnel.registry import engine_names

    return engine_names()


def _engine(name: str) -> dict[str, Any]:
    from windtunnel.errors import MissingEngine
    from windtunnel.registry import load_engine

    try:
        engine = load_engine(name)
    except MissingEngine as error:
        return {"name": name, "here": str(error), "options": [], "gaps": {}, "features": {}}
    except ImportError as error:
        return {"name": name, "here": f"cannot be imported: {error}", "options": [], "gaps": {}, "features": {}}
    options = [{**asdict(o), "choices": list(o.choices)} for o in engine.options]
    capabilities = engine.capabilities
    return {
        "name": name, "here": "ready", "options": options, "gaps": dict(capabilities.gaps), "features": dict(capabilities.features),
    }  # fmt: skip


def engines_markdown(rows: list[dict[str, Any]]) -> str:
    """A section an engine: what it does and how, what it cannot, its options."""
    parts = []
    for row in rows:
        parts += [f"## {row['name']}", ""]
        parts += [f"- **{name}**: {text}" for name, text in row["features"].items()]
        parts += [f"- **no {name}**: {text}" for name, text in row["gaps"].items()]
        if row["options"]:
            parts += ["", "| option | default | what it does |", "|---|---|---|"]
            parts += [f"| `{o['name']}` | `{o['default']}` | {_sentence(o)} |" for o in row["options"]]
        parts.append("")
    return "\n".join(parts)


def _sentence(option: dict[str, Any]) -> str:
    choices = ", ".join(f"`{c}`" for c in option["choices"])
    return f"{option['doc']}" + (f" ({choices})" if choices else "")


def workloads_markdown() -> str:
    """The catalogue as a table."""
    from windtunnel.workloads.catalogue import list_workloads

    lines = ["| workload | default scale | operators | what it computes |", "|---|---|---|---|"]
    lines += [f"| `{i.name}` | {i.scale:g} | {i.operators} | {i.description} |" for i in list_workloads()]
    return "\n".join(lines) + "\n"


@click.command()
@markdown_option
@json_option
def workloads(markdown: bool, as_json: bool) -> int:
    """List the workloads of the catalogue."""
    from windtunnel.workloads.catalogue import list_workloads

    if markdown:
        click.echo(workloads_markdown(), nl=False)
        return 0
    infos = list_workloads()
    if as_json:
        print_json({"schema": 1, "workloads": [asdict(i) for i in infos]})
        return 0
    _print(
        ("workload", "kind", "scale", "operators", "what it computes"),
        [(i.name, i.kind, f"{i.scale:g}", str(i.operators), i.description) for i in infos],
    )
    return 0


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Say what works on this machine and how to install what does not."""
    from windtunnel.doctor import examine

    checks = examine()
    if as_json:
        print_json({"schema": 1, "checks": [asdict(c) for c in checks]})
        return 0
    _print(("what", "status", ""), [(c.name, c.status, c.text) for c in checks])
    return 0


def _print(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
