"""What stateful operators cost beside their rows: loading them, their first calls, and what the host does around an emulated device.

A worker loads its model (``load`` spans), and its first task is slower than its later ones: memory is laid out, kernels are chosen.
Both are paid once a worker and run, so they are one cost of phase `LOAD`. Emulated devices take published time, which is no
measurement: of their calls only what exceeds it is fitted, under a phase of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from windtunnel.engines.physical import program
from windtunnel.model import Job, Stage
from windtunnel.sim.calibration.fits import Array
from windtunnel.sim.calibration.observe import ObservedRun
from windtunnel.sim.costs.laws import EMULATED, LOAD
from windtunnel.sim.costs.measured import Calibration, OperatorCost
from windtunnel.spec.devices import emulated, is_emulated
from windtunnel.spec.plan import MapBatches, Pipeline, State
from windtunnel.spec.workload import BoundWorkload


def device_kind(run: ObservedRun, stage: Stage) -> str:
    """The emulated device that a stage ran on; empty where it ran on none."""
    if stage.resources.gpus <= 0:
        return ""
    kinds = (str((n.get("gpus") or {}).get("kind", "")) for n in run.record.cluster_spec["nodes"])
    return next((k for k in kinds if is_emulated(k)), "")


def phase_of(run: ObservedRun, stage: Stage, phase: object) -> str:
    """The name under which a phase's costs are kept."""
    name = type(phase).__name__
    return name + EMULATED if isinstance(phase, MapBatches) and device_kind(run, stage) else name


def published_s(run: ObservedRun, operator: str, kind: str, rows: float, calls: float, moved_bytes: float) -> float:
    """Seconds that an emulated device takes for so many rows, by the figures that emulation and simulation share."""
    figures = emulated(kind)
    pipeline: Mapping[str, Any] = run.record.workload_spec["pipeline"]
    told = next(op for op in pipeline["operators"] if op["name"] == operator)
    gmacs = {str(k): v for k, v in told["kernel"]["params"]}.get("gmacs")
    row_s = figures.row_s if gmacs is None else figures.seconds(1, float(gmacs)) - figures.fixed_s
    return calls * figures.fixed_s + rows * row_s + moved_bytes / figures.pcie_bytes_per_s


def first_tasks(run: ObservedRun) -> set[int]:
    """Of each worker that loaded state, the first task, as positions in the run."""
    found: dict[int, int] = {}
    for position in sorted(range(len(run.tasks)), key=lambda i: run.tasks[i].begin_s):
        task = run.tasks[position]
        if task.stage is not None and task.stage.state.kind == "actor":
            found.setdefault(task.worker, position)
    return set(found.values())


@dataclass(frozen=True, slots=True)
class FirstCall:
    """How much longer a worker's first task takes: seconds, and seconds for each row of a call (a model's memory grows with it)."""

    first_s: float = 0.0
    first_row_s: float = 0.0

    def __add__(self, other: FirstCall) -> FirstCall:
        return FirstCall(self.first_s + other.first_s, self.first_row_s + other.first_row_s)


def first_call(longer: Array, calls: Array) -> FirstCall:
    """Fitted to first tasks that took so much longer, with calls of so many rows; one size of calls tells no share a row."""
    if len(set(calls.tolist())) < 2:
        return FirstCall(max(0.0, float(np.median(longer))))
    from scipy.optimize import nnls

    found, _ = nnls(np.stack([np.ones_like(calls), calls], axis=1), longer)
    return FirstCall(float(found[0]), float(found[1]))


def load_costs(runs: Sequence[ObservedRun], extra: Mapping[tuple[str, str], FirstCall]) -> Iterator[OperatorCost]:
    """A cost a stateful stage, named by its first operator: the median load, and what its first tasks took too long (``extra``)."""
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        where = {s.operators[0]: s for s in run.job.stages if s.state.kind == "actor"}
        for piece in run.loads:
            stage = where.get(piece.operator)
            phase = LOAD + EMULATED if stage is not None and device_kind(run, stage) else LOAD
            seconds.setdefault((run.record.workload, piece.operator, phase), []).append(piece.seconds)
    for (workload, operator, phase), found in sorted(seconds.items()):
        median = float(np.median(found))
        first = extra.get((workload, operator), FirstCall()) if phase == LOAD else FirstCall()
        yield OperatorCost(
            workload=workload, operator=operator, phase=phase, samples=len(found),
            fixed_s=median, first_s=first.first_s, first_row_s=first.first_row_s,
            error=float(np.median(np.abs(np.array(found) - median))) / median if median else 0.0,
        )  # fmt: skip


def kept(workload: BoundWorkload) -> BoundWorkload:
    """The workload of an engine whose warm workers hold its state: real kernels are stateless as far as a run is concerned."""
    operators = tuple(
        replace(op, state=State()) if isinstance(op.kernel, MapBatches) and not op.resources.gpus else op
        for op in workload.pipeline.operators
    )
    return replace(workload, workload=replace(workload.workload, pipeline=Pipeline(operators)))


def loading(job: Job, workload: str, calibration: Calibration) -> Job:
    """The job whose stateful stages take as long to load as was measured; a declared time that is longer stays."""
    return replace(job, stages=tuple(_loading(s, workload, calibration) for s in job.stages))


def _loading(stage: Stage, workload: str, calibration: Calibration) -> Stage:
    phase = LOAD + EMULATED if on_emulated(stage) else LOAD
    if stage.state.kind != "actor" or not calibration.has(workload, stage.operators[0], phase):
        return stage
    load_s = calibration.operator(workload, stage.operators[0], phase).fixed_s
    return replace(stage, state=replace(stage.state, load_s=max(stage.state.load_s, load_s)))


def on_emulated(stage: Stage) -> bool:
    """Whether a placed stage runs on an emulated device."""
    kernels = (s.phase for s in program(stage).steps)
    return any(is_emulated(str(dict(k.params).get("device", ""))) for k in kernels if isinstance(k, MapBatches))
