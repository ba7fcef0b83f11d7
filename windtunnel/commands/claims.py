"""``windtunnel claims``: what is said about engines, tested: list, run, and report verdicts from stored records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windtunnel.commands.common import json_option, print_json, progress, say
from windtunnel.errors import ExitCode

if TYPE_CHECKING:
    from windtunnel.experiment import Experiment
    from windtunnel.record import RunRecord
    from windtunnel.reports.claims import Claim, Test, Verdict

_FOLDER = Path("results") / "claims"
_results = click.option(
    "--results", type=click.Path(path_type=Path), default=_FOLDER, show_default=True, help="Folder of the evidence."
)


@click.group()
def claims() -> None:
    """Claims about engines, each with its test: list them, run them, report their verdicts."""


@claims.command(name="list")
@json_option
def list_claims(as_json: bool) -> int:
    """List the claims and what tests them."""
    from windtunnel.reports.claims import load_all

    found = load_all()
    if as_json:
        from windtunnel.canonical import to_plain

        print_json({"schema": 1, "claims": [to_plain(c) for c in found]})
        return 0
    from windtunnel.reports.render.claims import print_claims

    print_claims(found)
    return 0


@claims.command()
@click.argument("ids", nargs=-1)
@click.option(
    "--world", type=click.Choice(["simulated", "real", "all"]), default="simulated", show_default=True,
    help="Which tests to run; real ones take minutes and need their engines.",
)  # fmt: skip
@_results
@click.option("--jobs", type=click.IntRange(1), help="Simulations side by side; default one a CPU.")
def run(ids: tuple[str, ...], world: str, results: Path, jobs: int | None) -> int:
    """Run the tests of the claims IDS (default all) that have no evidence yet, and print the verdicts."""
    from windtunnel.environment import usable_cpus
    from windtunnel.reports.claims import select
    from windtunnel.store import Store

    chosen = select(ids)
    for claim in chosen:
        for test in claim.tests:
            if world not in (test.world, "all"):
                continue
            say(f"{claim.number}. {claim.id}: {test.name}")
            with progress() as show:
                experiment_of(claim, test).run(
                    Store(folder_of(results, claim, test)), resume=True, progress=show, jobs=jobs or usable_cpus()
                )
    return _print(verdicts(chosen, results), as_json=False, markdown=False)


@claims.command()
@click.argument("ids", nargs=-1)
@_results
@click.option("--markdown", is_flag=True, help="Print Markdown: a table of verdicts, then a section a claim.")
@json_option
def report(ids: tuple[str, ...], results: Path, markdown: bool, as_json: bool) -> int:
    """Derive the verdicts of the claims IDS (default all) from the stored evidence; nothing is run."""
    from windtunnel.reports.claims import select

    return _print(verdicts(select(ids), results), as_json=as_json, markdown=markdown)


def experiment_of(claim: Claim, test: Test) -> Experiment:
    """The experiment that makes a test's evidence."""
    import tomllib

    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.scenario import from_document

    place = f"claim {claim.id}, test {test.name}"
    if test.table is not None:
        return _of_table(test.table, place)
    assert test.scenario is not None
    scenario = from_document(tomllib.loads(test.scenario), place)
    return scenario_experiment(scenario, simulated=test.world == "simulated")


def _of_table(name: str, place: str) -> Experiment:
    """The cells of a published table, simulated; their place in the table is the point of the sweep."""
    from dataclasses import replace

    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.scenario import from_document
    from windtunnel.sim.validate import load

    parts = [(c, scenario_experiment(from_document(c.document, f"{place}, {c.name}"), simulated=True)) for c in load(name).cells]
    choices = tuple(replace(e.workloads[0], sweep=dict(c.at)) for c, e in parts)
    return replace(parts[0][1], name=name, workloads=choices)


def folder_of(results: Path, claim: Claim, test: Test) -> Path:
    """Where a test's records lie."""
    name = "".join(c if c.isalnum() else "-" for c in test.name.lower())
    return results / claim.id / name


def verdicts(chosen: tuple[Claim, ...], results: Path) -> list[Verdict]:
    """From what is stored."""
    from windtunnel.reports.claims import judge

    return [judge(c, {t.name: _records(folder_of(results, c, t)) for t in c.tests}) for c in chosen]


def _records(folder: Path) -> tuple[RunRecord, ...]:
    from windtunnel.store import Store

    return Store(folder).records() if folder.is_dir() else ()


def _print(found: list[Verdict], *, as_json: bool, markdown: bool) -> int:
    from windtunnel.reports.render import claims as render

    if as_json:
        print_json({"schema": 1, "verdicts": [render.document(v) for v in found]})
    elif markdown:
        click.echo(render.markdown(found))
    else:
        render.print_verdicts(found)
    return int(ExitCode.NOT_REPRODUCED if any(v.outcome == "not reproduced" for v in found) else ExitCode.OK)
