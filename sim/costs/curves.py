"""What a call of a kernel takes by its rows: piecewise linear between the numbers of rows that were measured. Pure arithmetic.

A model is no affine function of its batch: a large one leaves the caches and costs more a row, a small one pays for the call. A
curve is points (rows, seconds a call), the first at 0 rows; beyond its last point it goes on as between the last two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from windtunnel.sim.calibration.fits import Array

Curve = tuple[tuple[float, float], ...]
_APART = 1.25  # numbers of rows nearer than this factor are one


def knots_of(sizes: Iterable[float]) -> tuple[float, ...]:
    """Where a curve bends, for calls of these sizes: at 0 and at each of them. Empty where one size says nothing of a bend."""
    found: list[float] = []
    for size in sorted(sizes):
        if size > 0 and (not found or size > _APART * found[-1]):
            found.append(size)
    return (0.0, *found) if len(found) > 1 else ()


def weights(knots: Sequence[float], rows: float) -> list[float]:
    """The share of each knot's value in the value at ``rows``."""
    last = next((i for i, knot in enumerate(knots) if i and rows <= knot), len(knots) - 1)
    low, high = knots[last - 1], knots[last]
    found = [0.0] * len(knots)
    found[last] = (rows - low) / (high - low)
    found[last - 1] = 1.0 - found[last]
    return found


def task_weights(knots: Sequence[float], rows: float, batch_rows: int) -> Array:
    """The same for a task that takes its rows in calls of ``batch_rows``, the last of what is left; 0: in one call."""
    if rows <= 0:
        return np.zeros(len(knots))
    size = batch_rows or rows
    full = int(rows / size + 1e-9)
    left = rows - full * size
    found = full * np.array(weights(knots, size))
    return found + np.array(weights(knots, left)) if left > 1e-9 else found


def at_zero(knots: Sequence[float], values: Array) -> float:
    """The value at 0 rows: on the line through the first two calls, and 0 at least."""
    slope = (values[2] - values[1]) / (knots[2] - knots[1])
    return max(0.0, float(values[1] - slope * knots[1]))


def task_seconds(curve: Curve, rows: float, batch_rows: int) -> float:
    """What those calls take together."""
    return float(task_weights([n for n, _ in curve], rows, batch_rows) @ np.array([s for _, s in curve]))
