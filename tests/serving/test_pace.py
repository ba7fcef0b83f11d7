"""What a deployment expects of its own queue, by hand, in a loop, and in the simulated world on bursts, batches and streams."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sim.serving import scenario, serve
from windtunnel.engines.models.pace import MARGIN, STALL_S, Pace


def _after(*seconds: float, width: int = 1, places: int = 100, joins: bool = False) -> Pace:
    pace = Pace(width, places, joins)
    for each in seconds:
        pace.worked(each)
    return pace


def test_nothing_is_expected_before_something_was_answered() -> None:
    assert Pace(1, 100).takes_s(100, 1, 100) == 0.0
    assert _after(0.5).takes_s(100, 1, 100) == 0.5 + MARGIN * 100 * 0.5


def test_a_free_replica_takes_any_call_so_that_a_bad_memory_cannot_last() -> None:
    pace = _after(60.0)
    assert pace.in_time(3, 4, 3, 1.0) and not pace.in_time(4, 4, 4, 1.0)
    assert pace.in_time(0, 0, 0, 1.0), "none is running: somebody must wake one"


def test_calls_that_fit_into_a_batch_wait_for_one_execution() -> None:
    """Eight at a time: behind one to eight calls a call waits for one execution, behind nine for two."""
    pace = _after(1.0, width=8)
    assert [pace.takes_s(n, 1, n) for n in (0, 1, 8, 9)] == [0, 1 + MARGIN, 1 + MARGIN, 1 + 2 * MARGIN]


def test_a_call_joins_a_running_batch_of_a_language_model_at_once() -> None:
    pace = _after(1.0, width=8, joins=True)
    assert [pace.takes_s(n, 1, n) for n in (1, 7, 8)] == [0, 0, 1 + MARGIN / 8]


def test_where_calls_hold_few_places_until_what_they_call_is_done_a_place_is_what_is_waited_for() -> None:
    pace = _after(0.01, places=2)
    pace.left(1.0)
    assert pace.takes_s(0, 1, 1) == 0.0, "one place is free"
    assert pace.takes_s(0, 1, 2) == pytest.approx(0.01 + MARGIN * 0.5), "the next one in half a second on average"


def test_it_believes_at_once_that_it_has_become_slower_and_late_that_it_has_become_faster() -> None:
    slower = _after(*[0.01] * 500, *[0.02] * 40)
    assert slower.takes_s(1, 1, 1) > (1 + MARGIN) * 0.018, "the quick mean"
    faster = _after(*[0.02] * 500, *[0.01] * 40)
    assert faster.takes_s(1, 1, 1) > (1 + MARGIN) * 0.018, "the slow one"


def test_what_varies_takes_longer() -> None:
    """0 and 2 ms in turn: for 100 calls a margin on 100 ms, one of its own, and three times √100 ms."""
    assert abs(_after(*[0.0, 0.002] * 1000).takes_s(100, 1, 100) - (0.001 + MARGIN * 0.1 + 0.030)) < 0.006


def test_under_overload_what_is_let_in_is_answered_in_time() -> None:
    """A queue in one loop: answers every 0.5 to 30 ms (exponential), somebody asks ten times as often, a deadline of a second."""
    drawn = np.random.default_rng(3).exponential(0.01, 20_000).tolist()
    pace, queue, late, now, left = Pace(1, 10_000), [], 0, 0.0, []
    for gap in drawn:
        for part in range(10):
            if pace.in_time(len(queue), 1, len(queue), 1.0):
                queue.append(now + gap * part / 10)
        now += gap
        came = queue.pop(0)
        left.append(now - came)
        late += left[-1] > 1.0
        pace.worked(gap)
    assert late == 0
    assert np.median(left) > 0.4 * (1.0 - 0.5 * STALL_S), "it does not refuse more than it must"


# -- in the simulated world ---------------------------------------------------------------------------------------------------

BURSTS = 'kind = "trace"\nfile = "{file}"\ncolumn = "t"'


def test_bursts_on_an_idle_batched_replica_are_let_in(tmp_path: object) -> None:
    """Nine requests within a second every 3,000 s; batches of 8 take 10 s; a limit of 30 s: the ninth is answered after 20 s."""
    random, file = np.random.default_rng(5), f"{tmp_path}/bursts.csv"
    times = sorted(3000.0 * burst + random.uniform(0, 1) for burst in range(40) for _ in range(9))
    with open(file, "w", encoding="utf-8") as out:
        out.write("t\n" + "\n".join(map(str, times)) + "\n")
    one = '[[deployments]]\nname = "one"\ncost = { per_call = "10s", cv = 0.1 }\nbatch = { max_size = 8, wait = "1s" }\n'
    told = serve(scenario(BURSTS.format(file=file), one), request_timeout="30s", max_queued_requests=1000).counters
    assert told["requests_ok"] == told["requests_sent"] == 360


def test_streams_are_let_in_as_long_as_they_run_side_by_side() -> None:
    """Answers of 10 s each, 20 at a time where 64 fit: nothing is refused, though only a few end a second."""
    model = '[[deployments]]\nname = "m"\nmax_ongoing = 64\ntokens = { iteration = "100ms", max_batch = 64 }\n'
    arrivals = 'kind = "poisson"\nrate_per_s = 2\nduration = "200s"\ntokens = { prompt = 1, output = 100 }'
    told = serve(scenario(arrivals, model), request_timeout="15s", max_queued_requests=1000).counters
    assert told["requests_ok"] == told["requests_sent"]


@pytest.mark.parametrize("batch", ["", 'batch = { max_size = 8, wait = "5ms" }'])
def test_under_twice_the_load_the_deployment_is_busy_and_nothing_is_late(batch: str) -> None:
    one = f'[[deployments]]\nname = "one"\nmax_ongoing = 1000\ncost = {{ per_call = "10ms", cv = 0.5 }}\n{batch}'
    rate = 200 * (8 if batch else 1)
    text = scenario(f'kind = "poisson"\nrate_per_s = {rate}\nduration = "20s"', one)
    told = serve(text, request_timeout="2s", max_queued_requests=100_000).counters
    assert told["requests_timed_out"] <= 0.001 * told["requests_sent"]
    assert told["throughput_per_s"] == pytest.approx(rate / 2, rel=0.05)
