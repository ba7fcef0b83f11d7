"""How far the simulated world is off on this machine: calibrate on half of a grid, predict the other half, compare.

The grid is scale × workers × partitions (× rows a call, for workloads that take them); its halves alternate like the squares of a
checkerboard: every predicted point has calibrated neighbours and none is fitted. Every cell is visited in ``rounds`` sessions, far
apart in time. Runs that a busy neighbour disturbed are left out, and the fastest session stands for the cell, in both halves alike.
``python -m windtunnel.sim.holdout`` prints the table. The module judges; it fits nothing. Costs of operators come from the
embedded engines alone, those of other engines from their whole runs (`windtunnel.sim.foreign`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from windtunnel.sim.calibrate import calibrate
from windtunnel.sim.costs import Calibration
from windtunnel.sim.foreign import foreign_cost
from windtunnel.sim.quiet import QUIET_CORES, fastest_session, foreign_cores, is_quiet, median_makespan, quiet, sessions

from windtunnel.cellspec import WorkloadChoice, default_data_root
from windtunnel.cluster import ClusterSpec
from windtunnel.experiment import Experiment, Progress
from windtunnel.record import RunRecord
from windtunnel.scenario_tables import EngineChoice
from windtunnel.store import Store

ENGINES = ("bulk", "streaming")  # always measured: their spans are what operators cost
SEEDS = 5  # simulated runs of a point
BATCHED = {"images": 16}  # workloads that take rows a call as a parameter, and what they take without it
Cell = tuple[str, float, int, int, int, str]  # workload, scale, workers, partitions, rows a call (0: its own), engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is measured: every combination, ``rounds`` sessions of ``repetitions`` runs each.

    ``batches``: rows a call of workloads that take them (``images``), 0 for those of the workload itself. ``engines``: beside the
    embedded pair.
    """

    workloads: tuple[str, ...]
    engines: tuple[str, ...] = ()
    batches: tuple[int, ...] = (0,)
    scales: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    workers: tuple[int, ...] = (1, 2)
    partitions: tuple[int, ...] = (2, 4, 8)
    repetitions: int = 5
    rounds: int = 2

    def halves(self) -> tuple[tuple[WorkloadChoice, ...], tuple[WorkloadChoice, ...]]:
        """(to calibrate on, to predict): the black and the white squares."""
        halves: tuple[list[WorkloadChoice], list[WorkloadChoice]] = ([], [])
        places = product(enumerate(self.scales), enumerate(self.workers), enumerate(self.partitions), enumerate(self.batches))
        for (i, scale), (j, workers), (k, partitions), (m, batch) in places:
            for name in self.workloads:
                parameters = {"scale": scale, "partitions": partitions} | ({"batch_rows": batch} if batch else {})
                choice = WorkloadChoice(name=name, parameters=parameters, cluster=ClusterSpec.here(cpus=workers))
                halves[(i + j + k + m) % 2].append(choice)
        return tuple(halves[0]), tuple(halves[1])


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
    engine: str
    measured_s: float
    simulated_s: float
    error: float
    noise: float
    quiet: int
    runs: int
    sessions: int
    foreign_cores: float


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


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(
    grid: Grid, store: Store, data_root: Path, progress: Callable[[Progress], None] | None = None
) -> tuple[RunRecord, ...]:
    """Run what the store does not hold yet. Rounds are interleaved over all cells."""
    choices = [c for half in grid.halves() for c in half]
    engines = tuple(dict.fromkeys((*ENGINES, *grid.engines)))
    wanted = {cell_of_choice(c, e) for c in choices for e in engines}
    experiment = _experiment(choices, engines, data_root, repetitions=grid.repetitions, rounds=grid.rounds)
    experiment.run(store, resume=True, progress=progress)
    found = store.records(experiment=experiment.name, warmup=False)
    return tuple(r for r in found if cell_of(r) in wanted and r.status == "ok")


