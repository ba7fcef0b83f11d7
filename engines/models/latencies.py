"""Statistics of latencies, the same for both worlds: pure functions of numbers."""

from __future__ import annotations

import numpy as np

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


def statistics(latencies: np.ndarray) -> dict[str, float]:
    """Mean, percentiles (linear between the two nearest) and maximum of all latencies, in seconds."""
    found = np.percentile(latencies, list(PERCENTILES.values()))
    return {
        "latency_mean_s": float(latencies.mean()),
        **{f"latency_{name}_s": float(value) for name, value in zip(PERCENTILES, found, strict=True)},
        "latency_max_s": float(latencies.max()),
    }
