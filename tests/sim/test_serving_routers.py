"""Ray Serve's router by hand: what it believes of queues, whom it asks, how long it waits; and the whole engine with such routers."""

from __future__ import annotations

import pytest

from tests.sim.serving import latencies, scenario, serve
from windtunnel.engines.models.routing import Beliefs, backoff_s, deadline_s, shortest
from windtunnel.records.record import Recorder

ONE = '[[deployments]]\nname = "one"\nreplicas = {replicas}\nmax_ongoing = {most}\ncost = {{ per_call = "{cost}" }}\n'
HOP = {"hop_s": 2e-3}


def shown(recorder: Recorder) -> list[float]:
    """Latencies in milliseconds."""
    return [round(1000 * t, 6) for t in latencies(recorder)]


def cached(text: str, **options: object) -> Recorder:
    """With routers that know queues by hearsay; a hop, and a question with its answer, take 2 ms."""
    return serve(text, choice="power_of_two", queue_lengths="cached", overheads=HOP, **options)


# -- beliefs ------------------------------------------------------------------------------------------------------------


def test_beliefs_count_what_was_sent_and_what_ended_and_are_forgotten_after_ten_seconds() -> None:
    beliefs: Beliefs[str] = Beliefs()
    assert beliefs.get("a", 0.0) is None
    beliefs.sent("a", 0.0)
    beliefs.sent("a", 1.0)
    assert beliefs.get("a", 1.0) == 2
    beliefs.ended("a", 2.0)
    assert beliefs.get("a", 11.9) == 1
    assert beliefs.get("a", 12.0) is None
    beliefs.ended("a", 12.0)  # of what it does not know it takes nothing away
    assert beliefs.get("a", 12.0) is None


def test_the_shorter_known_queue_wins_and_full_or_unknown_ones_are_asked() -> None:
    beliefs: Beliefs[str] = Beliefs()
    beliefs.heard("a", 3, 0.0)
    beliefs.heard("b", 1, 0.0)
    assert beliefs.choose(["a", "b"], 5, 0.0) == ("b", [])
    assert beliefs.choose(["a", "b"], 3, 0.0) == ("b", ["a"])
    assert beliefs.choose(["a", "c"], 5, 0.0) == ("a", ["c"])
    assert beliefs.choose(["a", "c"], 3, 0.0) == (None, ["a", "c"])
    assert shortest([("a", 3), ("c", None)], 4) == "a"
    assert shortest([("a", 3), ("c", None)], 3) is None


def test_deadlines_and_pauses_grow_to_their_bounds() -> None:
    assert [deadline_s(n) for n in (0, 1, 3, 4, 9)] == [0.1, 0.2, 0.8, 1.0, 1.0]
    assert [backoff_s(n) for n in (0, 1, 2, 3, 6, 7, 40)] == [0, 0, 0.025, 0.05, 0.4, 0.5, 0.5]


# -- the engine -----------------------------------------------------------------------------------------------------------


def test_the_first_request_asks_and_the_next_ones_know() -> None:
    """2 ms for the question, 2 ms for the hop, 10 ms of work; afterwards no question."""
    run = cached(scenario('kind = "uniform"\nrate_per_s = 10\nduration = "0.5s"', ONE.format(replicas=1, most=5, cost="10ms")))
    assert shown(run) == [14, 12, 12, 12, 12]


def test_after_ten_quiet_seconds_it_asks_again() -> None:
    run = cached(scenario('kind = "uniform"\nrate_per_s = 0.05\nduration = "60s"', ONE.format(replicas=1, most=5, cost="10ms")))
    assert shown(run) == [14, 14, 14]


def test_a_full_replica_is_asked_again_after_pauses() -> None:
    """Two clients at once, one place, 100 ms of work. Both tasks ask at 0 and are told at 2 ms that there is room; the first call takes
    it and ends at 104. The other task asks again at once (told at 4), after 25 ms (at 31), after 50 ms (at 83), and after 100 ms, at
    183, knows that the call has ended: it asks no more, and the second call ends 2 + 100 ms later."""
    run = cached(scenario('kind = "closed"\nconcurrency = 2\nduration = "1ms"', ONE.format(replicas=1, most=1, cost="100ms")))
    assert shown(run) == [104, 285]


def test_an_answer_that_comes_too_late_is_none() -> None:
    """150 ms on the network: beyond the first deadline of 0.1 s, within the second of 0.2 s, which begins at once."""
    text = scenario('kind = "uniform"\nrate_per_s = 1\nduration = "1s"', ONE.format(replicas=1, most=5, cost="10ms"))
    run = serve(text, choice="power_of_two", queue_lengths="cached", overheads={"hop_s": 0.15})
    assert shown(run) == [100 + 150 + 150 + 10]


def test_two_proxies_do_not_know_of_each_other() -> None:
    """Each sends one to each of two replicas at most; with current lengths nothing queues, by hearsay something does."""
    closed = 'kind = "closed"\nconcurrency = 16\nthink_time = "3ms"\nduration = "20s"'
    text = scenario(closed, ONE.format(replicas=8, most=100, cost="5ms")).replace("memory =", "count = 4\nmemory =")
    costs = {"proxy_s": 1e-5, "hop_s": 1e-3}
    known, heard = (serve(text, queue_lengths=kind, choice="power_of_two", overheads=costs) for kind in ("current", "cached"))
    assert heard.counters["latency_mean_s"] > 1.02 * known.counters["latency_mean_s"]
    assert heard.counters["requests_failed"] == 0


@pytest.mark.parametrize("replicas", [2, 5])
def test_every_request_is_answered_once_through_faults(replicas: int) -> None:
    faults = "".join(f'[[faults]]\nat = "{t}s"\nkind = "worker_killed"\ntarget = "node[0]"\n' for t in (1, 2, 3))
    one = ONE.format(replicas=replicas, most=3, cost="5ms") + 'startup = "500ms"\n'
    run = serve(
        scenario('kind = "poisson"\nrate_per_s = 150\nduration = "5s"', one, more=faults),
        "ray-serve",
        queue_lengths="cached",
        retries=1,
    )
    told = run.counters
    assert told["requests_sent"] == told["requests_ok"] + told["requests_failed"]
    assert told["requests_failed"] <= 3
