"""How sure an estimate is: independent relative errors as one lognormal factor, and the probability of keeping a limit.

Parts of the error, each a standard deviation of the logarithm:

* model: how far the engine's model is from published runs (``errors.toml``), or, with a calibration, its residuals;
* seeds: the spread of replicas with other seeds;
* size: how far the straight line to the full size was off when it was checked (`estimate.refined`);
* distance: `PER_DOUBLING` for each doubling of the cluster beyond the largest that the model was checked on. An assumption.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import NormalDist, median, stdev

MEDIAN_OF_NORMAL = 0.6745  # median of |x| of a normal law with standard deviation 1
PER_DOUBLING = 0.03
LEAST = 0.01  # nobody knows a cluster better than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The parts; ``checked_cpus``: CPUs of the largest cluster that the engine's model was compared on."""

    model: float
    seeds: float
    size: float
    distance: float
    checked_cpus: int

    @property
    def sigma(self) -> float:
        """All together."""
        return max(LEAST, math.sqrt(self.model**2 + self.seeds**2 + self.size**2 + self.distance**2))

    def interval(self, value: float, share: float = 0.8) -> tuple[float, float]:
        """Where the truth lies with that probability."""
        z = NormalDist().inv_cdf(0.5 + share / 2) * self.sigma
        return value * math.exp(-z), value * math.exp(z)

    def within(self, value: float, limit: float) -> float:
        """Probability that the truth is at most ``limit``."""
        if not value < math.inf:
            return 0.0
        return 1.0 if limit == math.inf else NormalDist().cdf(math.log(limit / value) / self.sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineError:
    """Of an engine's model: median error of the published cells that nothing was fitted to, how many, their largest cluster."""

    median: float
    cells: int
    cpus: int


@cache
def engine_errors() -> dict[str, EngineError]:
    """By engine, with ``all`` for all of them; made by ``python -m windtunnel.sim.capacity.errors``."""
    text = resources.files("windtunnel.sim.capacity").joinpath("errors.toml").read_text(encoding="utf-8")
    return {name: EngineError(**entry) for name, entry in tomllib.loads(text)["engines"].items()}


def engine_error(name: str, *, serving: bool = False) -> EngineError:
    """An engine with few cells of its own is not taken to be better than all together; one without any is like all."""
    known = engine_errors()
    everything = known["all_serving" if serving else "all"]
    own = known.get(name)
    if own is None:
        return everything
    return own if own.cells >= 5 else EngineError(median=max(own.median, everything.median), cells=own.cells, cpus=own.cpus)


@cache
def calibrated_error(path: str) -> EngineError:
    """Residuals of a calibration in place of published cells; its host is the cluster that was compared."""
    from windtunnel.sim.costs import Calibration

    calibration = Calibration.load(Path(path))
    found = [abs(r.error) for r in calibration.residuals]
    host = calibration.provenance.get("environment") or calibration.provenance.get("host") or {}
    cpus = host.get("cpus") if isinstance(host, dict) else None
    own = EngineError(median=median(found), cells=len(found), cpus=int(cpus or 1)) if found else None
    return own or engine_errors()["all"]


def spread(error: EngineError, cpus: int, *, size: float = 0.0, seeds: Sequence[float] = ()) -> Spread:
    """Of a candidate with so many CPUs; ``seeds``: times of its replicas."""
    logs = [math.log(s) for s in seeds if 0 < s < math.inf]
    return Spread(
        model=error.median / MEDIAN_OF_NORMAL, seeds=stdev(logs) if len(logs) > 1 else 0.0, size=size,
        distance=PER_DOUBLING * max(0.0, math.log2(cpus / error.cpus)), checked_cpus=error.cpus,
    )  # fmt: skip
