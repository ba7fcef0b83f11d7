"""What a held-out experiment runs: the grid, its two halves, where a record lies in it; measuring it and simulating it.

The grid is scale × workers × partitions (× rows a call × device, for workloads that take them); its halves alternate like the
squares of a checkerboard, so that every predicted cell has calibrated neighbours and none is fitted. The module fits and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running.cellspec import WorkloadChoice
from windtunnel.running.experiment import Experiment, Progress
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.devices import REFERENCE_GMACS, device_spec

ENGINES = ("bulk", "streaming")  # always measured: their spans are what operators cost
SEEDS = 5  # simulated runs of a point
BATCHED = {"images": 16}  # workloads that take rows a call and devices as parameters, and the rows they take without being told
DEVICE_GMACS = (
    20 * REFERENCE_GMACS
)  # of the model on devices: heavy enough that a small one is the bottleneck and a large one is not


class Cell(NamedTuple):
    """A place in the grid. ``batch_rows`` 0: the workload's own; ``device`` empty: none."""

    workload: str
    scale: float
    workers: int
    partitions: int
    batch_rows: int
    device: str
    engine: str

    def __str__(self) -> str:
        name = f"{self.workload} at {self.scale:g}, {self.workers} workers, {self.partitions} partitions"
        name += f", {self.batch_rows} a call" if self.batch_rows else ""
        return name + (f", {self.device}" if self.device else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is measured: every combination, ``rounds`` sessions of ``repetitions`` runs each.

    ``batches`` and ``devices``: rows a call and device kinds of workloads that take them (``images``); 0 and empty for what the
    workload itself has. ``engines``: beside the embedded pair.
    """

    workloads: tuple[str, ...]
    engines: tuple[str, ...] = ()
    batches: tuple[int, ...] = (0,)
    devices: tuple[str, ...] = ("",)
    scales: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    workers: tuple[int, ...] = (1, 2)
    partitions: tuple[int, ...] = (2, 4, 8)
    repetitions: int = 5
    rounds: int = 2

    def halves(self) -> tuple[tuple[WorkloadChoice, ...], tuple[WorkloadChoice, ...]]:
        """(to calibrate on, to predict): the black and the white squares."""
        halves: tuple[list[WorkloadChoice], list[WorkloadChoice]] = ([], [])
        places = product(
            enumerate(self.scales), enumerate(self.workers), enumerate(self.partitions), enumerate(self.batches),
            enumerate(self.devices),
        )  # fmt: skip
        for (i, scale), (j, workers), (k, partitions), (m, batch), (n, device) in places:
            for name in self.workloads:
                halves[(i + j + k + m + n) % 2].append(choice_of(Cell(name, scale, workers, partitions, batch, device, "")))
        return tuple(halves[0]), tuple(halves[1])

    @property
    def every_engine(self) -> tuple[str, ...]:
        """The embedded pair and the others."""
        return tuple(dict.fromkeys((*ENGINES, *self.engines)))


def choice_of(cell: Cell) -> WorkloadChoice:
    """The workload of a cell, with its share of this machine and its device."""
    parameters: dict[str, Any] = {"scale": cell.scale, "partitions": cell.partitions}
    cluster = ClusterSpec.here(cpus=cell.workers)
    if cell.batch_rows:
        parameters["batch_rows"] = cell.batch_rows
    if cell.device:
        parameters |= {"gpus": 1.0, "gmacs": DEVICE_GMACS}
        cluster = replace(cluster, nodes=(replace(cluster.nodes[0], gpus=device_spec(cell.device)),))
    return WorkloadChoice(name=cell.workload, parameters=parameters, cluster=cluster)


def cell_of(record: RunRecord) -> Cell:
    """Where in the grid a record lies; a simulated one lies where its engine does."""
    nodes = record.cluster_spec["nodes"]
    operators = (record.workload_spec.get("pipeline") or {}).get("operators") or ()
    batch = max((int(op.get("batch_rows", 0)) for op in operators), default=0) if record.workload in BATCHED else 0
    asks = any((op.get("resources") or {}).get("gpus") for op in operators)
    return Cell(
        workload=record.workload, scale=record.scale, workers=sum(n["count"] * n["cpus"] for n in nodes),
        partitions=int(record.workload_spec["dataset"]["partitions"]), batch_rows=batch,
        device=str(nodes[0]["gpus"]["kind"]) if asks else "", engine=record.engine.removeprefix("sim:"),
    )  # fmt: skip


def cell_of_choice(choice: WorkloadChoice, engine: str) -> Cell:
    """Where in the grid a choice lies."""
    assert choice.cluster is not None
    given = choice.parameters
    batch = int(given.get("batch_rows", BATCHED.get(choice.name, 0)))
    device = choice.cluster.nodes[0].gpus.kind if given.get("gpus") else ""
    return Cell(choice.name, given["scale"], choice.cluster.cpus, given["partitions"], batch, device, engine)


# -- running ----------------------------------------------------------------------------------------------------------


def measure(
    grid: Grid, store: Store, data_root: Path, progress: Callable[[Progress], None] | None = None
) -> tuple[RunRecord, ...]:
    """Run what the store does not hold yet. Rounds are interleaved over all cells."""
    choices = [c for half in grid.halves() for c in half]
    wanted = {cell_of_choice(c, e) for c in choices for e in grid.every_engine}
    experiment = _experiment(choices, grid.every_engine, data_root, repetitions=grid.repetitions, rounds=grid.rounds)
    experiment.run(store, resume=True, progress=progress)
    found = store.records(experiment=experiment.name, warmup=False)
    return tuple(r for r in found if cell_of(r) in wanted and r.status == "ok")


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


def _experiment(
    choices: Sequence[WorkloadChoice], engines: Sequence[str], data_root: Path, *, repetitions: int, rounds: int = 1,
    options: dict[str, Any] | None = None,
) -> Experiment:  # fmt: skip
    return Experiment(
        name="holdout", workloads=tuple(choices), engines=tuple(EngineChoice(name=n, label=n, options=options or {}) for n in engines),
        cluster=ClusterSpec.here(), aa=False, data_root=data_root, repetitions=repetitions, rounds=rounds,
    )  # fmt: skip


def by_cell(records: Iterable[RunRecord]) -> dict[Cell, list[RunRecord]]:
    """Finished, measured runs by where they lie."""
    found: dict[Cell, list[RunRecord]] = {}
    for record in records:
        if record.makespan_s is not None and not record.warmup:
            found.setdefault(cell_of(record), []).append(record)
    return found
