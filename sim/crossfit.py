"""Held-out errors of a calibration from its own records: each half of the cells is predicted with costs fitted to the other.

The halves of a workload alternate over scale, workers and partitions like the squares of a checkerboard, so that a cell's nearest
neighbours are fitted and itself is not. The final calibration is fitted to all; its `held_out` says how far such fits are off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from windtunnel.sim.calibrate import calibrate
from windtunnel.sim.costs import Calibration, HeldOut
from windtunnel.sim.holdout import Cell, Point, cell_of, judge, predict

from windtunnel.cellspec import WorkloadChoice
from windtunnel.cluster import ClusterSpec
from windtunnel.errors import InputError
from windtunnel.record import RunRecord
from windtunnel.store import Store
from windtunnel.workload import Workload


def held_out(
    records: Sequence[RunRecord], workloads: Mapping[str, Workload], scratch: Path, data_root: Path
) -> tuple[HeldOut, ...]:
    """Every quiet cell with its prediction; none where a half is empty. ``scratch`` gets the fits and their simulated runs."""
    found: list[Point] = []
    white, black = halves([r for r in records if r.status == "ok" and not r.warmup])
    for fitted, rest in ((white, black), (black, white)):
        try:
            calibration = calibrate(fitted, provenance={}, workloads=workloads)
        except InputError:
            continue
        path = scratch / f"{calibration.digest()}.json"
        calibration.save(path)
        simulated = predict(choices(rest), path, Store(scratch / calibration.digest()), data_root)
        found += judge(rest, simulated).points
    return from_points(found)


def from_points(points: Sequence[Point]) -> tuple[HeldOut, ...]:
    """In the form of a calibration's file."""
    return tuple(
        HeldOut(
            engine=p.engine, cell=f"{p.workload} at {p.scale:g}, {p.workers} workers, {p.partitions} partitions", group=p.workload,
            cpus=p.workers, measured_s=p.measured_s, simulated_s=p.simulated_s,
        )
        for p in points
    )  # fmt: skip


def halves(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """White and black squares; each workload has a board of its own."""
    split: tuple[list[RunRecord], list[RunRecord]] = ([], [])
    places = {r.run_id: _place(cell_of(r)) for r in records}
    for workload in {r.workload for r in records}:
        mine = [r for r in records if r.workload == workload]
        axes = [sorted({places[r.run_id][i] for r in mine}) for i in range(3)]
        for record in mine:
            split[sum(axis.index(v) for axis, v in zip(axes, places[record.run_id], strict=True)) % 2].append(record)
    return split


def _place(cell: Cell) -> tuple[float, int, int]:
    return cell[1], cell[2], cell[3]


def choices(records: Sequence[RunRecord]) -> tuple[WorkloadChoice, ...]:
    """What the records ran, once each."""
    found: dict[tuple[Any, ...], WorkloadChoice] = {}
    for record in records:
        name, scale, workers, partitions, batch, _ = cell_of(record)
        parameters = {"scale": scale, "partitions": partitions} | ({"batch_rows": batch} if batch else {})
        found[name, scale, workers, partitions, batch] = WorkloadChoice(
            name=name, parameters=parameters, cluster=ClusterSpec.here(cpus=workers)
        )
    return tuple(found.values())


def with_held_out(calibration: Calibration, cells: Sequence[HeldOut]) -> Calibration:
    """The calibration with these cells; an older one of the same engine and cell is replaced."""
    new = {(c.engine, c.cell): c for c in (*calibration.held_out, *cells)}
    return replace(calibration, held_out=tuple(new[key] for key in sorted(new)))
