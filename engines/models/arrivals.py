"""When requests of an open loop are meant to be sent: the times, in order, of each kind of arrivals. Knows no clock.

A closed loop has no times of its own: its clients are part of the world (`windtunnel.sim.serving.world`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np

from windtunnel.engines.models.streams import ARRIVALS, TOKENS, Factors, generator
from windtunnel.spec import traces
from windtunnel.spec.serving import ArrivalSpec

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
    if spec.kind == "diurnal":
        yield from _waves(random, spec)
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


def _waves(random: np.random.Generator, spec: ArrivalSpec) -> Iterator[float]:
    """A Poisson process whose rate swings as a cosine around its mean, lowest at the start: those of the highest rate, thinned."""
    rate, swing, duration_s = spec.rate_per_s or 0.0, spec.swing, spec.duration_s or 0.0
    for time in _renewals(random, rate * (1 + swing), 1.0, 0.0, duration_s):
        share = (1 - swing * math.cos(2 * math.pi * time / spec.period_s)) / (1 + swing)
        if random.random() < share:
            yield time


def token_lengths(spec: ArrivalSpec, seed: int) -> Iterator[tuple[int, int]]:
    """Tokens of the prompt and of the answer of each request, in the order in which they are sent; at least one of each."""
    lengths = spec.tokens
    if lengths is None:
        return
    names = (lengths.prompt_column, lengths.output_column)
    columns = [
        repeat(mean) if name is None else _trace_column(spec, name)
        for name, mean in zip(names, (lengths.prompt, lengths.output), strict=True)
    ]
    factors = [Factors("lognormal", lengths.cv if name is None else 0.0, seed, TOKENS, i).draw for i, name in enumerate(names)]
    for prompt, output in zip(*columns, strict=False):
        yield max(1, round(prompt * factors[0]())), max(1, round(output * factors[1]()))


def trace_times(spec: ArrivalSpec) -> list[float]:
    """The column of a trace: seconds since the start of the run, sorted, below the duration where there is one."""
    return _trace_column(spec, None)


def _trace_column(spec: ArrivalSpec, name: str | None) -> list[float]:
    """Lengths from a column (None: the times) in the order of the times, of the rows within the duration."""
    path = Path(spec.file or "")
    times = traces.times(path, spec.column or "")
    values = times if name is None else traces.lengths(path, name)
    rows = sorted(zip(times, range(len(times)), values, strict=True))
    return [value for time, _, value in rows if spec.duration_s is None or time < spec.duration_s]
