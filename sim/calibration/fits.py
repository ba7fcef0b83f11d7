"""Small fits on plain arrays: non-negative least squares on relative errors, power laws, robust middles. Knows no record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
FLOOR_S = 50e-6  # residuals of times shorter than this are not relative


def non_negative_fit(columns: Array, y: Array) -> Array:
    """Coefficients ≥ 0 that minimise the squared relative error of ``columns @ coefficients`` to ``y`` (Lawson and Hanson 1974)."""
    from scipy.optimize import nnls

    scale = np.max(columns, axis=0)
    scale[scale == 0] = 1.0
    weights = 1.0 / np.maximum(y, FLOOR_S)
    solution, _ = nnls(columns / scale * weights[:, None], y * weights)
    return np.asarray(solution / scale, dtype=float)


def is_constant(values: Array) -> bool:
    """Whether all are about equal, and above 0."""
    return float(np.min(values)) > 0 and float(np.std(values)) <= 0.1 * float(np.mean(values))


def weighted_median(pairs: Sequence[tuple[float, float]]) -> float:
    """The value at half of the total weight of (value, weight) pairs."""
    ordered = sorted(pairs)
    half, run = sum(w for _, w in ordered) / 2, 0.0
    for value, weight in ordered:
        run += weight
        if run >= half:
            return value
    return ordered[-1][0]


def rows_law(rows_in: Array, rows_out: Array) -> tuple[float, float]:
    """(factor, exponent) of rows_out = factor × rows_in ** exponent, exponent between 0 (constant) and 1 (proportional)."""
    keep = (rows_in > 0) & (rows_out > 0)
    if not keep.any():
        return (0.0, 1.0) if len(rows_in) and rows_in.max() > 0 else (1.0, 1.0)
    x, y = np.log(rows_in[keep]), np.log(rows_out[keep])
    if float(np.ptp(x)) < 0.1:
        exponent = 1.0 if float(np.ptp(y)) > 1e-3 or float(np.ptp(x)) == 0.0 else 0.0
    else:
        exponent = float(np.clip(np.polyfit(x, y, 1)[0], 0.0, 1.0))
    exponent = 1.0 if exponent > 0.9 else 0.0 if exponent < 0.1 else exponent
    if exponent == 1.0:
        return float(rows_out.sum() / rows_in.sum()), 1.0
    return float(np.exp(np.median(y - exponent * x))), exponent


def run_ratios(run: Array, measured: Array, expected: Array) -> dict[int, tuple[float, float]]:
    """(Σ measured ÷ Σ expected, Σ measured) of each run that expects anything."""
    sums: dict[int, tuple[float, float]] = {}
    for number, m, e in zip(run.astype(int).tolist(), measured.tolist(), expected.tolist(), strict=True):
        before = sums.get(number, (0.0, 0.0))
        sums[number] = before[0] + m, before[1] + e
    return {n: (m / e, m) for n, (m, e) in sorted(sums.items()) if e > 0}


def spread(run: Array, measured: Array, expected: Array) -> float:
    """Coefficient of variation of single times around their expectation, beside what the whole run was off. Lognormal.

    One time counts for at most e^1.5 of its expectation: a hiccup of the machine is not the rule.
    """
    ratios = run_ratios(run, measured, expected)
    off = np.array([ratios.get(int(n), (1.0, 0.0))[0] for n in run])
    keep = (expected > FLOOR_S) & (off > 0)
    if not keep.any():
        return 0.0
    logs = np.log(np.maximum(measured[keep], 1e-9) / (expected[keep] * off[keep]))
    variance = float(np.mean(np.clip(logs, -1.5, 1.5) ** 2))
    return float(min(np.sqrt(np.expm1(variance)), 1.0))
