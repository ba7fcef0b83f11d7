"""Random durations: one named stream of numbers for each step and attempt of a stage, by partition, whatever the order of asking."""

from __future__ import annotations

from typing import Any

import numpy as np

_PAGE = 1024  # factors drawn at a time


class Normals:
    """Standard normal numbers of one named stream, by index: the same whatever the order of asking."""

    __slots__ = ("_drawn", "_random", "_values")

    def __init__(self, *name: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(name)))
        self._drawn: np.ndarray[Any, np.dtype[np.float64]] = np.empty(0)
        self._values: list[float] = []  # the same, where single ones are asked for

    def __getitem__(self, index: int) -> float:
        if index >= len(self._values):
            self._draw(index + 1)
            self._values += self._drawn[len(self._values) :].tolist()
        return self._values[index]

    def _draw(self, count: int) -> None:
        have = len(self._drawn)
        if count > have:
            self._drawn = np.concatenate([self._drawn, self._random.standard_normal(max(1024, have, count - have))])

    def first(self, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The first ``count`` of them."""
        self._draw(count)
        return self._drawn[:count]


class Draws:
    """Multipliers of durations: lognormal with mean 1 and a coefficient of variation ``cv`` of their own for each step.

    Those of the first ``cvs`` of an attempt are drawn a thousand partitions at a time: as a rule there are no others.
    """

    __slots__ = ("_name", "_normals", "_pages")

    def __init__(self, *name: int) -> None:
        self._name = name
        self._normals: dict[tuple[int, int], Normals] = {}
        self._pages: dict[tuple[int, int], tuple[tuple[float, ...], list[list[float]]]] = {}

    def normals(self, step: int, attempt: int) -> Normals:
        """The numbers that the multipliers of a step are made of."""
        key = (step, attempt)
        if key not in self._normals:
            self._normals[key] = Normals(*self._name, step, attempt)
        return self._normals[key]

    def factors(self, cvs: tuple[float, ...], partition: int, attempt: int) -> list[float]:
        """A multiplier a step."""
        number, place = divmod(partition, _PAGE) if partition > 0 else (0, 0)
        page = self._pages.get((attempt, number))
        if page is None:
            page = self._pages[attempt, number] = (cvs, self._page(cvs, number, attempt))
        if page[0] == cvs:
            return [column[place] for column in page[1]]
        return [1.0 if cv <= 0 else self._factor(i, attempt, max(partition, 0), cv) for i, cv in enumerate(cvs)]

    def _page(self, cvs: tuple[float, ...], number: int, attempt: int) -> list[list[float]]:
        """Multipliers by step of the ``number``-th thousand partitions."""
        columns: list[list[float]] = []
        for step, cv in enumerate(cvs):
            if cv <= 0:
                columns.append([1.0] * _PAGE)
                continue
            variance = float(np.log1p(cv**2))
            drawn = self.normals(step, attempt).first((number + 1) * _PAGE)[number * _PAGE :]
            columns.append(np.exp(drawn * variance**0.5 - variance / 2).tolist())
        return columns

    def _factor(self, step: int, attempt: int, partition: int, cv: float) -> float:
        variance = float(np.log1p(cv**2))
        return float(np.exp(self.normals(step, attempt)[partition] * variance**0.5 - variance / 2))
