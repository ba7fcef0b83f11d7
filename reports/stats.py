"""Statistics of a few noisy runs: medians, bootstrap intervals, the noise floor of an A/A arm, and when to call a winner.

Pure functions of numbers; the random resampling is seeded, so that equal runs give equal reports. The module knows no record.

* The interval of a median is the percentile bootstrap (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993,
  ch. 13) with 2,000 resamples at 95%. With five runs or fewer it is nearly their range; below three there is none.
* A ratio is one median over another; its interval resamples both sides, each with dice of its own.
* The noise floor of a workload is how far from 1 the ratio of two equal arms (A/A) may lie: the farther end of its interval,
  as the larger over the smaller, minus 1, so that half and twice are equally far.
* A ratio shows a difference when its whole interval lies farther from 1 than the noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 2_000
LEVEL = 0.95
LEAST_RUNS = 3  # below it no interval is told

Verdict = Literal["faster", "slower", "no difference shown", "too few runs"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95% interval; both ends None when there were too few runs."""

    value: float
    low: float | None
    high: float | None


def median(values: Sequence[float]) -> Estimate:
    """The median of at least one value, with its interval."""
    centre = float(np.median(values))
    if len(values) < LEAST_RUNS:
        return Estimate(centre, None, None)
    return Estimate(centre, *_interval(_resampled(values, 0)))


def ratio(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """The median of ``values`` over the median of ``base`` (above 0), with its interval."""
    centre = float(np.median(values) / np.median(base))
    if min(len(values), len(base)) < LEAST_RUNS:
        return Estimate(centre, None, None)
    return Estimate(centre, *_interval(_resampled(values, 0) / _resampled(base, 1)))


def ratio_of(values: Sequence[float], base: Sequence[float]) -> Estimate | None:
    """The `ratio`; None when a side is empty or holds a duration that is not above 0."""
    return ratio(values, base) if values and base and min(*values, *base) > 0 else None


def inverse(found: Estimate) -> Estimate:
    """1 over an estimate above 0, so that "0.5×" and "2×" tell the same interval."""
    if found.low is None or found.high is None:
        return Estimate(1 / found.value, None, None)
    return Estimate(1 / found.value, 1 / found.high, 1 / found.low)


def _resampled(values: Sequence[float], stream: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Medians of resamples with replacement."""
    dice = np.random.default_rng([7, stream])
    data = np.asarray(values, dtype=float)
    medians: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(
        data[dice.integers(0, len(data), size=(RESAMPLES, len(data)))], axis=1
    )
    return medians


def _interval(medians: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(medians, [tail, 100 - tail])
    return float(low), float(high)


def noise_floor(arm: Sequence[float], again: Sequence[float]) -> float | None:
    """How far from 1 the ratio of two equal arms reaches, as a fraction; None with too few runs."""
    found = ratio_of(again, arm)
    if found is None or found.low is None or found.high is None:
        return None
    return max(_distance(found.low), _distance(found.high))


def _distance(found: float) -> float:
    """Of a ratio from 1: the larger over the smaller, minus 1."""
    return max(found, 1 / found) - 1


def verdict(found: Estimate, noise: float | None) -> Verdict:
    """What a ratio of durations shows: "faster" only when its interval leaves 1 out and it lies beyond the noise floor."""
    if found.low is None or found.high is None:
        return "too few runs"
    if found.low <= 1 <= found.high or _distance(found.value) <= (noise or 0.0):
        return "no difference shown"
    return "faster" if found.value < 1 else "slower"
