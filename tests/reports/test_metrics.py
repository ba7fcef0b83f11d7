"""Numbers of one run, worked out by hand; a run that did not end well has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reports.records import NODE, record
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.reports import metrics

SPEC = {
    "dataset": {"rows": 1_000, "partitions": 2},
    "pipeline": {
        "operators": [
            {"name": "scan", "inputs": [], "resources": {"cpus": 1.0, "gpus": 0.0}},
            {"name": "sum", "inputs": ["scan"], "resources": {"cpus": 1.0, "gpus": 0.0}},
        ]
    },
}


@pytest.fixture
def busy() -> RunRecord:
    """Two seconds on two workers: reading, serializing, a barrier, backpressure and a spill, then a sum."""
    recorder = Recorder()
    for worker in (0, 1):
        recorder.span("compute", "scan", 0.0, 0.8, worker=worker, partition=worker, rows=500)
        recorder.span("serialize", "scan", 0.8, 1.0, worker=worker, partition=worker)
        recorder.span("fetch", "sum", 0.9, 1.1, worker=worker, partition=worker)
    recorder.span("barrier", "scan", 0.6, 1.0)
    recorder.span("blocked", "scan", 0.2, 0.4)
    recorder.span("spill", "scan", 1.0, 1.2, worker=1, bytes=1_000)
    recorder.span("compute", "sum", 1.2, 2.0, worker=0)
    counters = {"tasks": 3.0, "spilled_bytes": 1_000.0}
    return record("bulk", 2.0, workload_spec=SPEC, counters=counters, spans=recorder.span_table())


def test_numbers_of_a_run(busy: RunRecord) -> None:
    assert metrics.rows_per_second(busy) == 500.0
    assert metrics.spilled_bytes(busy) == 1_000
    assert metrics.seconds_of(busy, "serialize", "deserialize") == pytest.approx(0.4)
    assert metrics.seconds_of(busy, "barrier") == pytest.approx(0.4)
    assert metrics.seconds_of(busy, "blocked") == pytest.approx(0.2)
    assert metrics.first_output(busy) == pytest.approx(1.1), "the earliest end of a span of the last operator"
    # compute 2 × 0.8 + 0.8 and serialize 2 × 0.2, on two CPUs for two seconds
    assert metrics.cpu_utilization(busy) == pytest.approx(2.8 / 4)
    assert metrics.cost_usd(busy) is None, "this machine has no price"


def test_cost_is_price_times_time() -> None:
    nodes = [{**NODE, "count": 3, "price_per_hour_usd": 0.5}]
    assert metrics.cost_usd(record("bulk", 1_800.0, cluster_spec={"nodes": nodes})) == pytest.approx(0.75)


@pytest.mark.parametrize("status", ["failed", "timeout", "out_of_memory", "wrong_result", "unsupported"])
def test_no_number_of_a_bad_run(busy: RunRecord, status: str) -> None:
    bad = replace(busy, status=status, makespan_s=None)  # type: ignore[arg-type]
    assert metrics.rows_per_second(bad) is None
    assert metrics.spilled_bytes(bad) is None
    assert metrics.seconds_of(bad, "barrier") is None
    assert metrics.cpu_utilization(bad) is None
    assert metrics.first_output(bad) is None
    assert metrics.cost_usd(bad) is None


def test_foreign_engines_do_not_tell_of_their_insides() -> None:
    recorder = Recorder()
    recorder.span("query", "sum", 0.0, 2.0)
    foreign = record("polars", 2.0, counters={}, spans=recorder.span_table())
    assert metrics.spilled_bytes(foreign) is None
    assert metrics.seconds_of(foreign, "barrier") is None
    assert metrics.cpu_utilization(foreign) is None
    assert metrics.first_output(foreign) is None


def test_throughput_adds_up_to_the_rows_read(busy: RunRecord) -> None:
    curve = metrics.throughput(busy)
    width = curve.times_s[1] - curve.times_s[0]
    assert sum(curve.values) * width == pytest.approx(1_000)


def test_thinned_samples_keep_their_peak() -> None:
    import numpy as np

    values = np.zeros(10_000)
    values[6_789] = 5.0
    curve = metrics._thinned(np.arange(10_000.0), values)
    assert len(curve.values) <= metrics.POINTS and max(curve.values) == 5.0


def test_middle_run_is_the_lower_median() -> None:
    runs = [record("bulk", s, n) for n, s in enumerate((4.0, 1.0, 3.0, 2.0))]
    assert metrics.middle(runs).makespan_s == 2.0
