"""The embedded host's replicas follow what is ongoing, by the simulated world's own rules, down to none."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import running
from windtunnel.engines.models.serving import AutoscalerRules, Scaling

SCALED = """
[[deployments]]
name = "a"
max_ongoing = 2
replicas = { min = 0, max = 2, target_ongoing = 1, upscale_delay = "0s", downscale_delay = "300ms" }
cost = { per_call = "400ms" }
"""


def test_the_look_back_is_an_exact_time_average() -> None:
    """8 ongoing for 1 s, then none, of a service that was idle before: over 4 s an average of 2, which needs 2 replicas of target 1."""
    rules = AutoscalerRules(minimum=1, maximum=9, target_ongoing=1.0, upscale_delay_s=0, downscale_delay_s=0, lookback_s=4)
    assert Scaling(rules).look(1.0, 8.0, running=1, target=1) == 2
    assert Scaling(rules).look(4.0, 8.0, running=1, target=1) == 2
    short = Scaling(
        AutoscalerRules(minimum=1, maximum=9, target_ongoing=1.0, upscale_delay_s=0, downscale_delay_s=0, lookback_s=1)
    )
    short.look(1.0, 0.0, running=1, target=1)
    assert short.look(2.0, 3.0, running=1, target=1) == 3, "the first second is forgotten"


def _replicas(session: Any) -> int:
    with urllib.request.urlopen(session.url + "-/metrics", timeout=10) as response:
        text = response.read().decode()
    return int(next(row for row in text.splitlines() if row.startswith('windtunnel_replicas{deployment="a"}')).split()[-1])


def _until(session: Any, count: int) -> None:
    end = time.monotonic() + 30
    while _replicas(session) != count:
        assert time.monotonic() < end, f"never {count} replicas"
        time.sleep(0.05)


def test_from_none_to_two_and_back(tmp_path: Path) -> None:
    from threading import Thread

    with running(tmp_path, SCALED, work="sleep", lookback="300ms") as session:
        assert _replicas(session) == 0
        answers: list[int] = []

        def ask() -> None:
            with urllib.request.urlopen(urllib.request.Request(session.url, data=b"x"), timeout=60) as response:
                answers.append(response.status)

        clients = [Thread(target=lambda: [ask() for _ in range(4)]) for _ in range(4)]
        for client in clients:
            client.start()
        _until(session, 2)
        for client in clients:
            client.join()
        assert answers == [200] * 16
        _until(session, 0)
        ask()  # one is started for it
