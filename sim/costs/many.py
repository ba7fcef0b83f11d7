"""The work of very many tasks at once, as arrays: what `StageLaw.work` says of each of them, with the same operations.

The module owns no rule of its own; a test compares it with `StageLaw.work`, number by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from windtunnel.sim.costs.curves import task_seconds
from windtunnel.sim.costs.laws import StageLaw, StepLaw, WorkClass

Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Works:
    """Tasks along the first axis. ``seconds`` and ``cvs`` have a column a step, whose class is in ``classes``; the rest is as in `Work`."""

    classes: tuple[WorkClass, ...]
    seconds: Floats
    cvs: Floats
    rows_out: Floats
    row_bytes: Floats
    batches: Whole
    moved_bytes: Floats

    def seconds_of(self, *classes: WorkClass) -> Floats:
        """Seconds of each task's steps of these classes."""
        chosen = [i for i, work_class in enumerate(self.classes) if work_class in classes]
        total: Floats = np.zeros(len(self.rows_out))
        for i in chosen:
            total = total + self.seconds[:, i]
        return total


def works(law: StageLaw, rows: Whole, sizes: Whole) -> Works:
    """The work of source tasks of so many ``rows`` and bytes (``sizes``), each of which reads one block."""
    count = len(rows)
    at = rows.astype(np.float64)
    width = np.divide(sizes, at, out=np.zeros(count), where=at != 0)
    batches, moved = np.ones(count, dtype=np.int64), np.zeros(count)
    seconds, cvs, classes = [], [], []
    for step in law.steps:
        calls = _calls(step, at)
        spent = calls * step.cost.per_batch_s + at * step.cost.per_row_s + at * width * step.cost.per_byte_s
        if step.curve:
            spent = _on_curve(step, at)
        seconds.append(spent)
        cvs.append(np.divide(step.cost.cv, np.sqrt(calls), out=np.zeros(count), where=calls > 0))
        classes.append(step.work_class)
        out = _rows_out(step, at)
        width_out = width if step.row_bytes_out is None else np.full(count, step.row_bytes_out)
        if step.work_class == "device":
            moved = moved + (at * width + out * width_out)
        flow = np.ceil(at / step.flow_rows).astype(np.int64) if step.flow_rows else calls
        batches = np.ones(count, dtype=np.int64) if step.at_end else np.maximum(batches, flow)
        at, width = out, width_out
    if law.exchange is not None:
        cost = law.exchange.cost
        spent = cost.per_batch_s + at * cost.per_row_s + at * width * cost.per_byte_s
        seconds.append(np.where(at != 0, spent, 0.0))
        cvs.append(np.full(count, cost.cv))
        classes.append("cpu")
    columns = np.column_stack(seconds) if seconds else np.zeros((count, 0))
    varied = np.column_stack(cvs) if cvs else np.zeros((count, 0))
    return Works(tuple(classes), columns, varied, at, width, batches, moved)


def _calls(step: StepLaw, rows: Floats) -> Whole:
    """`StepLaw.calls` of each task."""
    if not step.batch_rows:
        return np.where(rows > 0, 1, 0)
    calls = np.maximum(np.ceil(rows / step.batch_rows - 1e-9), 1).astype(np.int64)
    return np.where(rows > 0, calls, 0)


def _rows_out(step: StepLaw, rows: Floats) -> Floats:
    """`StepLaw.rows_out` of each task."""
    if step.rows_exponent == 1.0:
        out = rows * step.rows_factor
    else:
        different, which = np.unique(rows, return_inverse=True)
        out = np.array([step.rows_factor * n**step.rows_exponent if n > 0 else 0.0 for n in different.tolist()])[which]
    return np.where(rows > 0, np.minimum(out, step.max_rows), 0.0)


def _on_curve(step: StepLaw, rows: Floats) -> Floats:
    """What the calls of each task take, by the points of the step's curve."""
    different, which = np.unique(rows, return_inverse=True)
    taken: Floats = np.array([task_seconds(step.curve, n, step.flow_rows) for n in different.tolist()])[which]
    return taken
