"""``windtunnel run``: a scenario file, or catalogue workloads on chosen engines, for real on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windtunnel.commands.common import (
    check_engines,
    engine_options,
    exit_code,
    json_option,
    print_json,
    progress,
    results_folder,
    say,
    workload_parameters,
)

if TYPE_CHECKING:
    from windtunnel.running.experiment import Experiment


@click.command()
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@click.option("-w", "--workload", "workloads", multiple=True, help="Workload of the catalogue; may be repeated.")
@click.option("-e", "--engine", "engines", multiple=True, help="Engine; may be repeated.")
@click.option("-o", "--option", "options", multiple=True, metavar="ENGINE.KEY=VALUE", help="Option of an engine.")
@click.option("--scale", type=float, help="Scale factor of the data.  [default: that of the workload]")
@click.option("--partitions", type=int, help="Files that a large table is cut into.")
@click.option("--cpus", type=click.IntRange(min=1), help="CPUs that every engine gets.  [default: all]")
@click.option("--memory", help='Memory that every engine gets, such as "4GiB".')
@click.option("--devices", help="Devices that every engine gets, such as emulated:A10G, 2 x emulated:T4 or cuda:0.")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="KEY=VALUE", help="Parameter of the workloads.")
@click.option("--address", help="A running foreign cluster, such as spark://host:7077.")
@click.option("-n", "--repetitions", type=click.IntRange(min=1), help="Measured runs a round after one warm-up.  [default: 5]")
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Interleaved rounds over all cells.")
@click.option("--seed", type=click.IntRange(min=0), help="Order of the cells and all randomness.  [default: 7]")
@click.option("--timeout", default="10min", show_default=True, help="Time limit of one cell in one round.")
@click.option("--aa/--no-aa", default=True, show_default=True, help="Run one engine twice: the noise floor.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the records.")
@click.option("--resume", is_flag=True, help="Keep the finished runs of the results folder and run the rest.")
@json_option
def run(scenario: Path | None, results: Path | None, resume: bool, as_json: bool, **asked: object) -> int:
    """Run a SCENARIO file, or workloads of the catalogue on engines, for real on this machine."""
    from windtunnel.records.serving import is_serving
    from windtunnel.records.store import Store

    experiment = _from_scenario(scenario, asked) if scenario is not None else _from_options(asked)
    for choice in experiment.workloads:
        check_engines(choice.engines or experiment.engines)
    store = Store(results_folder(results, experiment.name))
    with progress() as show:
        records = experiment.run(store, resume=resume, progress=show)
    if as_json:
        from windtunnel.records.document import scenario_document

        print_json(scenario_document(experiment.name, records))
    elif any(is_serving(r) for r in records):
        from windtunnel.commands.tables import print_runs

        print_runs(experiment.name, tuple(r for r in records if not r.warmup))
    else:
        from windtunnel.reports.compare import build
        from windtunnel.reports.render.terminal import print_comparison

        print_comparison(build(records))
    say(f"records: {store.root}; see `windtunnel report {store.root} --html report.html`")
    return exit_code(records)


def _from_scenario(file: Path, asked: dict[str, object]) -> Experiment:
    from dataclasses import replace

    from windtunnel.commands.simulate import scenario_experiment
    from windtunnel.errors import InputError
    from windtunnel.scenario.reading import load_scenario
    from windtunnel.spec.units import parse_seconds

    names = {"workloads": "workload", "engines": "engine", "options": "option", "parameters": "parameter"}
    said = [k for k in (*names, "scale", "partitions", "cpus", "memory", "devices", "address") if asked[k]]
    if said:
        raise InputError(f"a scenario file says itself what to run; remove {', '.join('--' + names.get(k, k) for k in said)}")
    experiment = scenario_experiment(load_scenario(file), simulated=False)
    changes = {k: asked[k] for k in ("repetitions", "seed") if asked[k] is not None}
    kept = {"rounds": asked["rounds"], "aa": asked["aa"], "timeout_s": parse_seconds(asked["timeout"])}
    return replace(experiment, **changes, **kept)  # type: ignore[arg-type]


def _from_options(asked: dict[str, object]) -> Experiment:
    from windtunnel.errors import InputError
    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.tables import EngineChoice
    from windtunnel.spec.cluster import ClusterSpec
    from windtunnel.spec.units import parse_bytes, parse_seconds

    workloads, engines = _names(asked["workloads"]), _names(asked["engines"])
    if not workloads or not engines:
        where = "`windtunnel workloads` and `windtunnel engines` list them"
        raise InputError(f"say what to run: a scenario file, or --workload and --engine; {where}")
    parameters = {k: asked[k] for k in ("scale", "partitions") if asked[k] is not None}
    parameters |= workload_parameters(_names(asked["parameters"]))
    options = engine_options(_names(asked["options"]), engines)
    memory = None if asked["memory"] is None else parse_bytes(asked["memory"])
    from dataclasses import replace

    from windtunnel.spec.devices import parse_devices

    here = ClusterSpec.here().cpus
    if asked["address"] is None and int(str(asked["cpus"] or 0)) > here:
        raise InputError(f"--cpus {asked['cpus']}: this machine has {here}; `windtunnel simulate` runs larger ones")
    cluster = ClusterSpec.here(cpus=asked["cpus"], memory_bytes=memory)  # type: ignore[arg-type]
    if asked["devices"] is not None:
        cluster = replace(cluster, nodes=(replace(cluster.nodes[0], gpus=parse_devices(str(asked["devices"]))),))
    return Experiment(
        name="run " + " ".join(workloads),
        workloads=tuple(WorkloadChoice(name=w, parameters=parameters) for w in workloads),
        engines=tuple(EngineChoice(name=e, label=e, options=options[e]) for e in engines),
        cluster=replace(cluster, address=asked["address"]),  # type: ignore[arg-type]
        repetitions=5 if asked["repetitions"] is None else int(str(asked["repetitions"])),
        rounds=int(str(asked["rounds"])),
        seed=7 if asked["seed"] is None else int(str(asked["seed"])),
        timeout_s=parse_seconds(asked["timeout"]),
        aa=bool(asked["aa"]),
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else ()
