"""When latencies have settled, on series made by hand."""

from __future__ import annotations

import numpy as np

from windtunnel.engines.models.latencies import settling


def test_a_warm_up_is_found_where_it_ends() -> None:
    noise = np.random.default_rng(7).normal(10.0, 1.0, 2000)
    noise[:300] += 50.0
    assert abs(settling(noise) - 0.15) < 0.02


def test_without_a_warm_up_little_is_cut_off() -> None:
    assert settling(np.random.default_rng(7).exponential(1.0, 5000)) < 0.1
    assert settling(np.ones(1000)) == 0.0


def test_what_grows_for_ever_never_settles() -> None:
    assert settling(np.arange(1000.0)) > 0.49


def test_too_few_say_nothing() -> None:
    assert settling(np.arange(49.0)) == 0.0
