"""From micro-measurements of a host to what a simulated engine of the JVM pays for rows that cross to Python. Fits nothing else.

`windtunnel.sim.calibration.crossings` measures a row there and back by column type. Over the types' widths that is a share a row
and a share a byte; an engine with such a bridge (`Traits.jvm_bridge`) takes this host's in their place, unless its own runs were
measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from windtunnel.sim.calibration.fits import Array, non_negative_fit
from windtunnel.sim.costs.measured import EngineCost, HostCost

BRIDGE = "JVM bridge there and back"
#: column types that are measured, and the bytes of a value as Arrow lays it out
WIDTHS = {"int64": 8, "double": 8, "text of 12 bytes": 16}
_DOOR = "arrow"  # the way that real kernels take in Spark's adapter


def measured_bridge(cost: EngineCost, host: Sequence[HostCost]) -> EngineCost:
    """With ``bridge_row_s`` and ``bridge_bytes_per_s`` of one crossing on this host; as it was where nobody measured."""
    values = {h.at.removeprefix(f"{_DOOR}, "): h.value for h in host if h.name == BRIDGE and h.at.startswith(f"{_DOOR}, ")}
    known = [(width, values[kind] / 2) for kind, width in WIDTHS.items() if values.get(kind, 0.0) > 0]
    if len({width for width, _ in known}) < 2:
        return cost
    widths, seconds = np.array(known, dtype=float).T
    row_s, byte_s = _fit(widths, seconds)
    return replace(cost, bridge_row_s=row_s, bridge_bytes_per_s=1.0 / byte_s if byte_s > 0 else 0.0)


def _fit(widths: Array, seconds: Array) -> tuple[float, float]:
    """Seconds a row and a byte; in nanoseconds, for times of a row are far below what counts elsewhere."""
    found = non_negative_fit(np.stack([np.ones_like(widths), widths], axis=1), seconds * 1e9)
    return float(found[0]) / 1e9, float(found[1]) / 1e9
