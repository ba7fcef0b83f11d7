"""What a deployment expects of its own queue, by hand."""

from __future__ import annotations

import numpy as np

from windtunnel.engines.models.serving import IN_TIME, Pace


def _after(*gaps: float) -> Pace:
    pace, now = Pace(), 0.0
    pace.answered(now, busy=True)
    for gap in gaps:
        now += gap
        pace.answered(now, busy=True)
    return pace


def test_nothing_is_expected_before_two_answers_of_a_busy_time() -> None:
    assert Pace().takes_s(100, 1) == 0.0
    assert _after().takes_s(100, 1) == 0.0
    assert _after(0.5).takes_s(100, 1) == 101 * 0.5


def test_a_free_replica_takes_any_call_so_that_a_bad_memory_cannot_last() -> None:
    pace = _after(60.0)
    assert pace.in_time(3, 4, 1.0) and not pace.in_time(4, 4, 1.0)
    assert pace.in_time(0, 0, 1.0), "none is running: somebody must wake one"


def test_idle_time_does_not_count() -> None:
    pace = Pace()
    for start in (0.0, 100.0):
        pace.answered(start, busy=True)
        pace.answered(start + 0.2, busy=False)
    assert abs(pace.takes_s(9, 1) - 2.0) < 1e-9


def test_it_believes_at_once_that_it_has_become_slower_and_late_that_it_has_become_faster() -> None:
    slower = _after(*[0.01] * 500, *[0.02] * 40)
    assert slower.takes_s(1, 1) > 2 * 0.018, "the quick mean"
    faster = _after(*[0.02] * 500, *[0.01] * 40)
    assert faster.takes_s(1, 1) > 2 * 0.018, "the slow one"
    assert _after(*[0.02] * 500, *[0.01] * 1500).takes_s(1, 1) < 2 * 0.0105


def test_what_varies_takes_longer() -> None:
    """Gaps of 0 and 2 ms in turn: for 100 calls 100 ms, and three times √100 ms."""
    assert abs(_after(*[0.0, 0.002] * 1000).takes_s(99, 1) - 0.130) < 0.006


def test_under_overload_what_is_let_in_is_answered_in_time() -> None:
    """A queue in one loop: answers every 0.5 to 30 ms (exponential), somebody asks ten times as often, a deadline of a second."""
    drawn = np.random.default_rng(3).exponential(0.01, 20_000).tolist()
    pace, queue, late, now, left = Pace(), [], 0, 0.0, []
    for gap in drawn:
        for part in range(10):
            if pace.in_time(len(queue), 1, 1.0):
                queue.append(now + gap * part / 10)
        now += gap
        came = queue.pop(0)
        left.append(now - came)
        late += left[-1] > 1.0
        pace.answered(now, busy=bool(queue))
    assert late == 0
    assert np.median(left) > 0.5 * IN_TIME, "it does not refuse more than it must"
