"""``windtunnel calibrate``: measure what each kernel and the local world cost here, for the simulated world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, progress, results_console, results_folder, say, today

if TYPE_CHECKING:
    from windtunnel.sim.costs.measured import Calibration, HostCost
    from windtunnel.sim.judging.prediction import Law


@click.command()
@click.option("-w", "--workload", "workloads", multiple=True, help="Workload of the catalogue; may be repeated.")
@click.option(
    "-e", "--engine", "engines", multiple=True, help="Engine to measure beside bulk and streaming, such as ray; may be repeated."
)
@click.option("--serving", is_flag=True, help="Measure the serving engines instead: what host and workers spend on a request.")
@click.option("--scale", type=float, help="Scale factor of the data.  [default: that of the workload]")
@click.option("--partitions", type=int, help="Files that a large table is cut into.")
@click.option("--cpus", type=click.IntRange(min=1), help="CPUs to calibrate for.  [default: all]")
@click.option(
    "--quick", is_flag=True, help="One cell a number of workers: no held-out errors, no micro-measurements of the host."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("calibration.json"), show_default=True, help="File to write."
)
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the records of the measurements.")
@json_option
def calibrate(
    workloads: tuple[str, ...],
    engines: tuple[str, ...],
    serving: bool,
    scale: float | None,
    partitions: int | None,
    cpus: int | None,
    quick: bool,
    out: Path,
    results: Path | None,
    as_json: bool,
) -> int:
    """Measure kernels, overheads and this host, and write the costs for `simulate --calibration`."""
    from windtunnel.errors import InputError
    from windtunnel.spec.canonical import to_plain

    if serving == bool(workloads):
        raise InputError(
            "calibrate measures workloads (-w NAME, may be repeated) or serving engines (--serving): name one of the two"
        )
    if serving:
        return _serving(out, as_json)
    from windtunnel.commands.common import check_both_worlds
    from windtunnel.records.store import Store
    from windtunnel.running.cellspec import WorkloadChoice
    from windtunnel.sim.calibration.measuring import calibrate_workloads, grid
    from windtunnel.spec.cluster import ClusterSpec

    check_both_worlds(engines)
    parameters = {k: v for k, v in (("scale", scale), ("partitions", partitions)) if v is not None}
    chosen = tuple(WorkloadChoice(name=name, parameters=parameters) for name in dict.fromkeys(workloads))
    store, cluster = Store(results_folder(results, "calibration")), ClusterSpec.here(cpus=cpus)
    host = () if quick else _host(cluster)
    with progress() as show:
        found = calibrate_workloads(
            chosen if quick else grid(chosen), cluster, store, out, show, date=today(), host=host, engines=engines, held_out=not quick
        )  # fmt: skip
    if as_json:
        print_json(to_plain(found))
    else:
        _print(found)
    if not quick and not found.held_out:
        say("no held-out errors: in none of the cells was the machine left to the runs, so intervals come from published cells")
    say(f"written: {out}")
    return 0


def _serving(out: Path, as_json: bool) -> int:
    """Constants of the engines that can be measured here."""
    from windtunnel.registry import missing_modules
    from windtunnel.sim.serving.measured import CALIBRATED, calibrate_serving

    engines = [name for name in CALIBRATED if not missing_modules(name)]
    found = calibrate_serving(engines, out, today(), say)
    if as_json:
        print_json(found)
    for name, constants in found.items():
        say(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in constants.items()))
    say(f"written: {out}")
    return 0


def _host(cluster: Any) -> tuple[HostCost, ...]:
    from windtunnel.sim.calibration.crossings import crossings
    from windtunnel.sim.calibration.host import host_costs

    say("measuring the host: memory, disk, loopback, serialization, starts of processes and sessions, the JVM bridge")
    found = list(host_costs())
    for measured in crossings(cluster):
        say(f"  {measured.name}, {measured.at}: {_amount(measured.value, measured.unit)}")
        found.append(measured)
    return tuple(found)


def _print(found: Calibration) -> None:
    """Three tables: what the host does, what a row of each kernel costs, how far predictions of unseen cells were off."""
    from rich.table import Table
    from rich.text import Text

    from windtunnel.sim.judging.prediction import coverage

    def show(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for number, head in enumerate(heads):
            table.add_column(Text(head), justify="left" if number < 2 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        if rows:
            results_console().print(table)

    show(
        "this host", ("", "at", "median", "quartiles"),
        [(h.name, h.at, _amount(h.value, h.unit), f"{_amount(h.low, h.unit)} – {_amount(h.high, h.unit)}") for h in found.host],
    )  # fmt: skip
    show(
        "kernels", ("workload", "operator", "a task", "a row", "a byte", "varies by", "fit off by"),
        [
            (o.workload, f"{o.operator} ({o.phase})", _amount(o.fixed_s, "s"), _amount(o.per_row_s, "s"), _amount(o.per_byte_s, "s"),
             f"{o.cv:.0%}", f"{o.error:.0%}")
            for o in found.operators
        ],
    )  # fmt: skip
    show(
        "engines: the fit, and predictions of cells held out", ("engine", "fit off by", "cells", "median error", "90 % interval"),
        [(e.engine, _fit_error(found, e.engine), *_held_out(_own_law(found, e.engine))) for e in found.engines],
    )  # fmt: skip
    inside, of = coverage(found.held_out)
    if of:
        say(f"{inside} of {of} held-out cells lie in the 90 % interval that the other cells give")


def _fit_error(found: Calibration, engine: str) -> str:
    """Median residual."""
    from statistics import median

    sizes = [r.error for r in found.residuals if r.engine == engine]
    return f"{median(sizes):.1%}" if sizes else "–"


def _own_law(found: Calibration, engine: str) -> Law | None:
    """Of an engine some of whose cells were held out."""
    from windtunnel.sim.judging.prediction import engine_law

    return engine_law(found.held_out, engine) if any(c.engine == engine for c in found.held_out) else None


def _held_out(law: Law | None) -> tuple[str, str, str]:
    """Cells, median error and interval."""
    return ("–", "–", "–") if law is None else (str(law.cells), f"{law.median:.1%}", "{:.2f}× – {:.2f}×".format(*law.factors()))


def _amount(value: float, unit: str) -> str:
    from windtunnel.spec.units import format_bytes, format_seconds

    if unit == "bytes/s":
        return f"{format_bytes(value)}/s"
    if value and value < 1e-6:
        return f"{value * 1e9:.3g} ns"
    return format_seconds(value)
