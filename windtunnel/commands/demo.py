"""``windtunnel demo``: real TPC-H and flight data on every engine here, calibration, the same cells simulated, one HTML page."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import exit_code, json_option, print_json, progress, say, today

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.records.store import Store
    from windtunnel.running.experiment import Experiment

WORKLOADS = ("tpch_q1", "tpch_q5", "flights_udf")
ENGINES = ("bulk", "streaming", "duckdb", "polars")
MORE_ENGINES = ("dask", "spark")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the engines that take long to start: dask and spark.")
@click.option("--scale", type=float, default=0.1, show_default=True, help="Scale factor of the data.")
@click.option("-n", "--repetitions", type=click.IntRange(min=1), default=3, show_default=True, help="Measured runs a cell.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results/demo"), show_default=True, help="Results folder."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser at the end.")
@json_option
def demo(everything: bool, scale: float, repetitions: int, results: Path, open_page: bool, as_json: bool) -> int:
    """Compare ETL on TPC-H data across engines, for real and simulated; ends with a page that leads to all that came of it."""
    from windtunnel.commands.front import write_front
    from windtunnel.records.store import Store
    from windtunnel.reports.compare import build
    from windtunnel.reports.render.terminal import print_comparison

    store = Store(results / f"{datetime.now():%Y%m%d-%H%M%S}")
    real, simulated = experiments(everything, scale, repetitions, store.root / "calibration" / "calibration.json")
    with progress() as show:
        records = real.run(store, progress=show)
    _calibrate(simulated, Store(store.root / "calibration"))
    with progress() as show:
        records += simulated.run(store, progress=show)
    comparison = build(records)
    say("claims from stored evidence, an example of a plan, fidelity: the pages")
    front = write_front(results, comparison, store.root / "calibration" / "calibration.json").absolute()
    if as_json:
        print_json(_document(records, front))
    else:
        print_comparison(comparison)
        click.echo(f"the page to begin with: {front}")
    if open_page:
        click.launch(str(front))
    return exit_code(records)


def experiments(everything: bool, scale: float, repetitions: int, calibration: Path) -> tuple[Experiment, Experiment]:
    """The real half and the simulated half, on the same machine and data."""
    from windtunnel.registry import missing_modules
    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.tables import EngineChoice
    from windtunnel.spec.cluster import ClusterSpec

    names = ENGINES + (MORE_ENGINES if everything else ())
    for name in names:
        if missing_modules(name):
            say(f"{name} is not installed here and left out; `windtunnel doctor` says how to install it")
    present = tuple(EngineChoice(name=n, label=n) for n in names if not missing_modules(n))
    options = {"calibration": str(calibration)}
    simulated = tuple(EngineChoice(name=f"sim:{n}", label=f"sim:{n}", options=options) for n in ("bulk", "streaming"))
    workloads = tuple(WorkloadChoice(name=w, parameters={"scale": scale}) for w in WORKLOADS)
    common: dict[str, Any] = {"workloads": workloads, "cluster": ClusterSpec.here(), "repetitions": repetitions}
    return Experiment(name="demo", engines=present, **common), Experiment(
        name="demo simulated", engines=simulated, aa=False, **common
    )


def _calibrate(simulated: Experiment, store: Store) -> None:
    """At a quarter and half of the scale: what the report shows is a prediction, not a fit of its own runs."""
    from dataclasses import replace

    from windtunnel.sim.calibration.measuring import calibrate_workloads

    say("calibrating at smaller scales: what kernels cost, and the overheads of the local world")
    smaller = (
        replace(c, parameters={**c.parameters, "scale": c.parameters["scale"] * part})
        for c in simulated.workloads
        for part in (0.25, 0.5)
    )
    out = Path(str(simulated.engines[0].options["calibration"]))
    with progress() as show:
        calibrate_workloads(tuple(smaller), simulated.cluster, store, out, show, date=today())


def _document(records: tuple[RunRecord, ...], front: Path) -> dict[str, Any]:
    from windtunnel.records.document import scenario_document

    return {**scenario_document("demo", records), "front": str(front), "report": str(front.with_name("report.html"))}
