"""``windtunnel claims``: what is said about engines, tested: list, run, report verdicts from stored evidence, pack it for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, progress, say
from windtunnel.errors import ExitCode

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.reports.claims import Claim, Test
    from windtunnel.reports.judging import Verdict
    from windtunnel.running.experiment import Experiment

_FOLDER = Path("results") / "claims"
_results = click.option(
    "--results", type=click.Path(path_type=Path), default=_FOLDER, show_default=True,
    help="Folder of your own evidence; tests without any there are judged by what ships with the project.",
)  # fmt: skip
_html = click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained HTML file.")


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
        from windtunnel.spec.canonical import to_plain

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
@_html
@click.option("--jobs", type=click.IntRange(1), help="Simulations side by side; default one a CPU.")
def run(ids: tuple[str, ...], world: str, results: Path, html: Path | None, jobs: int | None) -> int:
    """Run the tests of the claims IDS (default all) that have no records in the results folder yet, and print the verdicts."""
    from windtunnel.reports.claims import select
    from windtunnel.running.environment import usable_cpus

    chosen = select(ids)
    for claim in chosen:
        for test in claim.tests:
            if world in (test.world, "all"):
                say(f"{claim.number}. {claim.id}: {test.name}")
                _run_test(claim, test, results, jobs or usable_cpus())
    return _print(verdicts(chosen, results), as_json=False, markdown=False, html=html)


@claims.command()
@click.argument("ids", nargs=-1)
@_results
@_html
@click.option("--markdown", is_flag=True, help="Print Markdown: a table of verdicts, then a section a claim.")
@json_option
def report(ids: tuple[str, ...], results: Path, html: Path | None, markdown: bool, as_json: bool) -> int:
    """Derive the verdicts of the claims IDS (default all) from stored evidence; nothing is run."""
    from windtunnel.reports.claims import select

    return _print(verdicts(select(ids), results), as_json=as_json, markdown=markdown, html=html)


@claims.command()
@click.argument("ids", nargs=-1)
@_results
@click.argument("folder", type=click.Path(path_type=Path))
def pack(ids: tuple[str, ...], results: Path, folder: Path) -> int:
    """Write the evidence of the claims IDS (default all) into FOLDER, a small file a claim: what verdicts need of each run."""
    import json

    from windtunnel.reports.claims import select
    from windtunnel.reports.judging import evidence, packed

    folder.mkdir(parents=True, exist_ok=True)
    for claim in select(ids):
        document = packed(claim, {t.name: _records(folder_of(results, claim, t)) for t in claim.tests})
        path = folder / f"{claim.id}.json"
        if path.exists():  # what was not run again stays
            wanted = {t.name: t.digest() for t in claim.tests}
            kept = {n: t for n, t in evidence(path).items() if wanted.get(n) == t["digest"]}
            document = {**document, "tests": {**kept, **document["tests"]}}
        if document["tests"]:
            path.write_text(json.dumps(document, indent=0, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


# -- running ------------------------------------------------------------------------------------------------------------


def _run_test(claim: Claim, test: Test, results: Path, jobs: int) -> None:
    from windtunnel.records.store import Store

    store = Store(folder_of(results, claim, test))
    if test.probe is not None:
        from windtunnel.commands.probes import run_probe

        run_probe(test.probe, f"claim {claim.id}", store, lambda text: say(f"  {text}"))
        return
    with progress() as show:
        experiment_of(claim, test).run(store, resume=True, progress=show, jobs=jobs)


def experiment_of(claim: Claim, test: Test) -> Experiment:
    """The experiment that makes a test's evidence. A probe has none."""
    import tomllib
    from dataclasses import replace

    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.scenario.reading import from_document

    place = f"claim {claim.id}, test {test.name}"
    if test.table is not None:
        return _of_table(test.table, place)
    if test.catalogue is not None:
        return _of_catalogue(test.catalogue, place)
    assert test.scenario is not None
    scenario = from_document(tomllib.loads(test.scenario), place)
    return replace(scenario_experiment(scenario, simulated=test.world == "simulated"), aa=False)


def _of_table(name: str, place: str) -> Experiment:
    """The cells of a published table, simulated; their place in the table is the point of the sweep."""
    from dataclasses import replace

    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.scenario.reading import from_document
    from windtunnel.sim.judging.validate import load

    parts = [(c, scenario_experiment(from_document(c.document, f"{place}, {c.name}"), simulated=True)) for c in load(name).cells]
    choices = tuple(replace(e.workloads[0], sweep=dict(c.at)) for c, e in parts)
    return replace(parts[0][1], name=name, workloads=choices)


def _of_catalogue(given: Any, place: str) -> Experiment:
    """Workloads of the catalogue at each point of the sweep, whose keys are ``workload``, ``cpus`` or parameters of the workload."""
    from itertools import product

    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.tables import EngineChoice
    from windtunnel.spec.cluster import ClusterSpec

    sweep = given.get("sweep", {})
    fixed = {"workload": given.get("workload"), "cpus": given.get("cpus", 2), **given.get("parameters", {})}
    engines = tuple(
        EngineChoice(name=e["name"], label=e.get("label", e["name"]), options=e.get("options", {})) for e in given["engines"]
    )
    choices = []
    for values in product(*sweep.values()):
        point = dict(zip(sweep, values, strict=True))
        parameters = {**fixed, **point}
        name, cpus = parameters.pop("workload"), parameters.pop("cpus")
        cluster = ClusterSpec.here(cpus=cpus, memory_bytes=4 << 30)
        choices.append(WorkloadChoice(name=name, parameters=parameters, sweep=point, cluster=cluster, engines=engines))
    return Experiment(
        name=place, workloads=tuple(choices), engines=engines, cluster=ClusterSpec.here(), aa=False,
        repetitions=int(given.get("repetitions", 3)), timeout_s=float(given.get("timeout_s", 200)),
    )  # fmt: skip


# -- judging ------------------------------------------------------------------------------------------------------------


def folder_of(results: Path, claim: Claim, test: Test) -> Path:
    """Where a test's records lie."""
    name = "".join(c if c.isalnum() else "-" for c in test.name.lower())
    return results / claim.id / name


def verdicts(chosen: tuple[Claim, ...], results: Path) -> list[Verdict]:
    """From what is stored: your own records of a test where there are some, else the evidence that ships with the project."""
    from windtunnel.reports.judging import judge, shipped

    return [
        judge(c, {**shipped(c), **{t.name: own for t in c.tests if (own := _records(folder_of(results, c, t)))}}) for c in chosen
    ]


def _records(folder: Path) -> tuple[RunRecord, ...]:
    from windtunnel.records.store import Store

    return Store(folder).records() if (folder / "runs").is_dir() else ()


def _print(found: list[Verdict], *, as_json: bool, markdown: bool, html: Path | None) -> int:
    from windtunnel.reports.render import claims as render

    if html is not None:
        from windtunnel.commands.report import write_page
        from windtunnel.reports.render.claims_page import page

        write_page(html, page(found))
    if as_json:
        print_json({"schema": 1, "verdicts": [render.document(v) for v in found]})
    elif markdown:
        click.echo(render.markdown(found))
    else:
        render.print_verdicts(found)
    if html is not None:
        say(f"written: {html}")
    return int(ExitCode.NOT_REPRODUCED if any(v.outcome == "not reproduced" for v in found) else ExitCode.OK)
