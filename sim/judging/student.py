"""Student's t for whole degrees of freedom: its distribution function and quantiles.

Closed forms of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4, which a test compares with
scipy's. scipy itself takes longer to import than most simulations take.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def probability(value: float, freedom: int) -> float:
    """The probability that a draw is at most ``value``; ``freedom`` of at least 1."""
    angle = math.atan(value / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        between = angle + (sine * cosine * _series(cosine**2, 2, freedom - 3) if freedom > 1 else 0.0)
        return 0.5 + between / math.pi
    return 0.5 + sine * _series(cosine**2, 1, freedom - 3) / 2


def _series(square: float, first: int, last: int) -> float:
    """1 + first/(first+1) x + first (first+2) / ((first+1) (first+3)) x² + … up to the factor ``last``, of x = ``square``."""
    term = total = 1.0
    for n in range(first, last + 1, 2):
        term *= n / (n + 1) * square
        total += term
    return total


def quantile(share: float, freedom: int) -> float:
    """The value that a draw does not pass with probability ``share``, strictly between 0 and 1."""
    if share < 0.5:
        return -quantile(1.0 - share, freedom)
    low, high = 0.0, max(NormalDist().inv_cdf(share), 1.0)
    while probability(high, freedom) < share:
        low, high = high, 2.0 * high
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return high if probability(high, freedom) - share < share - probability(low, freedom) else low
        if probability(middle, freedom) < share:
            low = middle
        else:
            high = middle