def _experiment(choices: Sequence[WorkloadChoice], engines: Sequence[str], data_root: Path, **more: Any) -> Experiment:
    chosen = tuple(EngineChoice(name=n, label=n, options=dict(more.get("options", {}))) for n in engines)
    more.pop("options", None)
    return Experiment(
        name="holdout",
        workloads=tuple(choices),
        engines=chosen,
        cluster=ClusterSpec.here(),
        aa=False,
        data_root=data_root,
        **more,
    )


def cell_of(record: RunRecord) -> Cell:
    """Where in the grid a record lies; a simulated one lies where its engine does."""
    workers = sum(n["count"] * n["cpus"] for n in record.cluster_spec["nodes"])
    partitions = int(record.workload_spec["dataset"]["partitions"])
    return record.workload, record.scale, workers, partitions, _batch_rows(record), record.engine.removeprefix("sim:")


def _batch_rows(record: RunRecord) -> int:
    """Rows a call of a workload that lets them be chosen; 0 for all others."""
    if record.workload not in BATCHED:
        return 0
    return max((int(op.get("batch_rows", 0)) for op in record.workload_spec["pipeline"]["operators"]), default=0)


def cell_of_choice(choice: WorkloadChoice, engine: str) -> Cell:
    """Where in the grid a choice lies."""
    assert choice.cluster is not None
    given = choice.parameters
    batch = int(given.get("batch_rows", BATCHED.get(choice.name, 0)))
    return choice.name, given["scale"], choice.cluster.cpus, given["partitions"], batch, engine


# -- predicting -------------------------------------------------------------------------------------------------------


def predict(
    choices: Sequence[WorkloadChoice],
    calibration: Path,
    store: Store,
    data_root: Path,
    engines: Sequence[str] = ENGINES,
    **options: Any,
) -> tuple[RunRecord, ...]:
    """The simulated runs of these choices."""
    names = [f"sim:{n}" for n in engines]
    chosen = {"calibration": str(calibration), **options}
    experiment = _experiment(choices, names, data_root, repetitions=SEEDS, options=chosen)
    return tuple(r for r in experiment.run(store, resume=True) if r.status == "ok")


def holdout(
    grid: Grid, store: Store, data_root: Path, *, date: str = "", progress: Callable[[Progress], None] | None = None
) -> Outcome:
    """Measure, calibrate on one half, predict the other, judge."""
    fitted, predicted = grid.halves()
    measured = measure(grid, store, data_root, progress)
    engines = tuple(dict.fromkeys((*ENGINES, *grid.engines)))
    known = {cell_of_choice(c, e) for c in fitted for e in engines}
    seen = [r for r in measured if cell_of(r) in known]
    calibration = calibrate(seen, provenance={"date": date}, workloads={c.name: c.load() for c in fitted})
    path = _saved(calibration, store)
    foreign = [e for e in engines if e not in ENGINES]
    if foreign:
        at = Store(store.root / "simulated" / f"{calibration.digest()}-fit")
        plain = predict(fitted, path, at, data_root, foreign, overheads={"startup_s": 0.0})
        costs = tuple(foreign_cost(e, _pairs(seen, plain, e), calibration) for e in foreign)
        calibration = replace(calibration, engines=(*calibration.engines, *costs))
        path = _saved(calibration, store)
    simulated = predict(predicted, path, Store(store.root / "simulated" / calibration.digest()), data_root, engines)
    return judge(measured, simulated)


def _saved(calibration: Calibration, store: Store) -> Path:
    path = store.root / "calibrations" / f"{calibration.digest()}.json"
    calibration.save(path)
    return path


def _pairs(measured: Sequence[RunRecord], simulated: Sequence[RunRecord], engine: str) -> list[tuple[float, float]]:
    """(simulated, measured) seconds of an engine's cells."""
    real, made = _by_cell(measured), _by_cell(simulated)
    cells = sorted(c for c in made if c in real and c[-1] == engine)
    return [(median_makespan(made[c]), median_makespan(fastest_session(quiet(real[c], cell_of)))) for c in cells]


# -- judging ----------------------------------------------------------------------------------------------------------


