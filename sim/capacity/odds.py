"""How sure an estimate of a plan is: the law of its engine's errors, with what a search adds to it.

Independent parts of the variance of the log error: the law itself (`prediction`: published cells, or those held out on this host),
seeds (the spread of replicas), size (how far the straight line to the full size was off, `estimate.refined`), and distance (clusters
larger than any that the engine's model was compared on).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import stdev

from windtunnel.sim.costs.measured import Calibration
from windtunnel.sim.judging import prediction
from windtunnel.sim.judging.prediction import Law


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The parts, standard deviations of the log error but for the law."""

    law: Law
    seeds: float
    size: float
    distance: float

    @property
    def _more(self) -> float:
        return self.seeds**2 + self.size**2 + self.distance**2

    @property
    def sigma(self) -> float:
        """All together."""
        return self.law.sigma(self._more)

    def interval(self, value: float, share: float = prediction.SHARE) -> tuple[float, float]:
        """Where the truth lies with that probability."""
        low, high = self.law.factors(more_variance=self._more, share=share)
        return value * low, value * high

    def within(self, value: float, limit: float) -> float:
        """Probability that the truth is at most ``limit``."""
        return self.law.within(value, limit, self._more)


@cache
def law_of(engine: str, calibration: str | None = None, *, serving: bool = False) -> Law:
    """Of an engine, by the calibration's file where one is given."""
    return prediction.law_of(engine, Calibration.load(Path(calibration)) if calibration else None, serving=serving)


def spread(law: Law, cpus: int, *, size: float = 0.0, seeds: Sequence[float] = ()) -> Spread:
    """Of a candidate with so many CPUs; ``seeds``: times of its replicas."""
    logs = [math.log(s) for s in seeds if 0 < s < math.inf]
    far = math.sqrt(prediction.distance(law, cpus))
    return Spread(law=law, seeds=stdev(logs) if len(logs) > 1 else 0.0, size=size, distance=far)
