"""Statistics: hand-computable cases, properties, and when nothing may be called faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.reports import stats

DURATIONS = st.lists(st.floats(0.001, 1000), min_size=3, max_size=12)


def test_the_median_of_five_runs_lies_between_their_ends() -> None:
    found = stats.median([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.low is not None and found.high is not None
    assert 1.0 <= found.low < 3.0 < found.high <= 5.0


def test_equal_runs_have_an_interval_of_no_width() -> None:
    assert stats.median([2.0] * 6) == stats.Estimate(2.0, 2.0, 2.0)
    assert stats.ratio([2.0] * 4, [1.0] * 4) == stats.Estimate(2.0, 2.0, 2.0)


def test_two_runs_have_no_interval_and_no_verdict() -> None:
    assert stats.median([1.0, 2.0]).low is None
    assert stats.verdict(stats.ratio([1.0, 1.0], [5.0, 5.0]), None) == "too few runs"
    assert stats.noise_floor([1.0, 1.0], [1.0, 1.0]) is None


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    import numpy as np

    dice = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        found = stats.median(dice.lognormal(0.0, 0.3, size=15).tolist())
        assert found.low is not None and found.high is not None
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 200 <= 1.0


@given(values=DURATIONS, base=DURATIONS)
def test_a_ratio_turned_round_is_its_inverse(values: list[float], base: list[float]) -> None:
    there, back = stats.ratio(values, base), stats.ratio(base, values)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low is not None and there.high is not None
    assert there.low <= there.value * (1 + 1e-9)
    assert there.value <= there.high * (1 + 1e-9)


@given(values=DURATIONS)
def test_statistics_are_the_same_every_time(values: list[float]) -> None:
    assert stats.median(values) == stats.median(values)


@pytest.mark.parametrize(
    ("found", "noise", "expected"),
    [
        (stats.Estimate(0.5, 0.4, 0.6), 0.2, "faster"),
        (stats.Estimate(0.5, 0.4, 0.6), 1.5, "no difference shown"),
        (stats.Estimate(0.9, 0.85, 0.95), 0.2, "no difference shown"),
        (stats.Estimate(1.5, 1.3, 1.8), 0.2, "slower"),
        (stats.Estimate(1.5, 0.9, 1.8), 0.0, "no difference shown"),
        (stats.Estimate(2.0, 1.9, 2.1), 1.0, "no difference shown"),
        (stats.Estimate(0.5, 0.45, 0.55), 1.0, "no difference shown"),
    ],
)
def test_a_difference_needs_an_interval_beyond_one_and_the_noise(found: stats.Estimate, noise: float, expected: str) -> None:
    assert stats.verdict(found, noise) == expected


def test_the_noise_floor_is_the_farther_end_of_the_ratio_of_equal_arms() -> None:
    assert stats.noise_floor([1.0] * 5, [1.25] * 5) == pytest.approx(0.25)
    assert stats.noise_floor([1.25] * 5, [1.0] * 5) == pytest.approx(0.25)
