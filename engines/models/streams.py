"""Random numbers of serving: one named stream a source, drawn in blocks. The same names give the same numbers in any process.

The names are whole numbers (`numpy.random.SeedSequence`); what they stand for is listed here, and nothing else is drawn anywhere.
"""

from __future__ import annotations

import math

import numpy as np

ARRIVALS, CHOICE, SERVICE, OVERHEAD = 1, 2, 3, 4
_BLOCK = 4096


def generator(*name: int) -> np.random.Generator:
    """The generator of a named stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(name)))


class Uniforms:
    """Uniform numbers in [0, 1); calling it gives the next one."""

    __slots__ = ("_left", "_random")

    def __init__(self, *name: int) -> None:
        self._random = generator(*name)
        self._left: list[float] = []

    def __call__(self) -> float:
        if not self._left:
            self._left = self._random.random(_BLOCK).tolist()
        return self._left.pop()


class Factors:
    """Positive numbers of mean 1 and coefficient of variation ``cv``; ``law`` gamma with cv = 1 is the exponential one."""

    __slots__ = ("_cv", "_law", "_left", "_random")

    def __init__(self, law: str, cv: float, *name: int) -> None:
        self._random = generator(*name)
        self._law, self._cv = law, cv
        self._left: list[float] = []

    def __call__(self) -> float:
        if not self._cv:
            return 1.0
        if not self._left:
            self._left = self._draw().tolist()
        return self._left.pop()

    def _draw(self) -> np.ndarray:
        if self._law == "gamma":
            shape = self._cv**-2
            return self._random.gamma(shape, 1.0 / shape, _BLOCK)
        sigma = math.sqrt(math.log1p(self._cv**2))
        return np.exp(self._random.standard_normal(_BLOCK) * sigma - sigma**2 / 2)
