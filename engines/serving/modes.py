"""How a server is asked, after MLPerf Inference's LoadGen (v5, ``loadgen/README.md``): single stream, multi stream, server, offline.

*Single stream*: one request at a time; judged by the 90th percentile. *Multi stream*: groups of eight, the next one when all of a
group are answered; judged by the 99th percentile of a group. *Server*: the highest rate of Poisson arrivals whose 99th percentile
meets a bound. *Offline*: everything is there from the start; judged by the throughput. Not taken over: LoadGen's accuracy runs and
its fixed minimum durations and query counts; a run here says how long it was.

The module owns the schedules and the search; how sure a percentile is, is the caller's `Judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.engines.models.arrivals import arrival_times
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.load import Loop
from windtunnel.errors import InvalidMeasurement
from windtunnel.spec.serving import ArrivalSpec

GROUP = 8
LEAST = 10  # requests of a probe: fewer say nothing of a percentile
IN_FLIGHT = 64  # offline: enough to keep any server here busy, few enough for its queue
#: carries out a load
Ask = Callable[[Loop], list[Sent]]
#: latencies, in the order of sending → whether they meet the bound for sure (True, False), or None: not sure either way
Judge = Callable[[np.ndarray], "bool | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One rate that was tried; ``goodput_per_s``: answers within the bound."""

    rate_per_s: float
    p99_s: float
    goodput_per_s: float
    answered: float  # share of the requests
    meets: bool


def latencies(sent: Sequence[Sent]) -> np.ndarray:
    """Seconds from the intended time, of answered requests, in the order of sending."""
    return np.array([r.done_s - r.intended_s for r in sent if r.outcome == "ok"])


def single_stream(ask: Ask, seconds: float) -> np.ndarray:
    """Latencies of one request after another."""
    return latencies(ask(Loop(clients=1, duration_s=seconds)))


def multi_stream(ask: Ask, seconds: float) -> np.ndarray:
    """Latencies of groups: from the group's start to its last answer. A group with a request that was not answered is left out."""
    sent = ask(Loop(clients=GROUP, duration_s=seconds, together=True))
    groups = [sent[i : i + GROUP] for i in range(0, len(sent), GROUP)]
    return np.array(
        [max(r.done_s for r in g) - min(r.intended_s for r in g) for g in groups if all(r.outcome == "ok" for r in g)]
    )


def goodput(found: np.ndarray, bound_s: float, seconds: float) -> float:
    """Answers within a bound, a second: what of the throughput was of use."""
    return float((found <= bound_s).sum()) / seconds


def offline(ask: Ask, seconds: float) -> tuple[float, np.ndarray]:
    """Answers/s when there is always more to do, and their latencies."""
    sent = ask(Loop(clients=IN_FLIGHT, duration_s=seconds))
    good = [r.done_s for r in sent if r.outcome == "ok"]
    return (len(good) / max(good) if good else 0.0), latencies(sent)


def server(
    ask: Ask, judge: Judge, bound_s: float, seconds: float, lag_s: float, seed: int, first: float, precision: float = 0.05
) -> list[Probe]:
    """Rates that were tried, in order: doubled from ``first`` until one fails (halved, if the first does), then bisected.

    The highest that meets the bound is the answer. A rate that the generator could not keep fails only if a lower one is known to
    meet the bound; otherwise it raises InvalidMeasurement.
    """
    probes: list[Probe] = []

    def meets(rate: float) -> bool:
        probes.append(_probe(ask, judge, bound_s, rate, seconds, lag_s, seed))
        return probes[-1].meets

    low, high, rate = 0.0, float("inf"), first
    while high - low > precision * max(low, first / 1024):
        if meets(rate):
            low = rate
        else:
            high = rate
        rate = 2 * low if high == float("inf") else (low + high) / 2 if low else high / 2
        if rate < first / 1024 or rate * seconds < LEAST:
            break
    return probes


def _probe(ask: Ask, judge: Judge, bound_s: float, rate: float, seconds: float, lag_s: float, seed: int) -> Probe:
    spec = ArrivalSpec(kind="poisson", rate_per_s=rate, duration_s=seconds)
    sent = ask(Loop(times=tuple(arrival_times(spec, seed))))
    lag = float(np.percentile([r.sent_s - r.intended_s for r in sent], 99)) if sent else 0.0
    if lag > lag_s:
        raise InvalidMeasurement(
            f"at {rate:.0f} requests/s the load generator sent 1 % of them {lag * 1e3:.1f} ms late or more, "
            f"above send_lag = {lag_s * 1e3:g} ms: this machine cannot ask faster"
        )
    found = latencies(sent)
    answered = len(found) / len(sent) if sent else 0.0
    p99 = float(np.percentile(found, 99)) if len(found) else float("inf")
    meets = answered == 1.0 and bool(judge(found))
    return Probe(rate_per_s=rate, p99_s=p99, goodput_per_s=goodput(found, bound_s, seconds), answered=answered, meets=meets)


def highest(probes: Sequence[Probe]) -> Probe | None:
    """The highest rate that met the bound."""
    return max((p for p in probes if p.meets), key=lambda p: p.rate_per_s, default=None)
