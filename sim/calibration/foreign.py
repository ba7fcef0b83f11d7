"""What an engine that keeps its insides to itself costs on this machine, from what it tells of its runs and from how long they took.

Its model, with operators as the embedded engines measured them and its sourced constants, is corrected in the order of what is known
best. (1) Kernels tell their CPU seconds in every engine's processes (`windtunnel.engines.notes`): over those of the embedded fit they
are the engine's own co-run law, by number of workers. (2) Loads are counted: a warm session whose workers keep their state loads less
often than once a worker and run. (3) What is then left of the measured times is fitted over all cells, on relative errors
and never negative, to what the model says a second of each overhead makes of each cell: ``startup_s`` a run, and ``bridge_row_s`` a
row that crosses to Python and back, or, of engines whose own operators did the work, a factor on it. What a few numbers cannot
follow shows as error on cells held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.sim.calibration.fits import Array
from windtunnel.sim.calibration.grid import Cell, by_cell, cell_of, choice_of, predict
from windtunnel.sim.calibration.quiet import fastest_session, median_makespan, quiet
from windtunnel.sim.costs.laws import LOAD
from windtunnel.sim.costs.measured import Calibration, EngineCost, Residual

Simulated = Mapping[Cell, Sequence[RunRecord]]
Simulate = Callable[[EngineCost], Simulated]
_KEPT = 0.5  # loads a worker and run below which a session counts as one that keeps its state
_CROSSING_S = 1e-3  # of a row, to see what crossing makes of a run
LEAST_CELLS = 2


def with_foreign(
    calibration: Calibration, engine: str, records: Sequence[RunRecord], folder: Path, data_root: Path
) -> Calibration:
    """The calibration with the overheads of an engine, from its records. Raises InputError where too few cells ended well."""
    mine = {c: fastest_session(quiet(runs, cell_of)) for c, runs in by_cell(records).items() if c.engine == engine}

    def simulate(cost: EngineCost) -> Simulated:
        tried = _with(calibration, cost)
        at = Store(folder / "simulated" / f"{tried.digest()}-fit")
        choices = list({c._replace(engine=""): choice_of(c) for c in mine}.values())
        return by_cell(predict(choices, saved(tried, folder), at, data_root, (engine,)))

    cost = foreign_cost(engine, mine, calibration, simulate)
    return replace(_with(calibration, cost), residuals=(*calibration.residuals, *_residuals(mine, simulate(cost))))


def _residuals(measured: Simulated, simulated: Simulated) -> Iterator[Residual]:
    """How far the fit is from each cell that it was made of: whole runs, for their insides are not told."""
    for cell, runs in sorted(measured.items()):
        took, fitted = median_makespan(runs), median_makespan(simulated[cell])
        yield Residual(cell=str(cell), engine=cell.engine, measured_s=took, fitted_s=fitted, error=abs(fitted / took - 1))


def _with(calibration: Calibration, cost: EngineCost) -> Calibration:
    others = tuple(e for e in calibration.engines if e.engine != cost.engine)
    return replace(calibration, engines=(*others, cost))


def saved(calibration: Calibration, folder: Path) -> Path:
    """The file of a calibration, by its digest."""
    path = folder / "calibrations" / f"{calibration.digest()}.json"
    calibration.save(path)
    return path


def foreign_cost(
    engine: str, measured: Mapping[Cell, Sequence[RunRecord]], calibration: Calibration, simulate: Simulate
) -> EngineCost:
    """The overheads of an engine from the runs of its cells and a way to simulate them with overheads given."""
    if len(measured) < LEAST_CELLS:
        raise InputError(
            f"{engine} ended well at {len(measured)} cells to calibrate on; its overheads need {LEAST_CELLS} at least"
        )
    bare = {
        **ENTRIES[engine].traits.overheads(),
        "startup_s": 0.0,
        "actor_start_s": 0.0,
    }  # what a run pays at its start is fitted
    crosses = any("kernel_s" in r.counters for runs in measured.values() for r in runs)
    if crosses:  # a row's way is fitted, its bytes with it
        bare |= {"bridge_row_s": 0.0, "bridge_bytes_per_s": 0.0}
    cost = EngineCost(engine=engine, **bare, keeps_state=loads_a_worker(measured) < _KEPT)
    law = kernel_law(measured, simulate(cost), calibration) if crosses else _embedded_law(calibration)
    cost = replace(cost, slowdown=law)
    cells = sorted(measured)
    before = _seconds(simulate(cost), cells)
    took = np.array([median_makespan(measured[c]) for c in cells])
    if crosses:
        crossing = (_seconds(simulate(replace(cost, bridge_row_s=_CROSSING_S)), cells) - before) / _CROSSING_S
        startup, row_s = remainder(took, before, crossing)
        return replace(cost, startup_s=startup, bridge_row_s=row_s)
    startup, more = remainder(took, before, before)
    return replace(cost, startup_s=startup, slowdown=tuple((n, m * (1.0 + more)) for n, m in law))


def _seconds(simulated: Simulated, cells: Sequence[Cell]) -> Array:
    return np.array([median_makespan(simulated[c]) for c in cells])


def remainder(took: Array, simulated: Array, column: Array) -> tuple[float, float]:
    """(seconds a run, multiple of ``column``), neither negative, that make of simulated times what was measured, on relative errors."""
    from scipy.optimize import nnls

    weights = 1.0 / took
    columns = np.stack([np.ones_like(took), column], axis=1)
    scale = np.maximum(np.max(np.abs(columns), axis=0), 1e-12)
    found, _ = nnls(columns / scale * weights[:, None], (took - simulated) * weights)
    return float(found[0] / scale[0]), float(found[1] / scale[1])


def _embedded_law(calibration: Calibration) -> tuple[tuple[float, float], ...]:
    return next((e.slowdown for e in calibration.engines if e.slowdown), ()) or ((1.0, 1.0),)


def loads_a_worker(measured: Mapping[Cell, Sequence[RunRecord]]) -> float:
    """How often a worker of a warm session loads its state in a run: the median over cells; 1 where nothing was ever loaded."""
    shares = [
        float(np.median([r.counters.get("loads", 0.0) for r in runs])) / cell.workers
        for cell, runs in measured.items()
        if any("kernel_s" in r.counters for r in runs)
    ]
    return float(np.median(shares)) if shares else 1.0


def kernel_law(
    measured: Mapping[Cell, Sequence[RunRecord]], simulated: Simulated, calibration: Calibration
) -> tuple[tuple[float, float], ...]:
    """CPU seconds that kernels took over those of the embedded fit undisturbed, by number of workers; rising, and 1 at least.

    CPU time is not stretched by waiting for a core, which the simulated world tells itself. Where no cell tells, the embedded law.
    """
    ratios: dict[int, list[float]] = {}
    for cell, runs in measured.items():
        names = {n.partition(":")[2] for r in runs for n in r.counters if n.startswith("kernel_s:")}
        expected = np.median([_kernel_seconds(r, names) for r in simulated.get(cell, ())] or [0.0])
        spent = np.median([r.counters.get("kernel_cpu_s", 0.0) - _first_calls(r, cell, calibration) for r in runs])
        if not cell.device and expected > 0 and spent > 0:
            ratios.setdefault(cell.workers, []).append(float(spent / expected))
    if not ratios:
        return _embedded_law(calibration)
    points, highest = [], 1.0
    for workers, found in sorted(ratios.items()):
        highest = max(highest, float(np.median(found)))
        points.append((float(workers), highest))
    return tuple(points)


def _kernel_seconds(record: RunRecord, names: set[str]) -> float:
    """What the simulated kernels of these operators took together."""
    spans: list[dict[str, Any]] = record.spans.to_pylist()
    return float(sum(s["end_s"] - s["start_s"] for s in spans if s["kind"] == "compute" and s["operator"] in names))


def _first_calls(record: RunRecord, cell: Cell, calibration: Calibration) -> float:
    """Seconds of first calls after its loads, which are no part of the steady cost."""
    loads = [c for c in calibration.operators if c.workload == record.workload and c.phase == LOAD]
    return record.counters.get("loads", 0.0) * sum(c.first_s + c.first_row_s * cell.batch_rows for c in loads)
