"""How far off a simulated time may be: 90 % prediction intervals from cells that no fit had seen, and how often they are right.

The *log error* of a cell is log(measured time ÷ simulated time). The errors of an engine are taken as draws of a normal law of
unknown mean and spread, so that the next one follows Student's t around their mean (Hahn and Meeker, Statistical Intervals, 2017,
ch. 4): a bias moves the interval, few cells widen it. The coverage is measured by leaving cells out in turn, a group at a time.
Two kinds of cells are known: those of a calibration on this host (`Calibration.held_out`), and published ones (``errors.toml``).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from statistics import median

from windtunnel.sim.costs.measured import Calibration, HeldOut
from windtunnel.sim.judging.student import probability, quantile

SHARE = 0.9  # of the truths that an interval is to hold
LEAST_CELLS = 5  # an engine with fewer is not taken to be better known than all engines together
PER_DOUBLING = 0.03  # of the cluster beyond the largest that was compared: an assumption
_FLOOR = 0.01  # nobody knows a time better than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Log errors of an engine: mean, standard deviation, how many, and the CPUs of the largest cluster among their cells."""

    mean: float
    sd: float
    cells: int
    cpus: int
    median: float  # of the magnitudes of relative errors, for people

    def doublings(self, cpus: int) -> float:
        """How often the largest cluster that was compared must be doubled to have so many CPUs."""
        return max(0.0, math.log2(cpus / self.cpus))

    def factors(self, *, more_variance: float = 0.0, share: float = SHARE) -> tuple[float, float]:
        """What to multiply a simulated time with: with probability ``share`` the truth lies between the two."""
        half = quantile(0.5 + share / 2, self.cells - 1) * self.sigma(more_variance)
        return math.exp(self.mean - half), math.exp(self.mean + half)

    def sigma(self, more_variance: float = 0.0) -> float:
        """Spread of the next cell's log error: of the law, of its mean, and of what is independent of both."""
        return max(_FLOOR, math.sqrt(self.sd**2 * (1 + 1 / self.cells) + more_variance))

    def within(self, value: float, limit: float, more_variance: float = 0.0) -> float:
        """Probability that the truth is at most ``limit`` where ``value`` was simulated."""
        if not value < math.inf:
            return 0.0
        if limit == math.inf:
            return 1.0
        return probability((math.log(limit / value) - self.mean) / self.sigma(more_variance), self.cells - 1)


def distance(law: Law, cpus: int) -> float:
    """Variance for a cluster larger than any that was compared."""
    return (PER_DOUBLING * law.doublings(cpus)) ** 2


def law(cells: Sequence[HeldOut]) -> Law | None:
    """The law of these cells; None of fewer than two."""
    errors = [log_error(c) for c in cells]
    if len(errors) < 2:
        return None
    mean = math.fsum(errors) / len(errors)
    sd = math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / (len(errors) - 1))
    sizes = [abs(c.simulated_s / c.measured_s - 1) for c in cells]
    return Law(mean=mean, sd=sd, cells=len(cells), cpus=max(c.cpus for c in cells), median=median(sizes))


def log_error(cell: HeldOut) -> float:
    """Above 0 where the simulation was too fast."""
    return math.log(cell.measured_s / cell.simulated_s)


def engine_law(cells: Sequence[HeldOut], engine: str) -> Law | None:
    """Of an engine's own cells. With fewer than `LEAST_CELLS` the law of all cells, taken as so many cells beside its own.

    What is one engine's bias is not another's: the law of several engines has none.
    """
    own = [c for c in cells if c.engine == engine]
    if len(own) >= LEAST_CELLS or len(cells) < 2:
        return law(own)
    everything = law(cells)
    assert everything is not None
    squares = [_mean_square(cells)] * LEAST_CELLS + ([_mean_square(own)] * len(own) if own else [])
    cpus = max((c.cpus for c in own), default=everything.cpus)
    return replace(everything, mean=0.0, sd=math.sqrt(math.fsum(squares) / len(squares)), cpus=cpus)


def _mean_square(cells: Sequence[HeldOut]) -> float:
    return math.fsum(log_error(c) ** 2 for c in cells) / len(cells)


def coverage(cells: Sequence[HeldOut], *, by_group: bool = False) -> tuple[int, int]:
    """(cells inside the interval that all others give, cells that have one); ``by_group``: without the cell's whole group.

    A cell's engine decides its interval, as in use.
    """
    inside = of = 0
    for cell in cells:
        others = [c for c in cells if c is not cell and not (by_group and c.group == cell.group)]
        found = engine_law(others, cell.engine)
        if found is not None:
            low, high = found.factors(more_variance=distance(found, cell.cpus))
            of += 1
            inside += low <= cell.measured_s / cell.simulated_s <= high
    return inside, of


# -- where cells come from ----------------------------------------------------------------------------------------------


@cache
def published(*, serving: bool = False) -> tuple[HeldOut, ...]:
    """Cells of published tables that nothing was fitted to; made by ``python -m windtunnel.sim.capacity.errors``."""
    text = resources.files("windtunnel.sim.capacity").joinpath("errors.toml").read_text(encoding="utf-8")
    cells: Iterable[dict[str, object]] = tomllib.loads(text)["cells"]
    return tuple(HeldOut(**{k: v for k, v in c.items() if k != "serving"}) for c in cells if c["serving"] == serving)  # type: ignore[arg-type]


def law_of(engine: str, calibration: Calibration | None = None, *, serving: bool = False) -> Law:
    """What is known of an engine: the cells of this host where a calibration held some of it out, else published ones."""
    held_out = _held_out(engine, calibration)
    found = engine_law(held_out or published(serving=serving), engine)
    assert found is not None  # published cells ship with the project
    return found


def _held_out(engine: str, calibration: Calibration | None) -> tuple[HeldOut, ...]:
    """A calibration's cells, if they tell of this engine: what those of others are off by is nothing that it was measured for."""
    cells = calibration.held_out if calibration is not None else ()
    return cells if any(c.engine == engine for c in cells) and engine_law(cells, engine) is not None else ()


def told(engine: str, cpus: int, calibration: Calibration | None = None, *, serving: bool = False) -> dict[str, float]:
    """Counters of a simulated record: the ends of the interval as factors, and what is behind it."""
    found = law_of(engine, calibration, serving=serving)
    low, high = found.factors(more_variance=distance(found, cpus))
    own = sum(c.engine == engine for c in _held_out(engine, calibration) or published(serving=serving))
    return {
        "interval_low": low, "interval_high": high, "interval_error": found.median, "interval_cells": float(found.cells),
        "interval_held_out": float(bool(_held_out(engine, calibration))), "interval_own": float(own),
    }  # fmt: skip
