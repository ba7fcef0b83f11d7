"""Queueing theory as tests: the serving world against closed forms, with intervals from batch means of one seeded run.

Symbols: λ arrivals a second, S mean service time, ρ = λ S / c, T mean time in the system, cv coefficient of variation of S.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.sim.serving import latencies, scenario, serve

ONE = """
[[deployments]]
name = "one"
replicas = {replicas}
max_ongoing = {ongoing}
cost = {{ per_call = "10ms", cv = {cv} }}
"""
S = 0.010


def poisson(rate: float, seconds: float) -> str:
    """Open arrivals."""
    return f'kind = "poisson"\nrate_per_s = {rate}\nduration = "{seconds}s"'


def agrees(values: np.ndarray, expected: float, batches: int = 20) -> None:
    """Within 2 %, or inside the 99 % interval of the batch means, which must not be wider than 6 % either way."""
    values = values[len(values) // 20 :]  # the system begins empty
    means = np.array([batch.mean() for batch in np.array_split(values, batches)])
    half = stats.t.ppf(0.995, batches - 1) * means.std(ddof=1) / math.sqrt(batches)
    assert half < 0.06 * expected, "too few requests for a test"
    assert abs(means.mean() - expected) < max(0.02 * expected, half), (means.mean(), expected, half)


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival waits in M/M/c with ``offered`` = λ S."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_exponential_server(rho: float) -> None:
    """M/M/1: T = S / (1 - ρ)."""
    run = serve(scenario(poisson(rho / S, 1000), ONE.format(replicas=1, ongoing=1000, cv=1.0)), law="gamma", spans=False)
    agrees(latencies(run), S / (1 - rho))


@pytest.mark.parametrize("servers", [2, 5])
def test_exponential_servers_with_one_queue(servers: int) -> None:
    """M/M/c: T = S + C(c, λ S) S / (c - λ S), replicas that take one call each."""
    offered = 0.7 * servers
    text = scenario(poisson(offered / S, 1200 / servers), ONE.format(replicas=servers, ongoing=1, cv=1.0))
    agrees(latencies(serve(text, law="gamma", spans=False)), S + erlang_c(servers, offered) * S / (servers - offered))


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.2])
def test_any_server(cv: float) -> None:
    """M/G/1, Pollaczek and Khinchine: T = S + ρ S (1 + cv²) / (2 (1 - ρ)), lognormal service."""
    rho = 0.4
    run = serve(scenario(poisson(rho / S, 2000), ONE.format(replicas=1, ongoing=10_000, cv=cv)), spans=False)
    agrees(latencies(run), S + rho * S * (1 + cv**2) / (2 * (1 - rho)))


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_shared_time_does_not_care_for_variation(cv: float) -> None:
    """M/G/1 with processor sharing: T = S / (1 - ρ), whatever the law of S."""
    run = serve(
        scenario(poisson(0.3 / S, 2000), ONE.format(replicas=1, ongoing=10_000, cv=cv)), discipline="sharing", spans=False
    )
    agrees(latencies(run), S / 0.7)


@pytest.mark.parametrize("kind", ["poisson", "uniform", "gamma"])
def test_what_is_inside_is_rate_times_time(kind: str) -> None:
    """Little's law, exactly: the time average of requests inside is what they spent there over the length of the run."""
    arrivals = poisson(80, 100).replace("poisson", kind) + ("\ncv = 2.0" if kind == "gamma" else "")
    run = serve(scenario(arrivals, ONE.format(replicas=1, ongoing=1000, cv=1.0)))
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

    from windtunnel.scenario import parse_scenario

    for kind, more, cv in (("poisson", "", 1.0), ("gamma", "cv = 3.0", 3.0), ("uniform", "", 0.0)):
        text = scenario(f'kind = "{kind}"\nrate_per_s = 100\nduration = "1000s"\n{more}', ONE.format(replicas=1, ongoing=1, cv=0))
        serving = parse_scenario(text).serving
        assert serving is not None
        gaps = np.diff(list(arrival_times(serving.arrivals, 3)))
        assert gaps.mean() == pytest.approx(0.01, rel=0.03)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


def test_the_rate_follows_its_steps() -> None:
    run = serve(
        scenario(
            'kind = "steps"\nsteps = [[0, 10], [100, 1000], [110, 0]]\nduration = "200s"',
            ONE.format(replicas=16, ongoing=9, cv=0),
        )
    )
    sent = np.sort([time - value for name, time, value in run.samples if name == "latency_s"])
    counts = np.histogram(sent, [0, 100, 110, 200])[0]
    assert counts[0] == pytest.approx(1000, rel=0.1)
    assert counts[1] == pytest.approx(10_000, rel=0.03)
    assert counts[2] == 0
