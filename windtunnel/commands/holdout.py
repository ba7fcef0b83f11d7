"""``windtunnel holdout``: how far the simulated world is off on this machine, on runs that its calibration has not seen."""

from __future__ import annotations

from pathlib import Path

import click

from windtunnel.commands.common import json_option, print_json, progress, results_folder, say, today


@click.command()
@click.option("-w", "--workload", "workloads", multiple=True, required=True, help="Workload of the catalogue; may be repeated.")
@click.option("-e", "--engine", "engines", multiple=True, help="Engine beside bulk and streaming, such as ray; may be repeated.")
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Rows a call, of workloads that take them (images)."
)
@click.option("--devices", multiple=True, help="Device kind, such as emulated:T4, of workloads that take them (images).")
@click.option("--scale", "scales", type=float, multiple=True, default=(0.1, 0.2, 0.4), show_default=True)
@click.option("--cpus", type=click.IntRange(min=1), multiple=True, default=(1, 2), show_default=True, help="Workers.")
@click.option("--partitions", type=click.IntRange(min=1), multiple=True, default=(2, 4, 8), show_default=True)
@click.option("-n", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Measured runs a round.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Visits of every cell; more while some have no quiet run.",
)
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the records; finished ones are not run again.")
@json_option
def holdout(
    workloads: tuple[str, ...],
    engines: tuple[str, ...],
    batches: tuple[int, ...],
    devices: tuple[str, ...],
    scales: tuple[float, ...],
    cpus: tuple[int, ...],
    partitions: tuple[int, ...],
    repetitions: int,
    rounds: int,
    results: Path | None,
    as_json: bool,
) -> int:
    """Calibrate on half of a grid of scale, workers and partitions, predict the other half, and compare with measurements."""
    from windtunnel.records.store import Store
    from windtunnel.running.cellspec import default_data_root
    from windtunnel.sim.calibration.grid import Grid
    from windtunnel.sim.calibration.holdout import holdout as hold_out
    from windtunnel.sim.calibration.holdout import table

    names = tuple(dict.fromkeys(workloads))
    check_holdout(names, engines, batches, devices)
    grid = Grid(
        workloads=names, engines=engines, batches=batches or (0,), devices=devices or ("",), scales=scales, workers=cpus,
        partitions=partitions, repetitions=repetitions, rounds=rounds,
    )  # fmt: skip
    store = Store(results_folder(results, "holdout"))
    with progress() as show:
        found = hold_out(grid, store, default_data_root(), date=today(), progress=show)
    if as_json:
        from windtunnel.spec.canonical import to_plain

        print_json(to_plain(found))
    else:
        click.echo(table(found))
    say(f"records: {store.root}")
    return 0


def check_holdout(
    workloads: tuple[str, ...], engines: tuple[str, ...], batches: tuple[int, ...], devices: tuple[str, ...] = ()
) -> None:
    """Told before anything runs: what cannot be simulated here, or takes no rows a call and no devices."""
    from windtunnel.commands.common import check_both_worlds
    from windtunnel.errors import InputError
    from windtunnel.sim.calibration.grid import BATCHED
    from windtunnel.spec.devices import device_spec

    check_both_worlds(engines)
    other = [w for w in workloads if w not in BATCHED]
    if other and (batches or devices):
        option, what = ("--batch", "rows a call") if batches else ("--devices", "devices")
        raise InputError(f"{option} is for {', '.join(BATCHED)}; workload {other[0]!r} takes no {what}")
    for kind in devices:
        device_spec(kind)
