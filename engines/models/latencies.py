"""Statistics of latencies, the same for both worlds: pure functions of numbers."""

from __future__ import annotations

import numpy as np

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


def statistics(latencies: np.ndarray, what: str = "latency") -> dict[str, float]:
    """Mean, percentiles (linear between the two nearest) and maximum of all latencies, in seconds."""
    found = np.percentile(latencies, list(PERCENTILES.values()))
    return {
        f"{what}_mean_s": float(latencies.mean()),
        **{f"{what}_{name}_s": float(value) for name, value in zip(PERCENTILES, found, strict=True)},
        f"{what}_max_s": float(latencies.max()),
    }


def stream_times(intended_s: float, first_s: float, last_s: float, tokens: int) -> tuple[float, float | None]:
    """Of an answer that was streamed well: seconds from the intended time to its first token (TTFT), and between two tokens after it on
    average (TPOT; None for an answer of one). Requests that ended otherwise have neither, and their tokens count nowhere."""
    return first_s - intended_s, (last_s - first_s) / (tokens - 1) if tokens > 1 else None


_BATCH = 5


def settling(latencies: np.ndarray) -> float:
    """The share of the requests, in the order of sending, that belongs to the warm-up; 0.5: no steady state was seen.

    MSER-5 (K. P. White, M. J. Cobb, S. C. Spratt, "A comparison of five steady-state truncation heuristics for simulation", WSC
    2000): in batches of five, what is cut off is what makes the standard error of the mean of the rest smallest, up to one half.
    """
    count = len(latencies) // _BATCH
    if count < 2 * _BATCH:
        return 0.0
    means = latencies[: count * _BATCH].reshape(count, _BATCH).mean(axis=1)
    left = np.arange(count, 0, -1)
    total, squares = (np.cumsum(v[::-1])[::-1] for v in (means, means**2))
    error = ((squares - total**2 / left) / left**2)[: count // 2 + 1]
    return float(np.argmin(error)) / count
