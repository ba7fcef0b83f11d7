"""Held-out errors of a calibration from its own records: each half of the cells is predicted with costs fitted to the other.

The halves of a workload alternate over scale, workers and partitions like the squares of a checkerboard, so that a cell's nearest
neighbours are fitted and itself is not. The final calibration is fitted to all; its `held_out` says how far such fits are off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.sim.calibration.foreign import LEAST_CELLS
from windtunnel.sim.calibration.grid import ENGINES, Cell, cell_of
from windtunnel.sim.calibration.holdout import Point, held_out
from windtunnel.sim.costs.measured import Calibration, HeldOut
from windtunnel.spec.workload import Workload


def cross_fitted(
    records: Sequence[RunRecord], workloads: Mapping[str, Workload], scratch: Path, data_root: Path
) -> tuple[HeldOut, ...]:
    """Every quiet cell with its prediction; none where a half is empty. ``scratch`` gets the fits and their simulated runs."""
    found: list[Point] = []
    white, black = halves([r for r in records if r.status == "ok" and not r.warmup])
    for fitted, rest in ((white, black), (black, white)):
        able = {e for e, cells in _cells(fitted).items() if e in ENGINES or len(cells) >= LEAST_CELLS}
        seen, others = ([r for r in half if r.engine in able] for half in (fitted, rest))
        with suppress(InputError):
            found += held_out(seen, others, workloads, scratch, data_root).points
    return from_points(found)


def _cells(records: Sequence[RunRecord]) -> dict[str, set[Cell]]:
    found: dict[str, set[Cell]] = {}
    for record in records:
        found.setdefault(record.engine, set()).add(cell_of(record))
    return found


def from_points(points: Sequence[Point]) -> tuple[HeldOut, ...]:
    """In the form of a calibration's file."""
    return tuple(
        HeldOut(
            engine=p.engine, cell=str(p.cell), group=p.workload, cpus=p.workers, measured_s=p.measured_s, simulated_s=p.simulated_s
        )
        for p in points
    )  # fmt: skip


def halves(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """White and black squares; each workload has a board of its own."""
    split: tuple[list[RunRecord], list[RunRecord]] = ([], [])
    places = {r.run_id: cell_of(r)[1:-1] for r in records}
    for workload in {r.workload for r in records}:
        mine = [r for r in records if r.workload == workload]
        axes = [sorted(set(values)) for values in zip(*(places[r.run_id] for r in mine), strict=True)]
        for record in mine:
            split[sum(axis.index(v) for axis, v in zip(axes, places[record.run_id], strict=True)) % 2].append(record)
    return split


def with_held_out(calibration: Calibration, cells: Sequence[HeldOut]) -> Calibration:
    """The calibration with these cells; an older one of the same engine and cell is replaced."""
    new = {(c.engine, c.cell): c for c in (*calibration.held_out, *cells)}
    return replace(calibration, held_out=tuple(new[key] for key in sorted(new)))
