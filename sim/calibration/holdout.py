"""How far the simulated world is off on this machine: calibrate on half of a grid, predict the other half, compare.

Every cell is visited in ``rounds`` sessions, far apart in time. Runs that a busy neighbour disturbed are left out, and the fastest
session stands for the cell, in both halves alike. What is run is told by `windtunnel.sim.calibration.grid`. The module judges; it
fits nothing. Costs of operators come from the embedded engines alone, those of other engines from what they tell of their runs
(`windtunnel.sim.calibration.foreign`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running.experiment import Progress
from windtunnel.sim.calibration.calibrate import calibrate
from windtunnel.sim.calibration.foreign import saved, with_foreign
from windtunnel.sim.calibration.grid import ENGINES, Cell, Grid, by_cell, cell_of, cell_of_choice, choice_of, measure, predict
from windtunnel.sim.calibration.quiet import (
    QUIET_CORES,
    fastest_session,
    foreign_cores,
    is_quiet,
    median_makespan,
    quiet,
    sessions,
)
from windtunnel.sim.costs.measured import Calibration
from windtunnel.spec.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A predicted cell: medians in seconds, error = simulated over measured - 1, ``noise`` = relative error of the measured median.

    ``quiet``: of ``runs`` measured runs in ``sessions`` so many were undisturbed (none: the quietest stand for the cell).
    """

    workload: str
    scale: float
    workers: int
    partitions: int
    batch_rows: int
    device: str
    engine: str
    measured_s: float
    simulated_s: float
    error: float
    noise: float
    quiet: int
    runs: int
    sessions: int
    foreign_cores: float

    @property
    def cell(self) -> Cell:
        """Where it lies."""
        return Cell(self.workload, self.scale, self.workers, self.partitions, self.batch_rows, self.device, self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All points; ``disturbed`` ones never had a quiet run and count in no figure but their own.

    ``orders_agree`` of ``orders`` places where the engines differ by more than the noise have them in the same order simulated.
    ``floor``: nine of ten pairs of sessions of one cell differ by less: the noise from one minute to another.
    """

    points: tuple[Point, ...]
    disturbed: tuple[Point, ...]
    median_error: float | None
    worst_error: float | None
    orders: int
    orders_agree: int
    floor: float


def holdout(
    grid: Grid, store: Store, data_root: Path, *, date: str = "", progress: Callable[[Progress], None] | None = None
) -> Outcome:
    """Measure, calibrate on one half, predict the other, judge."""
    measured = measure(grid, store, data_root, progress)
    fitted = {cell_of_choice(c, e) for c in grid.halves()[0] for e in grid.every_engine}
    seen = [r for r in measured if cell_of(r) in fitted]
    rest = [r for r in measured if cell_of(r) not in fitted]
    return held_out(seen, rest, {c.name: c.load() for c in grid.halves()[0]}, store.root, data_root, date=date)


def held_out(
    seen: Sequence[RunRecord], rest: Sequence[RunRecord], workloads: Mapping[str, Workload], folder: Path, data_root: Path,
    *, date: str = "",
) -> Outcome:  # fmt: skip
    """Calibrate on the records of ``seen``, predict the cells of ``rest``, judge. What is made on the way goes to ``folder``."""
    calibration = calibrated(seen, workloads, folder, data_root, provenance={"date": date})
    cells, path = sorted({cell_of(r) for r in rest}), saved(calibration, folder)
    store = Store(folder / "simulated" / calibration.digest())
    choices = [choice_of(c) for c in dict.fromkeys(c._replace(engine="") for c in cells)]
    simulated = predict(choices, path, store, data_root, sorted({c.engine for c in cells}))
    return judge([*seen, *rest], [r for r in simulated if cell_of(r) in set(cells)])


def calibrated(
    records: Sequence[RunRecord],
    workloads: Mapping[str, Workload],
    folder: Path,
    data_root: Path,
    *,
    provenance: Mapping[str, Any],
) -> Calibration:
    """Costs of operators and of the embedded engines, then of each other engine among the records."""
    calibration = calibrate(records, provenance=provenance, workloads=workloads)
    for engine in sorted({r.engine for r in records if r.status == "ok"} - set(ENGINES)):
        calibration = with_foreign(calibration, engine, records, folder, data_root)
    return calibration


# -- judging ----------------------------------------------------------------------------------------------------------


def judge(measured: Iterable[RunRecord], simulated: Iterable[RunRecord]) -> Outcome:
    """Every simulated cell beside its measurement. Pure."""
    real, made = by_cell(measured), by_cell(simulated)
    points = [_point(cell, real[cell], made[cell]) for cell in sorted(made) if cell in real]
    good = [p for p in points if p.quiet]
    floor = session_to_session(measured)
    same, shown = _orders(good, floor)
    sizes = [abs(p.error) for p in good]
    return Outcome(
        points=tuple(good), disturbed=tuple(p for p in points if not p.quiet), floor=floor, orders=shown, orders_agree=same,
        median_error=float(np.median(sizes)) if sizes else None, worst_error=max(sizes, default=None),
    )  # fmt: skip


def _point(cell: Cell, real: Sequence[RunRecord], simulated: Sequence[RunRecord]) -> Point:
    chosen = fastest_session(quiet(real, cell_of))
    took, made = median_makespan(chosen), median_makespan(simulated)
    return Point(
        **cell._asdict(), measured_s=took, simulated_s=made,
        error=made / took - 1, noise=_noise(chosen), quiet=sum(map(is_quiet, real)), runs=len(real), sessions=len(sessions(real)),
        foreign_cores=float(np.mean([foreign_cores(r) for r in chosen])),
    )  # fmt: skip


def _noise(records: Sequence[RunRecord]) -> float:
    """Standard error of the median, relative: 1.2533 σ / √n, with σ from the median absolute deviation."""
    times = np.array([r.makespan_s or 0.0 for r in records])
    away = 1.4826 * float(np.median(np.abs(times - np.median(times))))
    return 1.2533 * away / math.sqrt(len(times)) / float(np.median(times))


def session_to_session(records: Iterable[RunRecord]) -> float:
    """Nine of ten pairs of sessions of a cell differ by less than this, relatively; 0 without a second session."""
    differences = []
    for members in by_cell(r for r in records if is_quiet(r)).values():
        medians = [median_makespan(s) for s in sessions(members)]
        differences += [max(a, b) / min(a, b) - 1 for a, b in combinations(medians, 2)]
    return float(np.quantile(differences, 0.9)) if differences else 0.0


def _orders(points: Sequence[Point], floor: float) -> tuple[int, int]:
    """(places where the order is the same, places where the engines differ by more than the noise)."""
    places: dict[Cell, list[Point]] = {}
    for point in points:
        places.setdefault(point.cell._replace(engine=""), []).append(point)
    same = shown = 0
    for members in places.values():
        for a, b in combinations(members, 2):
            if abs(a.measured_s / b.measured_s - 1) > max(2 * math.hypot(a.noise, b.noise), floor):
                shown += 1
                same += (a.measured_s < b.measured_s) == (a.simulated_s < b.simulated_s)
    return same, shown


# -- for people -------------------------------------------------------------------------------------------------------


def table(outcome: Outcome) -> str:
    """All points and the verdict, for people."""
    lines = [f"{'point':60} {'engine':10} {'measured':>9} {'simulated':>9} {'error':>7} {'noise':>6} quiet"]
    for point in (*outcome.points, *outcome.disturbed):
        lines.append(
            f"{point.cell!s:60} {point.engine:10} {point.measured_s * 1e3:7.0f}ms {point.simulated_s * 1e3:7.0f}ms {point.error:+7.1%} "
            f"{point.noise:6.1%} {point.quiet}/{point.runs}"
        )
    if outcome.median_error is not None and outcome.worst_error is not None:
        lines.append(
            f"{len(outcome.points)} predicted points: median error {outcome.median_error:.1%}, worst {outcome.worst_error:.1%}; "
            f"order of the engines the same at {outcome.orders_agree} of {outcome.orders} places where they differ; "
            f"noise from session to session {outcome.floor:.1%}; {len(outcome.disturbed)} points had no quiet run "
            f"(others above {QUIET_CORES:g} of a core)"
        )
    return "\n".join(lines)
