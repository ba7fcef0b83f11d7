"""Queueing theory as tests: the serving world against closed forms, with intervals from batch means of one seeded run.

Symbols: λ arrivals a second, S mean service time, ρ = λ S / c, T mean time in the system, cv coefficient of variation of S. Short
runs may err by as much as their own 99 % interval; the long ones (``slow``) must be within 2 % and be sure of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from tests.sim.serving import latencies, scenario, serve

ONE = """
[[deployments]]
name = "one"
replicas = {replicas}
max_ongoing = {ongoing}
cost = {{ per_call = "10ms", cv = {cv} }}
{more}
"""
S = 0.010


def poisson(rate: float, seconds: float) -> str:
    """Open arrivals."""
    return f'kind = "poisson"\nrate_per_s = {rate}\nduration = "{seconds}s"'


def one(replicas: int = 1, ongoing: int = 10**6, cv: float = 1.0, more: str = "") -> str:
    """The only deployment."""
    return ONE.format(replicas=replicas, ongoing=ongoing, cv=cv, more=more)


def agrees(values: np.ndarray, expected: float, *, sure: bool = False, batches: int = 20) -> None:
    """Within 2 %, or inside the 99 % interval of the batch means, which must not be wider than 6 % either way; ``sure``: within
    2 % whatever the interval, and that not wider than 3 %."""
    values = values[len(values) // 10 :]  # the system begins empty
    means = np.array([batch.mean() for batch in np.array_split(values, batches)])
    half = stats.t.ppf(0.995, batches - 1) * means.std(ddof=1) / math.sqrt(batches)
    assert half < (0.03 if sure else 0.06) * expected, ("too few requests for a test", half / expected)
    assert abs(means.mean() - expected) < (0.02 * expected if sure else max(0.02 * expected, half)), (
        means.mean(),
        expected,
        half,
    )


# -- closed forms --------------------------------------------------------------------------------------------------------


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival waits in M/M/c with ``offered`` = λ S."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


def one_queue(servers: int, offered: float) -> float:
    """M/M/c: T = S + C(c, λ S) S / (c - λ S)."""
    return S + erlang_c(servers, offered) * S / (servers - offered)


def any_law(rho: float, cv: float) -> float:
    """M/G/1, Pollaczek and Khinchine: T = S + ρ S (1 + cv²) / (2 (1 - ρ)); M/D/1 with cv = 0, M/M/1 with cv = 1."""
    return S + rho * S * (1 + cv**2) / (2 * (1 - rho))


def two_choices(load: float) -> float:
    """Power of two choices among very many servers (Mitzenmacher 1996, Vvedenskaya 1996): T = S Σ ρ^(2^i - 2); 2.61 S at 0.9."""
    return S * sum(load ** (2**i - 2) for i in range(1, 12))


def taken_together(rate: float, most: int) -> float:
    """M/M/1 whose server takes all that wait, at most ``most`` (Bailey 1954): so many wait while it works as a geometric law says.

    Its ratio r solves λ - (λ + μ) r + μ r^(most + 1) = 0 between 0 and 1; p₀: busy and nobody waits.
    """
    mu = 1 / S
    r = brentq(lambda x: rate - (rate + mu) * x + mu * x ** (most + 1), 1e-9, 1 - 1e-9)
    p0 = 1 / (mu / rate + 1 / (1 - r))
    return p0 * r / (1 - r) ** 2 / rate + S


def full_batches(rate: float, size: int) -> float:
    """Batches that wait until they are full come as an Erlang process: E/M/1, after (size - 1) / 2 λ to fill."""
    s = brentq(lambda x: x - (rate / (rate + (1 - x) / S)) ** size, 1e-9, 1 - 1e-6)
    return (size - 1) / (2 * rate) + S / (1 - s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``expected`` mean time in the system; ``requests`` of the short run, the long one has ``longer`` times as many."""

    rate: float
    deployment: str
    expected: float
    requests: int = 40_000
    longer: int = 10
    options: dict[str, Any] = field(default_factory=lambda: {"law": "gamma"})
    cpus: int = 16


