"""How sure a percentile of latencies is, when neighbours in time are alike. Pure functions of numbers; knows no record.

Requests that are sent one after another meet the same queues, so counting each as a witness of its own would make an interval
far too narrow. The share of requests below the percentile is taken in batches of neighbours, the scatter of these shares gives the
error of the share, and the percentiles at the share plus and minus that error are the interval (indicator batch means, inverted;
P. Heidelberger, P. Lewis, "Quantile estimation in dependent sequences", Operations Research 32(1), 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BATCHES = 20
T_975 = 2.093  # Student's t with 19 degrees of freedom
LEAST = 5  # requests that must lie beyond a percentile before it has an upper end


@dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile and its 95 % interval; an end is None where too few requests lie beyond it."""

    value: float
    low: float | None
    high: float | None


def quantile(runs: Sequence[np.ndarray], level: float) -> Quantile:
    """Of all runs together, each in the order in which its requests were sent; linear between the two nearest."""
    values = np.concatenate(runs)
    centre = float(np.quantile(values, level))
    batches = [batch for run in runs for batch in np.array_split(run, max(1, BATCHES // len(runs))) if len(batch)]
    if len(values) * (1 - level) < LEAST or len(batches) < 2:
        return Quantile(centre, None, None)
    shares = np.array([(batch <= centre).mean() for batch in batches])
    error = max(T_975 * shares.std(ddof=1) / len(batches) ** 0.5, 0.5 / len(values))
    low = float(np.quantile(values, max(level - error, 0.0)))
    beyond = level + error
    high = float(np.quantile(values, beyond)) if len(values) * (1 - beyond) >= 1 else None
    return Quantile(centre, low, high)
