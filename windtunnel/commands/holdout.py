"""``windtunnel holdout``: how far the simulated world is off on this machine, on runs that its calibration has not seen."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, progress, results_folder, say, today

if TYPE_CHECKING:
    from windtunnel.cellspec import WorkloadChoice
    from windtunnel.record import RunRecord
    from windtunnel.reports.fidelity import Fidelity
    from windtunnel.store import Store

ENGINES = ("bulk", "streaming")


@click.command()
@click.option("-w", "--workload", "workloads", multiple=True, required=True, help="Workload of the catalogue; may be repeated.")
@click.option("--scale", "scales", type=float, multiple=True, default=(0.1, 0.2, 0.4), show_default=True)
@click.option("--cpus", type=click.IntRange(min=1), multiple=True, default=(1, 2), show_default=True, help="Workers.")
@click.option("--partitions", type=click.IntRange(min=1), multiple=True, default=(2, 4, 8), show_default=True)
@click.option("-n", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Measured runs a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Interleaved rounds over all cells.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the records; finished ones are not run again.")
@json_option
def holdout(
    workloads: tuple[str, ...],
    scales: tuple[float, ...],
    cpus: tuple[int, ...],
    partitions: tuple[int, ...],
    repetitions: int,
    rounds: int,
    results: Path | None,
    as_json: bool,
) -> int:
    """Calibrate on half of a grid of scale, workers and partitions, predict the other half, and compare with measurements."""
    from windtunnel.store import Store

    store = Store(results_folder(results, "holdout"))
    grid = list(product(enumerate(scales), enumerate(cpus), enumerate(partitions)))
    halves: tuple[list[WorkloadChoice], list[WorkloadChoice]] = ([], [])
    for (i, scale), (j, workers), (k, parts) in grid:  # a checkerboard: neighbours of a test point are calibrated
        halves[(i + j + k) % 2].extend(_choice(name, scale, workers, parts) for name in dict.fromkeys(workloads))
    measured = _measure([*halves[0], *halves[1]], store, repetitions, rounds)
    calibration = store.root / "calibration.json"
    _calibrate(halves[0], measured, calibration)
    simulated = _simulate(halves[1], Store(store.root / "simulated" / calibration_digest(calibration)), calibration)
    found = _fidelity((*_of(halves[1], measured), *simulated))
    if as_json:
        from windtunnel.canonical import to_plain

        print_json(to_plain(found))
    else:
        _print(found, simulated)
    say(f"records: {store.root}")
    return 0


def _choice(name: str, scale: float, cpus: int, partitions: int) -> WorkloadChoice:
    from windtunnel.cellspec import WorkloadChoice
    from windtunnel.cluster import ClusterSpec

    parameters = {"scale": scale, "partitions": partitions}
    return WorkloadChoice(name=name, parameters=parameters, cluster=ClusterSpec.here(cpus=cpus))


def _experiment(name: str, choices: list[WorkloadChoice], engines: Any, **more: Any) -> Any:
    from windtunnel.cluster import ClusterSpec
    from windtunnel.experiment import Experiment

    return Experiment(name=name, workloads=tuple(choices), engines=engines, cluster=ClusterSpec.here(), aa=False, **more)


def _measure(choices: list[WorkloadChoice], store: Store, repetitions: int, rounds: int) -> tuple[RunRecord, ...]:
    from windtunnel.scenario_tables import EngineChoice

    engines = tuple(EngineChoice(name=n, label=n) for n in ENGINES)
    experiment = _experiment("holdout", choices, engines, repetitions=repetitions, rounds=rounds)
    with progress() as show:
        records: tuple[RunRecord, ...] = experiment.run(store, resume=True, progress=show)
    return records


def _of(choices: list[WorkloadChoice], records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """The records of some points of the grid."""
    keys = {(c.name, c.parameters["scale"], c.cluster.cpus if c.cluster else 0, c.parameters["partitions"]) for c in choices}
    return tuple(r for r in records if _point(r) in keys)


def _point(record: RunRecord) -> tuple[str, float, int, int]:
    cpus = sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])
    return record.workload, record.scale, cpus, record.workload_spec["dataset"]["partitions"]


def _calibrate(choices: list[WorkloadChoice], measured: tuple[RunRecord, ...], path: Path) -> None:
    from windtunnel.sim.calibrate import calibrate

    workloads = {c.name: c.load() for c in choices}
    calibrate(_of(choices, measured), provenance={"date": today()}, workloads=workloads).save(path)


def calibration_digest(path: Path) -> str:
    """Names the records made with a calibration."""
    from windtunnel.sim.costs import Calibration

    return Calibration.load(path).digest()


def _simulate(choices: list[WorkloadChoice], store: Store, calibration: Path) -> tuple[RunRecord, ...]:
    from windtunnel.scenario_tables import EngineChoice

    options = {"calibration": str(calibration)}
    engines = tuple(EngineChoice(name=f"sim:{n}", label=f"sim:{n}", options=options) for n in ENGINES)
    records: tuple[RunRecord, ...] = _experiment("holdout", choices, engines, repetitions=5).run(store, resume=True)
    return records


def _fidelity(records: tuple[RunRecord, ...]) -> Fidelity:
    from windtunnel.reports.fidelity import fidelity

    return fidelity([r for r in records if not r.warmup])


def _print(found: Fidelity, simulated: tuple[RunRecord, ...]) -> None:
    from windtunnel.reports.render.words import fidelity_sentence
    from windtunnel.units import format_seconds

    for point in sorted(found.points, key=lambda p: (p.workload, p.engine, p.real_s)):
        name = f"{point.workload} at {point.scale:g}, {point.cpus} CPUs, {point.partitions} partitions"
        times = f"{format_seconds(point.real_s):>8} {format_seconds(point.simulated_s):>8}"
        click.echo(f"{name:55} {point.engine:14} {times} {point.error:+7.1%}")
    click.echo(fidelity_sentence(found))