CASES = {
    "M/M/1 at 0.3": Case(rate=30, deployment=one(), expected=any_law(0.3, 1.0)),
    "M/M/1 at 0.6 in turns": Case(  # who is next depends on nobody's work: the mean is that of first come first served
        rate=60, deployment=one(), expected=any_law(0.6, 1.0), requests=80_000, options={"law": "gamma", "discipline": "turns"}
    ),
    "M/M/1 at 0.6": Case(rate=60, deployment=one(), expected=any_law(0.6, 1.0)),
    "M/M/2": Case(rate=140, deployment=one(replicas=2, ongoing=1), expected=one_queue(2, 1.4), requests=120_000, longer=10),
    "M/M/5": Case(rate=350, deployment=one(replicas=5, ongoing=1), expected=one_queue(5, 3.5)),
    "M/D/1": Case(rate=60, deployment=one(cv=0.0), expected=any_law(0.6, 0.0)),
    "M/G/1, lognormal 0.5": Case(rate=40, deployment=one(cv=0.5), expected=any_law(0.4, 0.5), options={}),
    "M/G/1, lognormal 1.2": Case(rate=40, deployment=one(cv=1.2), expected=any_law(0.4, 1.2), options={}, requests=80_000),
    "batches of what waits": Case(
        rate=150, deployment=one(more='batch = { max_size = 4, wait = "0s" }'), expected=taken_together(150, 4)
    ),
    "large batches of what waits": Case(
        rate=450, deployment=one(more='batch = { max_size = 8, wait = "0s" }'), expected=taken_together(450, 8), requests=120_000
    ),
    "full batches": Case(rate=200, deployment=one(more='batch = { max_size = 4, wait = "1000h" }'), expected=full_batches(200, 4)),
    "two choices among 500": Case(
        rate=45_000, deployment=one(replicas=500), expected=two_choices(0.9), requests=60_000, longer=5, cpus=500,
        options={"law": "gamma", "choice": "power_of_two"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("sure", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["short", "long"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mean_time_in_the_system(case: Case, sure: bool) -> None:
    seconds = case.requests * (case.longer if sure else 1) / case.rate
    run = serve(scenario(poisson(case.rate, seconds), case.deployment, cpus=case.cpus), spans=False, **case.options)
    found = latencies(run)
    agrees(found[found < 1e3], case.expected, sure=sure)  # the last batch never fills


def test_the_mean_field_is_the_published_one() -> None:
    assert two_choices(0.9) / S == pytest.approx(2.61, abs=0.005)


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_shared_time_does_not_care_for_variation(cv: float) -> None:
    """M/G/1 with processor sharing: T = S / (1 - ρ), whatever the law of S."""
    run = serve(scenario(poisson(0.3 / S, 2000), one(cv=cv)), discipline="sharing", spans=False)
    agrees(latencies(run), S / 0.7)


@pytest.mark.parametrize("kind", ["poisson", "uniform", "gamma"])
def test_what_is_inside_is_rate_times_time(kind: str) -> None:
    """Little's law, exactly: the time average of requests inside is what they spent there over the length of the run."""
    arrivals = poisson(80, 100).replace("poisson", kind) + ("\ncv = 2.0" if kind == "gamma" else "")
    run = serve(scenario(arrivals, one()))
    spent = latencies(run).sum() / run.counters["virtual_makespan_s"]
    assert run.counters["requests_in_system_mean"] == pytest.approx(spent, rel=1e-9)
    assert len(latencies(run)) == run.counters["requests_sent"]


def mva(customers: int, demands: tuple[float, ...], think: float) -> float:
    """Exact mean-value analysis of a closed network: throughput with so many customers."""
    queues, throughput = [0.0] * len(demands), 0.0
    for n in range(1, customers + 1):
        times = [d * (1 + q) for d, q in zip(demands, queues, strict=True)]
        throughput = n / (think + sum(times))
        queues = [throughput * t for t in times]
    return throughput


@pytest.mark.parametrize("customers", [1, 4, 16])
def test_a_closed_network(customers: int) -> None:
    """Two exponential stations and a delay against exact mean-value analysis."""
    network = """
[[deployments]]
name = "first"
cost = { per_call = "4ms", cv = 1.0 }
calls = ["second"]
[[deployments]]
name = "second"
cost = { per_call = "6ms", cv = 1.0 }
"""
    closed = f'kind = "closed"\nconcurrency = {customers}\nthink_time = "10ms"\nduration = "200s"'
    run = serve(scenario(closed, network), law="gamma", spans=False)
    expected = mva(customers, (0.004, 0.006), 0.010)
    assert run.counters["throughput_per_s"] == pytest.approx(expected, rel=0.02)
    assert run.counters["latency_mean_s"] == pytest.approx(customers / expected - 0.010, rel=0.02)


def test_arrivals_have_the_rate_and_the_variation_that_were_asked_for() -> None:
    from windtunnel.engines.models.arrivals import arrival_times
    from windtunnel.scenario.reading import parse_scenario

    for kind, more, cv in (("poisson", "", 1.0), ("gamma", "cv = 3.0", 3.0), ("uniform", "", 0.0)):
        text = scenario(f'kind = "{kind}"\nrate_per_s = 100\nduration = "1000s"\n{more}', one(ongoing=1, cv=0))
        serving = parse_scenario(text).serving
        assert serving is not None
        gaps = np.diff(list(arrival_times(serving.arrivals, 3)))
        assert gaps.mean() == pytest.approx(0.01, rel=0.03)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


def test_the_rate_follows_its_steps() -> None:
    run = serve(
        scenario(
            'kind = "steps"\nsteps = [[0, 10], [100, 1000], [110, 0]]\nduration = "200s"',
            one(replicas=16, ongoing=9, cv=0),
        )
    )
    sent = np.sort([time - value for name, time, value in run.samples if name == "latency_s"])
    counts = np.histogram(sent, [0, 100, 110, 200])[0]
    assert counts[0] == pytest.approx(1000, rel=0.1)
    assert counts[1] == pytest.approx(10_000, rel=0.03)
    assert counts[2] == 0
