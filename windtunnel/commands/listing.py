"""``windtunnel engines``, ``workloads``, ``instances`` and ``doctor``: what there is, and what works here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, results_console

if TYPE_CHECKING:
    from windtunnel.spec.catalogue import InstanceType


markdown_option = click.option("--markdown", is_flag=True, help="Print the tables of the documentation.")


@click.group(invoke_without_command=True)
@markdown_option
@json_option
@click.pass_context
def engines(ctx: click.Context, markdown: bool, as_json: bool) -> int:
    """List the engines, whether they can run here, and their options; or install one that needs an environment of its own."""
    if ctx.invoked_subcommand is not None:
        return 0
    rows = [_engine(name) for name in _engine_names()]
    if markdown:
        click.echo(engines_markdown(rows), nl=False)
        return 0
    if as_json:
        print_json({"schema": 1, "engines": rows})
        return 0
    _print(("engine", "here", "options"), [(r["name"], r["here"], ", ".join(o["name"] for o in r["options"])) for r in rows])
    return 0


@engines.command()
@click.argument("name")
@click.option("--extra", "extras", multiple=True, help="Also what this extra of windtunnel needs, for kernels (inference).")
@click.option("--with", "further", multiple=True, metavar="REQUIREMENT", help="Also this package, for kernels of yours.")
def install(name: str, extras: tuple[str, ...], further: tuple[str, ...]) -> int:
    """Install an engine whose libraries clash with ours into an environment of its own (in $WINDTUNNEL_ENVIRONMENTS)."""
    from windtunnel.errors import InputError
    from windtunnel.registry import own_requirements
    from windtunnel.running import interpreters

    if not (needs := own_requirements(name)):
        raise InputError(f"engine {name!r} runs in this environment and needs none of its own")
    extra = [requirement for e in extras for requirement in interpreters.extra_requirements(e)]
    place = interpreters.install(name, (*needs, *extra, *further), lambda step: click.echo(step, err=True))
    click.echo(f"{name} is installed in {place.folder}")
    return 0


def _engine_names() -> tuple[str, ...]:
    from windtunnel.registry import engine_names

    return engine_names()


def _engine(name: str) -> dict[str, Any]:
    from windtunnel.registry import describe_engine, engine_entry, missing_modules

    absent, install = missing_modules(name), engine_entry(name).install
    here = f"needs {', '.join(absent)}; run: {install}" if absent else "ready"
    try:
        engine = describe_engine(name)
    except ImportError as error:
        return {"name": name, "here": f"cannot be imported: {error}", "options": [], "gaps": {}, "features": {}}
    options = [{**asdict(o), "choices": list(o.choices)} for o in engine.options]
    capabilities = engine.capabilities
    return {
        "name": name, "here": here, "options": options, "gaps": dict(capabilities.gaps), "features": dict(capabilities.features),
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


_INSTANCE_HEADS = ("type", "CPUs", "memory", "GPUs", "network", "disk read / write", "price an hour", "per CPU or GPU")


@click.command()
@markdown_option
@json_option
def instances(markdown: bool, as_json: bool) -> int:
    """List the instance types that a node group of a scenario may name."""
    from windtunnel.spec.catalogue import shipped

    types = tuple(shipped().values())
    if markdown:
        click.echo(instances_markdown(types), nl=False)
    elif as_json:
        print_json({"schema": 1, "instances": [_instance_document(t) for t in types]})
    else:
        _print(_INSTANCE_HEADS, [_instance(t) for t in types])
    return 0


def instances_markdown(types: Iterable[InstanceType]) -> str:
    """A section a source of prices, in the order of the catalogue."""
    lines = []
    for (source, date), group in groupby(types, key=lambda t: (t.source, t.date)):
        lines += [f"## {source}, {date}", "", f"| {' | '.join(_INSTANCE_HEADS)} |", "|---" * len(_INSTANCE_HEADS) + "|"]
        lines += [f"| {' | '.join((f'`{name}`', *cells))} |" for name, *cells in map(_instance, group)]
        lines.append("")
    return "\n".join(lines)


def _instance(kind: InstanceType) -> tuple[str, ...]:
    node, gpus = kind.node, kind.node.gpus
    unit, count = ("GPU", gpus.count) if gpus.count else ("CPU", node.cpus)
    return (
        kind.name,
        str(node.cpus),
        f"{node.memory_bytes / 2**30:g} GiB",
        f"{gpus.count} × {gpus.kind} ({gpus.memory_bytes / 2**30:g} GiB)" if gpus.count else "–",
        f"{node.nic_bytes_per_s * 8 / 1e9:g} Gbit/s",
        f"{node.disk.read_bytes_per_s / 1e6:g} / {node.disk.write_bytes_per_s / 1e6:g} MB/s",
        f"${node.price_per_hour_usd:.3f}",
        f"${node.price_per_hour_usd / count:.3f} a {unit}",
    )


def _instance_document(kind: InstanceType) -> dict[str, Any]:
    """What the catalogue says of a type, in base units."""
    group = ("name", "count", "type", "memory_limit_bytes")
    figures = {key: value for key, value in asdict(kind.node).items() if key not in group}
    return {"name": kind.name, **figures, "source": kind.source, "date": kind.date}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Say what works on this machine and how to install what does not."""
    from windtunnel.running.doctor import examine

    checks = examine()
    if as_json:
        print_json({"schema": 1, "checks": [asdict(c) for c in checks]})
        return 0
    _print(("what", "status", ""), [(c.name, c.status, c.text) for c in checks])
    return 0


def _print(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    results_console().print(table)
