"""Random numbers of serving: one named stream a source, drawn in blocks. The same names give the same numbers in any process.

The names are whole numbers (`numpy.random.SeedSequence`); what they stand for is listed here, and nothing else is drawn anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import numpy as np

ARRIVALS, CHOICE, SERVICE, OVERHEAD, SAMPLE, TOKENS = 1, 2, 3, 4, 5, 6
_BLOCK = 4096


def generator(*name: int) -> np.random.Generator:
    """The generator of a named stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(name)))


class Uniforms:
    """Uniform numbers in [0, 1); calling it gives the next one, and so does ``draw``, which is no Python frame."""

    __slots__ = ("_random", "draw")

    def __init__(self, *name: int) -> None:
        self._random = generator(*name)
        self.draw: Callable[[], float] = _each(lambda: self._random.random(_BLOCK))

    def __call__(self) -> float:
        return self.draw()


class Factors:
    """Positive numbers of mean 1 and coefficient of variation ``cv``; ``law`` gamma with cv = 1 is the exponential one."""

    __slots__ = ("_cv", "_law", "_random", "draw")

    def __init__(self, law: str, cv: float, *name: int) -> None:
        self._random = generator(*name)
        self._law, self._cv = law, cv
        self.draw: Callable[[], float] = _each(self._block) if cv else repeat(1.0).__next__

    def __call__(self) -> float:
        return self.draw()

    def _block(self) -> np.ndarray:
        if self._law == "gamma":
            shape = self._cv**-2
            return self._random.gamma(shape, 1.0 / shape, _BLOCK)
        sigma = math.sqrt(math.log1p(self._cv**2))
        return np.exp(self._random.standard_normal(_BLOCK) * sigma - sigma**2 / 2)


def _each(block: Callable[[], np.ndarray]) -> Callable[[], float]:
    """One number after another, each block from its end."""

    def blocks() -> Iterator[list[float]]:
        while True:
            yield block()[::-1].tolist()

    return chain.from_iterable(blocks()).__next__
