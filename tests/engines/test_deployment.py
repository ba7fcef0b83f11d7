"""The deployment model: promises kept in random worlds, and what follows a death by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.engines.service_world import World


def _promises(seeds: range) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        found += world.outcomes
    return found


def test_every_request_ends_once_and_no_limit_is_exceeded() -> None:
    outcomes = _promises(range(400))
    assert min(outcomes[name] for name in ("ok", "rejected", "timed_out", "failed", "gone")) > 20, "all ways were gone"


@pytest.mark.slow
def test_the_same_in_ten_thousand_worlds() -> None:
    _promises(range(400, 10_400))
