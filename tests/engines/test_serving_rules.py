"""The pure rules of serving: which replica, and how many; decisions counted one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from windtunnel.engines.models.serving import RULES, Autoscaler, AutoscalerRules, power_of_two


def draws(seed: int = 1) -> Callable[[], float]:
    """Uniform numbers."""
    random = np.random.default_rng(seed)
    return lambda: float(random.random())


def test_power_of_two_takes_the_shorter_of_two_different_replicas() -> None:
    taken = Counter(power_of_two([5, 1, 9], [0, 1, 2], draws(i)) for i in range(3000))
    assert taken[2] == 0  # the longest never wins a pair
    assert taken[1] == pytest.approx(2000, rel=0.05)  # in two of three pairs
    assert power_of_two([5, 0, 9], [2], draws()) == 2  # the only one with room


def test_round_robin_passes_over_full_ones() -> None:
    rule = RULES["round_robin"]()
    assert [rule([0, 0, 0], room, draws()) for room in ([0, 1, 2], [0, 2], [0, 1, 2], [1, 2])] == [0, 2, 0, 1]


def test_least_loaded_and_random() -> None:
    assert RULES["least_loaded"]()([3, 1, 1], [0, 1, 2], draws()) == 1
    assert {RULES["random"]()([0, 0, 0], [0, 2], draws(i)) for i in range(50)} == {0, 2}


def scaler(**more: float) -> Autoscaler:
    """Two ongoing a replica, delays of 1 s up and 3 s down: more than 10 and 30 decisions in a row."""
    bounds = {"minimum": 1, "maximum": 10, "target_ongoing": 2.0, "upscale_delay_s": 1.0, "downscale_delay_s": 3.0}
    return Autoscaler(AutoscalerRules(**{**bounds, **more}))  # type: ignore[arg-type]


def test_growth_needs_its_delay_and_takes_what_is_wanted_then() -> None:
    auto = scaler()
    assert [auto.decide(8, 1, 1) for _ in range(10)] == [1] * 10
    assert auto.decide(12, 1, 1) == 6
    assert auto.decide(12, 6, 6) == 6


def test_a_decision_in_between_begins_the_count_anew() -> None:
    auto = scaler()
    decisions = [*(auto.decide(8, 1, 1) for _ in range(10)), auto.decide(2, 1, 1), *(auto.decide(8, 1, 1) for _ in range(10))]
    assert set(decisions) == {1}
    assert auto.decide(8, 1, 1) == 4


def test_shrinking_keeps_one_and_goes_to_none_from_one_only() -> None:
    auto = scaler(minimum=0)
    assert [auto.decide(0, 4, 4) for _ in range(31)] == [4] * 30 + [1]
    assert [auto.decide(0, 1, 1) for _ in range(31)] == [1] * 30 + [0]
    assert auto.decide(0, 0, 0) == 0
    assert auto.decide(0.001, 0, 0) == 1  # at once
    assert auto.decide(50, 0, 1) == 1  # while it starts


def test_bounds_hold() -> None:
    assert scaler().desired(1000) == 10
    assert scaler(minimum=3).desired(0) == 3
    assert scaler().desired(6.0000000001) == 3  # rounding is no request
