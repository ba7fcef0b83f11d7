"""Kernels of the conformance suite; they import nothing, so that an engine's own interpreter can."""

from __future__ import annotations

from typing import Any


def explode(batch: Any, threshold: int = 0) -> Any:
    """A kernel with a mistake."""
    raise ValueError(f"no such carrier: {threshold}")


def repeat(batch: Any) -> Any:
    """A flat_map: a flight of d miles d % 3 times, so that some rows vanish and others become two."""
    import numpy as np
    import pyarrow as pa

    distance = batch.column("distance").to_numpy()
    rows = np.repeat(np.arange(len(distance)), distance % 3)
    return pa.RecordBatch.from_arrays(
        [pa.array(distance[rows]), pa.array([f"d{d % 3}" for d in distance[rows]])], ["distance", "kind"]
    )
