"""``windtunnel calibrate``: measure what each kernel and the local world cost here, for the simulated world."""

from __future__ import annotations

from pathlib import Path

import click

from windtunnel.commands.common import json_option, print_json, progress, results_folder, say, today


@click.command()
@click.option("-w", "--workload", "workloads", multiple=True, required=True, help="Workload of the catalogue; may be repeated.")
@click.option("--scale", type=float, help="Scale factor of the data.  [default: that of the workload]")
@click.option("--partitions", type=int, help="Files that a large table is cut into.")
@click.option("--cpus", type=click.IntRange(min=1), help="CPUs to calibrate for.  [default: all]")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("calibration.json"), show_default=True, help="File to write."
)
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the records of the measurements.")
@json_option
def calibrate(
    workloads: tuple[str, ...],
    scale: float | None,
    partitions: int | None,
    cpus: int | None,
    out: Path,
    results: Path | None,
    as_json: bool,
) -> int:
    """Measure kernels and overheads on this machine and write the costs for `simulate --calibration`."""
    from windtunnel.canonical import to_plain
    from windtunnel.cellspec import WorkloadChoice
    from windtunnel.cluster import ClusterSpec
    from windtunnel.sim.calibrate import calibrate_workloads
    from windtunnel.store import Store

    parameters = {k: v for k, v in (("scale", scale), ("partitions", partitions)) if v is not None}
    chosen = tuple(WorkloadChoice(name=name, parameters=parameters) for name in dict.fromkeys(workloads))
    store = Store(results_folder(results, "calibration"))
    with progress() as show:
        calibration = calibrate_workloads(chosen, ClusterSpec.here(cpus=cpus), store, out, show, date=today())
    if as_json:
        print_json(to_plain(calibration))
    say(f"written: {out}")
    return 0
