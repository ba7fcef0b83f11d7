"""What a deployment expects of its own queue, by hand."""

from __future__ import annotations

from windtunnel.engines.models.serving import Pace


def test_nothing_is_expected_before_two_answers_of_a_busy_time() -> None:
    pace = Pace()
    assert pace.wait_s(100) == 0.0
    pace.answered(1.0, busy=True)
    assert pace.wait_s(100) == 0.0
    pace.answered(1.5, busy=True)
    assert pace.wait_s(100) == 50.0


def test_idle_time_does_not_count() -> None:
    pace = Pace()
    for start in (0.0, 100.0):
        pace.answered(start, busy=True)
        pace.answered(start + 0.2, busy=False)
    assert abs(pace.wait_s(10) - 2.0) < 1e-9


def test_it_forgets() -> None:
    """A gap of 1 s, then hundreds of 10 ms: near 10 ms again, and a single long one adds a twentieth of itself."""
    pace, now = Pace(), 0.0
    for gap in [1.0, 1.0, *[0.01] * 200]:
        now += gap
        pace.answered(now, busy=True)
    assert abs(pace.wait_s(1) - 0.01) < 1e-4
    pace.answered(now + 1.0, busy=True)
    assert abs(pace.wait_s(1) - (0.01 + 0.05 * 0.99)) < 1e-4
