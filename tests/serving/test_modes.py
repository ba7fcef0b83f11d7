"""MLPerf's four ways of asking, on answers made by hand; and the command, on a host that sleeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import scenario
from windtunnel.engines.serving import modes
from windtunnel.engines.serving.client import Sent
from windtunnel.engines.serving.load import Loop
from windtunnel.errors import InvalidMeasurement


def _server(capacity: float, lag_s: float = 0.0, lost: bool = False) -> modes.Ask:
    """Answers in 1 ms up to a rate of ``capacity``, in 1 s above it."""

    def ask(loop: Loop) -> list[Sent]:
        rate = len(loop.times) / max(loop.times)
        took = 0.001 if rate <= capacity else 1.0
        outcomes = ["failed" if lost and not i else "ok" for i in range(len(loop.times))]
        return [Sent(t, t + lag_s, t + took, t + took, o) for t, o in zip(loop.times, outcomes, strict=True)]

    return ask


def _meets(latencies: np.ndarray) -> bool:
    return bool(np.percentile(latencies, 99) <= 0.01)


@pytest.mark.parametrize("first", [10.0, 1000.0])
def test_the_search_comes_near_the_highest_rate_from_below_and_above(first: float) -> None:
    probes = modes.server(_server(300.0), _meets, 0.01, 20.0, 0.02, 7, first)
    best = modes.highest(probes)
    assert best is not None and 0.9 * 300 < best.rate_per_s < 1.1 * 300
    assert len(probes) < 15
    assert best.goodput_per_s == pytest.approx(best.rate_per_s, rel=0.1)
    assert all(p.goodput_per_s == 0.0 for p in probes if not p.meets), "answers after a second are of no use"


def test_goodput_counts_answers_within_the_bound() -> None:
    assert modes.goodput(np.array([0.1, 0.2, 0.3, 0.4]), 0.3, 2.0) == 1.5


def test_a_lost_answer_fails_a_rate_and_no_rate_may_meet_the_bound() -> None:
    assert modes.highest(modes.server(_server(300.0, lost=True), _meets, 0.01, 5.0, 0.02, 7, 50.0)) is None


def test_a_generator_that_lags_makes_the_search_invalid() -> None:
    with pytest.raises(InvalidMeasurement, match="cannot ask faster"):
        modes.server(_server(300.0, lag_s=0.1), _meets, 0.01, 5.0, 0.02, 7, 50.0)


def test_a_group_is_as_slow_as_its_last_answer() -> None:
    sent = [Sent(float(i // modes.GROUP), 0.0, 0.0, i // modes.GROUP + 0.01 * (i % modes.GROUP + 1), "ok") for i in range(24)]
    sent[23].outcome = "failed"
    found = modes.multi_stream(lambda loop: sent if loop.together else [], 1.0)
    assert found.tolist() == pytest.approx([0.08, 0.08])


ONE = '[[deployments]]\nname = "one"\ncost = { per_call = "5ms" }\n'
POISSON = 'kind = "poisson"\nrate_per_s = 20\nrequest_bytes = "16B"'


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from windtunnel.cli import main

    file = tmp_path / "s.toml"
    file.write_text(scenario(ONE, arrivals=POISSON, options='work = "sleep", send_lag = "5s"'), encoding="utf-8")
    assert main(["load", str(file), "--as", "multi-stream", "--seconds", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "goodput_per_s" not in found and found["group"] == 8 and found["value_s"] > 8 * 0.005, "one replica, eight at a time"
    assert main(["load", str(file), "--as", "offline", "--seconds", "0.5", "--p99", "60s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["goodput_per_s"] == pytest.approx(found["answered_per_s"]), "all are within a minute"
    assert main(["load", str(file), "--as", "server"]) == 2
    assert "needs a bound" in capsys.readouterr().err
