"""Where a series of runs changed: E-divisive change points, the method of the field for noisy benchmark histories.

D. S. Matteson, N. A. James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data", JASA 109 (2014),
with the exponent 1; used for performance histories by D. Daly et al., "The Use of Change Point Detection to Identify Software
Performance Regressions in a Continuous Integration System", ICPE 2020. A segment is cut where the energy distance between its two
sides is largest, if at least 95 % of 399 seeded permutations of the segment have a smaller one; then each side is looked at alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERMUTATIONS = 399
LEVEL = 0.05
LEAST = 3  # points on each side of a change


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """``at``: index of the first point after the change; ``change``: median after over median before, minus 1 (None: before was 0).

    ``p``: its chance.
    """

    at: int
    before: float
    after: float
    change: float | None
    p: float


def change_points(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """All change points of a series, in order; medians are those of the segments beside them."""
    data = np.asarray(values, dtype=float)
    cuts = sorted(_cuts(data, 0, len(data), np.random.default_rng(7)))
    edges = [0, *(at for at, _ in cuts), len(data)]
    found = []
    for number, (at, p) in enumerate(cuts):
        before, after = (float(np.median(data[a:b])) for a, b in ((edges[number], at), (at, edges[number + 2])))
        found.append(ChangePoint(at, before, after, after / before - 1 if before else None, p))
    return tuple(found)


def _cuts(data: Any, start: int, end: int, dice: np.random.Generator) -> list[tuple[int, float]]:
    segment = data[start:end]
    if len(segment) < 2 * LEAST or np.ptp(segment) == 0:
        return []
    distances = np.abs(segment[:, None] - segment[None, :])
    at, strength = _best(distances)
    beaten = 0
    for _ in range(PERMUTATIONS):
        order = dice.permutation(len(segment))
        beaten += _best(distances[np.ix_(order, order)])[1] >= strength
    p = (1 + beaten) / (1 + PERMUTATIONS)
    if p > LEVEL:
        return []
    return [(start + at, p), *_cuts(data, start, start + at, dice), *_cuts(data, start + at, end, dice)]


def _best(distances: Any) -> tuple[int, float]:
    """(cut, statistic) with the largest energy distance, scaled by n·m / (n + m)."""
    size = len(distances)
    within = np.cumsum(np.cumsum(distances, axis=0), axis=1)  # within[i, j]: sum over the first i + 1 rows and j + 1 columns
    total = within[-1, -1]
    cuts = np.arange(LEAST, size - LEAST + 1)
    left = within[cuts - 1, cuts - 1]
    cross = within[cuts - 1, -1] - left
    right = total - left - 2 * cross
    n, m = cuts.astype(float), (size - cuts).astype(float)
    energy = 2 * cross / (n * m) - left / n**2 - right / m**2
    strength = n * m / (n + m) * energy
    place = int(np.argmax(strength))
    return int(cuts[place]), float(strength[place])
