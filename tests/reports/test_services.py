"""Reports of services by hand: parts of a request that sum to it, percentiles that know how sure they are, knees, both worlds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reports.records import record
from tests.sim.serving import scenario
from windtunnel.cli import main
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.reports.breakdown import breakdown
from windtunnel.reports.compare import build
from windtunnel.reports.confidence import quantile
from windtunnel.reports.render import html, markdown
from windtunnel.reports.services import services

SERVING = {
    "arrivals": {"kind": "poisson", "rate_per_s": 10.0, "duration_s": 10.0, "request_bytes": 0, "response_bytes": 0},
    "deployments": [{"name": "<b>one</b>"}, {"name": "two"}],
}


def served(latencies: list[float], rate: float = 10.0, clock: str = "wall", bound: float | None = 0.5, **more: Any) -> RunRecord:
    """A record of requests sent every 1 / rate seconds, which took so long, half of it in a queue and half in two branches."""
    recorder = Recorder()
    for number, took in enumerate(latencies):
        sent = number / rate
        middle, end = sent + took / 2, sent + took
        recorder.span("request", "<b>one</b>", sent, end, partition=number, rows=1)
        recorder.span("queue", "<b>one</b>", sent, middle, partition=number)
        recorder.span("compute", "<b>one</b>", middle, end, partition=number)
        recorder.span("barrier", "two", middle, end, partition=number)
        recorder.sample("latency_s", end, took)
    recorder.sample("replicas:two", 0.0, 1)
    spec = {"serving": {**SERVING, "arrivals": {**SERVING["arrivals"], "rate_per_s": rate}}, "objective": {"p99_s": bound}}  # type: ignore[dict-item]
    values = np.array(latencies)
    counters = {
        "throughput_per_s": rate, "offered_per_s": rate, "requests_sent": float(len(values)), "requests_ok": float(len(values)),
        "latency_mean_s": float(values.mean()), "requests_failed": 3.0,
    }  # fmt: skip
    made = record(
        "serving", 10.0, label="serving", clock=clock, workload="answers", counters=counters, workload_spec=spec, **more
    )
    return replace(made, spans=recorder.span_table(), samples=recorder.sample_table(), run_id=f"{clock}-{rate}")


# -- where time went ----------------------------------------------------------------------------------------------------


def test_the_parts_of_a_request_sum_to_its_latency() -> None:
    """Half of 0.2 s in the queue; the other half is shared by two branches. The slowest one took 1 s."""
    found = breakdown(served([0.2] * 99 + [1.0]))
    assert found is not None and found.requests == 100
    assert sum(found.mean.values()) == pytest.approx(0.208)
    assert found.mean["queue"] == pytest.approx(0.104)
    assert found.mean["compute"] == found.mean["batch wait"] == pytest.approx(0.052)
    assert found.tail["queue"] == pytest.approx(0.5)


def test_what_no_span_covers_is_between_processes() -> None:
    recorder = Recorder()
    recorder.span("request", "one", 1.0, 2.0, partition=0, rows=1)
    recorder.span("launch", "proxy", 0.9, 1.1, partition=0)
    recorder.span("compute", "one", 1.5, 1.75, partition=0)
    recorder.span("compute", "one", 1.5, 9.0, partition=1)
    recorder.sample("latency_s", 2.0, 1.0)
    found = breakdown(replace(served([0.1]), spans=recorder.span_table(), samples=recorder.sample_table()))
    assert found is not None
    shown = {k: round(v, 9) for k, v in found.mean.items() if v}
    assert shown == {"proxy": 0.1, "compute": 0.25, "between processes": 0.65}


def test_requests_that_were_looked_at_stand_for_the_others() -> None:
    """Of the second half only each tenth has spans, and took three times as long: the mean is that of all."""
    whole = served([0.1] * 100 + [0.3] * 100)
    numbers = whole.spans["partition"].to_numpy()
    found = breakdown(replace(whole, spans=whole.spans.filter((numbers < 100) | (numbers % 10 == 0))))
    assert found is not None and found.requests == 110
    assert sum(found.mean.values()) == pytest.approx(0.2, rel=0.03)


# -- percentiles --------------------------------------------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Waiting times of M/M/1 at 0.8 by Lindley's recursion, strongly dependent: p90 of T is S ln 10 / (1 - ρ)."""
    truth, held, naive = np.log(10) / 0.2, 0, 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        service, gaps = random.exponential(1.0, 20_000), random.exponential(1.25, 20_000)
        times, wait = np.empty(20_000), 0.0
        for i in range(20_000):
            times[i] = wait + service[i]
            wait = max(0.0, times[i] - gaps[i])
        found = quantile([times], 0.9)
        assert found.low is not None and found.high is not None and found.low < found.value < found.high
        held += found.low <= truth <= found.high
        half = 1.96 * (0.9 * 0.1 / 20_000) ** 0.5
        naive += np.quantile(times, 0.9 - half) <= truth <= np.quantile(times, 0.9 + half)
    assert held >= 34 > naive  # 95 % of 40 is 38; taking requests for independent holds it far less often