def judge(measured: Iterable[RunRecord], simulated: Iterable[RunRecord]) -> Outcome:
    """Every simulated cell beside its measurement. Pure."""
    real, made = _by_cell(measured), _by_cell(simulated)
    points = [_point(cell, real[cell], made[cell]) for cell in sorted(made) if cell in real]
    good = [p for p in points if p.quiet]
    floor = session_to_session(measured)
    same, shown = _orders(good, floor)
    sizes = [abs(p.error) for p in good]
    return Outcome(
        points=tuple(good), disturbed=tuple(p for p in points if not p.quiet), floor=floor, orders=shown, orders_agree=same,
        median_error=float(np.median(sizes)) if sizes else None, worst_error=max(sizes, default=None),
    )  # fmt: skip


def _by_cell(records: Iterable[RunRecord]) -> dict[Cell, list[RunRecord]]:
    found: dict[Cell, list[RunRecord]] = {}
    for record in records:
        if record.makespan_s is not None and not record.warmup:
            found.setdefault(cell_of(record), []).append(record)
    return found


def _point(cell: Cell, real: Sequence[RunRecord], simulated: Sequence[RunRecord]) -> Point:
    chosen = fastest_session(quiet(real, cell_of))
    took, made = median_makespan(chosen), median_makespan(simulated)
    workload, scale, workers, partitions, batch, engine = cell
    return Point(
        workload=workload, scale=scale, workers=workers, partitions=partitions, batch_rows=batch, engine=engine,
        measured_s=took, simulated_s=made,
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
    for members in _by_cell(r for r in records if is_quiet(r)).values():
        medians = [median_makespan(s) for s in sessions(members)]
        differences += [max(a, b) / min(a, b) - 1 for a, b in combinations(medians, 2)]
    return float(np.quantile(differences, 0.9)) if differences else 0.0


def _orders(points: Sequence[Point], floor: float) -> tuple[int, int]:
    """(places where the order is the same, places where the engines differ by more than the noise)."""
    places: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        places.setdefault((point.workload, point.scale, point.workers, point.partitions, point.batch_rows), []).append(point)
    same = shown = 0
    for members in places.values():
        for a, b in combinations(members, 2):
            if abs(a.measured_s / b.measured_s - 1) > max(2 * math.hypot(a.noise, b.noise), floor):
                shown += 1
                same += (a.measured_s < b.measured_s) == (a.simulated_s < b.simulated_s)
    return same, shown


# -- the command ------------------------------------------------------------------------------------------------------


def table(outcome: Outcome) -> str:
    """All points and the verdict, for people."""
    lines = [f"{'point':48} {'engine':10} {'measured':>9} {'simulated':>9} {'error':>7} {'noise':>6} quiet"]
    for point in (*outcome.points, *outcome.disturbed):
        name = f"{point.workload} at {point.scale:g}, {point.workers} workers, {point.partitions} partitions"
        name += f", {point.batch_rows} a call" if point.batch_rows else ""
        lines.append(
            f"{name:48} {point.engine:10} {point.measured_s * 1e3:7.0f}ms {point.simulated_s * 1e3:7.0f}ms {point.error:+7.1%} "
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


def _numbers(kind: type[Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print; the JSON document goes to ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m windtunnel.sim.holdout", description=__doc__)
    parser.add_argument("--workloads", type=_numbers(str), required=True)
    parser.add_argument("--scales", type=_numbers(float), default=(0.05, 0.1, 0.2, 0.4))
    parser.add_argument("--workers", type=_numbers(int), default=(1, 2))
    parser.add_argument("--partitions", type=_numbers(int), default=(2, 4, 8))
    parser.add_argument("--engines", type=_numbers(str), default=(), help="beside bulk and streaming")
    parser.add_argument("--batches", type=_numbers(int), default=(0,), help="rows a call")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, required=True, help="folder of the records; finished ones are not run again")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--date", default="", help="provenance of the calibration")
    given = parser.parse_args(arguments)
    names = ("workloads", "engines", "scales", "workers", "partitions", "batches", "repetitions", "rounds")
    grid = Grid(**{n: getattr(given, n) for n in names})
    outcome = holdout(grid, Store(given.results), default_data_root(), date=given.date)
    if given.out is not None:
        given.out.write_text(json.dumps({"grid": asdict(grid), **asdict(outcome)}, indent=1) + "\n")
    print(table(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
