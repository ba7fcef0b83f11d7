"""``windtunnel simulate FILE``: a scenario in the simulated cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import check_engines, exit_code, json_option, print_json, progress, results_folder, say

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.reading import Scenario
    from windtunnel.scenario.tables import EngineChoice


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the full records.")
@click.option("--resume", is_flag=True, help="Keep the finished runs of the results folder and run the rest.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Costs made by `windtunnel calibrate`, for real kernels.")
@click.option("--jobs", type=click.IntRange(1), help="Simulations side by side; default one a CPU.")
@click.option(
    "--address",
    help="Dask scheduler (tcp://…) or Ray cluster (ray:host:port) whose workers simulate; they must have this package.",
)
def simulate(
    file: Path, as_json: bool, results: Path | None, resume: bool, calibration: Path | None, jobs: int | None, address: str | None
) -> int:
    """Run the scenario FILE in the simulated cluster."""
    from windtunnel.commands.tables import print_runs
    from windtunnel.records.store import Store
    from windtunnel.running.environment import usable_cpus
    from windtunnel.scenario.reading import load_scenario

    scenario = load_scenario(file)
    experiment = scenario_experiment(scenario, simulated=True, calibration=calibration)
    for choice in experiment.workloads:
        check_engines(choice.engines or (), missing_is_record=True)
    store = Store(results_folder(results, scenario.name))
    with progress() as show:
        records = experiment.run(store, resume=resume, progress=show, jobs=jobs or usable_cpus(), address=address)
    if as_json:
        print_json(_document(scenario.name, _in_order(experiment, records)))
    else:
        print_runs(scenario.name, _in_order(experiment, records))
    say(f"records: {store.root}")
    return exit_code(records)


def _document(name: str, records: tuple[RunRecord, ...]) -> dict[str, Any]:
    """What ``--json`` prints: the scenario's document, with the bottlenecks of each run that is no server."""
    from windtunnel.records.document import scenario_document
    from windtunnel.records.serving import is_serving
    from windtunnel.reports.bottleneck import bottlenecks

    document = scenario_document(name, records)
    for run, record in zip(document["runs"], (r for r in records if not r.warmup), strict=True):
        if not is_serving(record):
            segments = bottlenecks(record)
            run["bottlenecks"] = [{n: getattr(s, n) for n in ("start_s", "end_s", "resource", "share", "hot")} for s in segments]
    return document


def scenario_experiment(scenario: Scenario, *, simulated: bool, calibration: Path | None = None) -> Experiment:
    """Every point of the scenario's sweep as a workload of one experiment. Refuses what this version cannot run."""
    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.running.experiment import Experiment

    points = scenario.expand()
    for point in points:
        refuse_gaps(point.scenario, "simulate" if simulated else "run")
        refuse_engines(point.scenario, simulated)
    choices = tuple(
        WorkloadChoice(
            name=scenario.name,
            document=point.scenario.document,
            file=scenario.file,
            sweep=point.sweep,
            cluster=point.scenario.cluster,
            engines=_engines(point.scenario, simulated, calibration),
        )
        for point in points
    )
    return Experiment(
        name=scenario.name, workloads=choices, engines=(), cluster=scenario.cluster, repetitions=scenario.repetitions,
        seed=scenario.seed,
    )  # fmt: skip


def _engines(scenario: Scenario, simulated: bool, calibration: Path | None) -> tuple[EngineChoice, ...]:
    from dataclasses import replace

    if not simulated and scenario.serving is None:
        return tuple(in_world(e, e.name, f"sim:{e.name}") for e in scenario.engines)
    if not simulated:  # the same arrivals in both worlds
        return tuple(replace(e, options={"seed": scenario.seed, **e.options}) for e in scenario.engines)
    extra = {} if calibration is None else {"calibration": str(calibration)}
    aliases = _SERVES if scenario.serving is not None else {}
    made = (in_world(e, f"sim:{aliases.get(e.name, e.name)}", e.name) for e in scenario.engines)
    return tuple(replace(e, options={**extra, **e.options}) for e in made)


def in_world(choice: EngineChoice, name: str, other: str) -> EngineChoice:
    """The engine as ``name``, without the options that only its counterpart ``other`` knows: one file serves both worlds."""
    from dataclasses import replace

    from windtunnel.registry import option_names

    elsewhere = option_names(other) - option_names(name)
    return replace(choice, name=name, options={k: v for k, v in choice.options.items() if k not in elsewhere})


#: engines of the format whose serving part has a name of its own
_SERVES = {"ray": "ray-serve"}


def refuse_engines(scenario: Scenario, simulated: bool = True) -> None:
    """Engines that answer requests run serving scenarios, the others all else; told in one sentence before anything runs."""
    from windtunnel.errors import InputError
    from windtunnel.registry import ENGINES, load_engine, missing_modules

    serving = scenario.serving is not None
    for choice in _engines(scenario, simulated, None):
        if choice.name not in ENGINES or missing_modules(choice.name):
            continue
        if ("serving" in load_engine(choice.name).capabilities.features) == serving:
            continue
        name = choice.name.removeprefix("sim:")
        what = f"answers no requests; engines that serve: {', '.join(_serving_engines(simulated))}" if serving else (
            "answers requests ([arrivals] with [[deployments]]) and runs no operators"
        )  # fmt: skip
        raise InputError(f"{scenario.file}: engine {name!r} {what}")


def _serving_engines(simulated: bool) -> list[str]:
    from windtunnel.registry import ENGINES, load_engine, missing_modules

    names = [n for n in ENGINES if n.startswith("sim:") == simulated and not missing_modules(n)]
    return [n.removeprefix("sim:") for n in names if "serving" in load_engine(n).capabilities.features]


def refuse_gaps(scenario: Scenario, verb: str) -> None:
    """What the format holds and this version does not run, in one sentence each."""
    from windtunnel.errors import InputError

    location = scenario.workload.dataset.location.kind
    real = verb == "run"
    gaps = (
        (
            real and bool(scenario.cluster.faults) and not _only_killed(scenario),
            "faults ([[faults]]) but worker_killed of a service",
        ),
        (real and location != "generated", f'data sets with location = "{location}"'),
    )
    for there, what in gaps:
        if there:
            raise InputError(f"{scenario.file}: this version does not {verb} {what}; remove that part")


def _only_killed(scenario: Scenario) -> bool:
    """Whether its faults are those that are carried out for real."""
    return scenario.workload.serving is not None and all(f.kind == "worker_killed" for f in scenario.cluster.faults)


def _in_order(experiment: Experiment, records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """By sweep point, then engine, as the file has them; repetitions in order."""
    places: dict[tuple[str, str], int] = {}
    for choice in experiment.workloads:
        for engine in choice.engines or ():
            places.setdefault((str(choice.sweep), engine.label), len(places))
    return tuple(sorted(records, key=lambda r: (places.get((str(r.sweep), r.label), len(places)), r.repetition)))