def test_too_few_requests_beyond_a_percentile_give_no_interval() -> None:
    found = quantile([np.arange(100.0)], 0.99)
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(98.01)


# -- loads and worlds ---------------------------------------------------------------------------------------------------


def test_the_knee_and_the_highest_load_within_the_objective() -> None:
    """Power: 10 / 0.1, 20 / 0.12, 40 / 0.8. The bound of 0.4 lies in the middle of 0.12 and 0.8 … on a logarithmic scale."""
    runs = [served([took] * 200, rate) for rate, took in ((10, 0.1), (20, 0.2), (40, 0.8))]
    (service,) = services([replace(r, workload_spec={**r.workload_spec, "objective": {"p99_s": 0.4}}) for r in runs])
    (curves,) = service.curves
    assert curves.knee == 10
    assert curves.highest == pytest.approx(30)
    assert [p.goodput_per_s for p in curves.points] == [10, 20, 0]
    assert "keeps up to 30/s a p99 of 400 ms" in service.verdict


def test_simulated_runs_are_set_beside_the_real_ones_of_the_same_load() -> None:
    (service,) = services([served([0.1] * 50), served([0.11] * 50, clock="virtual"), served([0.3] * 50, 20, clock="virtual")])
    errors = {m.quantity: m.error for m in service.matches}
    assert errors == {"p50": pytest.approx(0.1), "p99": pytest.approx(0.1), "throughput": 0.0}
    assert "median error 10.0%" in service.verdict


def test_every_renderer_shows_services_and_escapes_names() -> None:
    failed = replace(served([0.1]), status="failed", reason="<script>", label="bad", run_id="bad")
    comparison = build([served([0.1] * 50), served([0.11] * 50, clock="virtual"), served([0.4] * 50, 40.0), failed])
    page = html.render(comparison)
    assert "<script>" not in page and "<b>one" not in page and "&lt;b&gt;one" in page
    assert 'class="series s1 dashed"' in page and "Distribution of latencies" in page and "Latency over load" in page
    assert 'id="comparison"' not in page and 'id="timelines"' not in page
    text = markdown.render(comparison)
    assert "Where a request's time went" in text and "150 failed" not in text and "3 failed" in text
    assert "failed: &lt;script&gt;" in text


def test_report_shows_serving_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, results, page = tmp_path / "s.toml", tmp_path / "r", tmp_path / "page.html"
    deployment = '[[deployments]]\nname = "one"\ncost = { per_call = "5ms", cv = 1.0 }\n'
    sweep = '[sweep]\n"arrivals.rate_per_s" = [20, 100, 150]\n[objective]\np99 = "100ms"\n'
    file.write_text(scenario('kind = "poisson"\nrate_per_s = 1\nduration = "10s"', deployment, more=sweep))
    assert main(["simulate", str(file), "--results", str(results)]) == 0
    assert main(["report", str(results), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert "keeps up to" in told and "p99 (95 %)" in told
    assert "Latency over load" in page.read_text()
    assert main(["report", str(results), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["services"][0]["points"]) == 3 and document["groups"] == []
