"""Statistics and verdicts on runs so few or so equal that every number can be worked out by hand, and their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.reports import stats
from windtunnel.reports.stats import Estimate

durations = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=9)


def test_median_of_three_runs_has_their_range_as_its_interval() -> None:
    # of the 27 resamples of three runs, 7 have the lowest as their median: far above the 2.5% tail; the same for the highest
    assert stats.median([1.0, 2.0, 9.0]) == Estimate(2.0, 1.0, 9.0)


def test_ratio_of_three_against_constants_spans_their_range() -> None:
    assert stats.ratio([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == Estimate(1.0, 0.5, 2.0)


@pytest.mark.parametrize("values", [(), (0.0, 1.0, 1.0)])
def test_no_ratio_of_nothing_or_of_no_time(values: tuple[float, ...]) -> None:
    assert stats.ratio_of(values, (1.0,)) is None
    assert stats.ratio_of((1.0,), values) is None


def test_half_and_twice_are_equally_far_from_one() -> None:
    # the ratio lies in 0.5 to 1
    assert stats.noise_floor([2.0, 2.0, 2.0], [1.0, 2.0, 2.0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "low", "high", "noise", "expected"),
    [
        (0.7, 0.5, 0.8, 0.4, "faster"),  # 1 / 0.7 = 1.43
        (0.7, 0.5, 0.8, 0.45, "no difference shown"),
        (0.7, 0.5, 1.0, None, "no difference shown"),
        (1.5, 1.1, 2.0, 0.4, "slower"),
        (1.5, 1.1, 2.0, 0.5, "no difference shown"),
    ],
)
def test_interval_and_noise_floor_decide(value: float, low: float, high: float, noise: float | None, expected: str) -> None:
    assert stats.verdict(Estimate(value, low, high), noise) == expected


def test_inverse() -> None:
    assert stats.inverse(Estimate(0.5, 0.25, 1.0)) == Estimate(2.0, 1.0, 4.0)
    assert stats.inverse(Estimate(0.5, None, None)) == Estimate(2.0, None, None)


@given(durations)
def test_interval_holds_the_median_and_stays_within_the_runs(values: list[float]) -> None:
    found = stats.median(values)
    assert found.low is not None and found.high is not None
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


@given(durations, st.floats(0.01, 100))
def test_ratio_knows_no_unit(values: list[float], unit: float) -> None:
    base = [2.0, 1.0, 3.0]
    found, scaled = stats.ratio(values, base), stats.ratio([v * unit for v in values], [b * unit for b in base])
    assert scaled.value == pytest.approx(found.value)
    assert scaled.low == pytest.approx(found.low)
    assert scaled.high == pytest.approx(found.high)


@given(durations, durations, st.floats(0, 3))
def test_more_noise_never_makes_a_difference(values: list[float], base: list[float], noise: float) -> None:
    found = stats.ratio(values, base)
    if stats.verdict(found, None) == "no difference shown":
        assert stats.verdict(found, noise) == "no difference shown"


@given(durations, durations)
def test_equal_arms_are_never_told_apart_by_their_own_floor(arm: list[float], again: list[float]) -> None:
    assert stats.verdict(stats.ratio(again, arm), stats.noise_floor(arm, again)) == "no difference shown"
