"""What an engine that keeps its insides to itself costs on this machine, from whole runs: seconds a run, and how long its work takes.

Its model, with operators as the embedded engines measured them and its sourced constants but no start-up, predicts t for a cell that
was measured as T. Two numbers are fitted over all cells, on relative errors: T = startup + factor × t. The first is what every run
pays (planning, submission, first tasks), the second what its own operators, bridge and processes add to the work; a factor below 1
counts as 1. Two numbers from several cells say little about the rest: what they cannot follow shows as error on cells held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.sim.costs import Calibration, EngineCost
from windtunnel.sim.fits import non_negative_fit

from windtunnel.errors import InputError


def foreign_cost(engine: str, pairs: Sequence[tuple[float, float]], calibration: Calibration) -> EngineCost:
    """The overheads of an engine from (simulated without start-up, measured) seconds of cells. Raises InputError without two."""
    if len(pairs) < 2:
        raise InputError(f"{engine} ended well at {len(pairs)} cells to calibrate on; its overheads need two at least")
    startup, factor = startup_and_factor(pairs)
    law = next((e.slowdown for e in calibration.engines), ()) or ((1.0, 1.0),)
    constants = {**ENTRIES[engine].traits.overheads(), "startup_s": startup}
    return EngineCost(engine=engine, **constants, slowdown=tuple((n, max(1.0, m * factor)) for n, m in law))


def startup_and_factor(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(seconds, multiplier ≥ 1) that fit best, both not negative."""
    simulated = np.array([s for s, _ in pairs])
    measured = np.array([m for _, m in pairs])
    startup, factor = non_negative_fit(np.stack([np.ones_like(simulated), simulated], axis=1), measured)
    if factor < 1.0:
        startup, factor = max(0.0, float(np.median(measured - simulated))), 1.0
    return float(startup), float(factor)
