"""When requests of an open loop are meant to be sent: the times, in order, of each kind of arrivals. Knows no clock.

A closed loop has no times of its own: its clients are part of the world (`windtunnel.sim.serving.world`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from windtunnel.engines.models.streams import ARRIVALS, generator

from windtunnel.errors import InputError
from windtunnel.serving import ArrivalSpec

_BLOCK = 4096


def arrival_times(spec: ArrivalSpec, seed: int) -> Iterator[float]:
    """Intended send times, rising, below the duration. Raises InputError for a trace that cannot be read."""
    if spec.kind == "trace":
        yield from trace_times(spec)
        return
    assert spec.duration_s is not None
    if spec.kind == "uniform":
        yield from _uniform(spec.rate_per_s or 0.0, spec.duration_s)
        return
    random = generator(seed, ARRIVALS)
    if spec.kind == "steps":
        bounds = [*spec.steps, (spec.duration_s, 0.0)]
        for (begin, rate), (end, _) in zip(bounds, bounds[1:], strict=False):
            if rate > 0:
                yield from _renewals(random, rate, 1.0, begin, min(end, spec.duration_s))
        return
    yield from _renewals(random, spec.rate_per_s or 0.0, spec.cv if spec.kind == "gamma" else 1.0, 0.0, spec.duration_s)


def _uniform(rate: float, duration_s: float) -> Iterator[float]:
    """The first at 0, then one every 1 / rate seconds."""
    count = 0
    while (time := count / rate) < duration_s:
        yield time
        count += 1


def _renewals(random: np.random.Generator, rate: float, cv: float, begin: float, end: float) -> Iterator[float]:
    """Gaps of a gamma law with mean 1 / rate; cv = 1 is the Poisson process, which may start anew at each step of its rate."""
    shape, last = cv**-2, begin
    while True:
        gaps = random.gamma(shape, 1.0 / (shape * rate), _BLOCK) if cv != 1.0 else random.exponential(1.0 / rate, _BLOCK)
        times = last + np.cumsum(gaps)
        for time in times.tolist():
            if time >= end:
                return
            yield time
        last = float(times[-1])


def trace_times(spec: ArrivalSpec) -> list[float]:
    """The column of a CSV or Parquet file: seconds since the start of the run, sorted, below the duration where there is one."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    path = Path(spec.file or "")
    try:
        table = pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
        column = table[spec.column].cast(pa.float64()).to_pylist()
    except KeyError as error:
        raise InputError(f"{path} has no column {spec.column!r}; columns: {', '.join(table.column_names)}") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a trace of times: {error}") from error
    if any(t is None or not 0 <= t < float("inf") for t in column):
        raise InputError(f"column {spec.column!r} of {path} must hold seconds since the start, all 0 or more")
    return sorted(t for t in column if spec.duration_s is None or t < spec.duration_s)
