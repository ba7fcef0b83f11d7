"""Comparisons: grouping, verdicts, effects, failures, noise, fidelity."""

from __future__ import annotations

import json

import pytest

from tests.reports.records import HOST, record, runs
from windtunnel.errors import InputError, NotComparable
from windtunnel.reports.compare import build
from windtunnel.spec.canonical import to_plain

BULK = runs("bulk", 2.0, 2.1, 1.9, 2.0, 2.05)
FAST = runs("streaming", 1.0, 1.05, 0.95, 1.0, 1.02)
AGAIN = runs("bulk", 2.0, 2.05, 1.95, 2.0, 2.0, label="bulk (A/A)")


def test_a_clear_winner_is_named_with_its_factor() -> None:
    (verdict,) = build([*BULK, *FAST, *AGAIN]).verdicts
    assert verdict.startswith("tpch_q1 at scale 0.1: streaming is fastest, 1 s: 2× (")
    assert "faster than bulk" in verdict


def test_arms_that_differ_more_than_the_engines_leave_no_verdict() -> None:
    noisy = runs("bulk", 4.4, 4.5, 4.6, label="bulk (A/A)")
    (verdict,) = build([*BULK, *FAST, *noisy]).verdicts
    assert "no difference shown between streaming and bulk" in verdict


def test_streaming_against_bulk_is_the_model_and_the_rest_is_the_engine() -> None:
    effects = build([*BULK, *FAST, *runs("spark", 6.0, 6.1, 6.2), *AGAIN]).effects
    assert [(e.kind, e.label) for e in effects] == [("model", "streaming"), ("engine", "spark")]
    assert effects[0].ratio.value == pytest.approx(0.5)
    assert effects[1].ratio.value == pytest.approx(3.05)
    assert [e.verdict for e in effects] == ["faster", "slower"]


def test_a_failed_run_is_a_row_with_its_reason() -> None:
    comparison = build([*BULK, record("spark", None)])
    row = next(r for r in comparison.groups[0].rows if r.label == "spark")
    assert (row.status, row.reason, row.makespan_s, row.n) == ("failed", "a worker died", None, 0)
    assert row.peak_memory_bytes is None
    assert "spark failed" in comparison.verdicts[0]


def test_one_failed_repetition_marks_the_row_and_keeps_the_others() -> None:
    comparison = build([*BULK, *FAST, record("streaming", None, 9)])
    row = next(r for r in comparison.groups[0].rows if r.label == "streaming")
    assert (row.status, row.n) == ("failed", 5)


def test_warm_ups_count_for_nothing() -> None:
    comparison = build([*BULK, record("bulk", 99.0, -1, warmup=True)])
    assert comparison.groups[0].rows[0].n == 5
    with pytest.raises(InputError, match="warm-ups only"):
        build([record("bulk", 1.0, -1, warmup=True)])


def test_scales_and_sweep_points_are_groups_of_their_own() -> None:
    other = [record("bulk", 1.0, i, scale=0.2) for i in range(3)]
    swept = [record("bulk", 1.0, i, sweep={"cluster.nodes[0].cpus": 4}) for i in range(3)]
    titles = [g.title for g in build([*BULK, *other, *swept]).groups]
    assert sorted(titles) == ["tpch_q1 at scale 0.1", "tpch_q1 at scale 0.1, cpus = 4", "tpch_q1 at scale 0.2"]


def test_runs_of_two_hosts_are_a_warning_or_with_strict_an_error() -> None:
    elsewhere = runs("duckdb", 1.0, 1.0, 1.0, environment={**HOST, "cpu_model": "other"})
    assert "not comparable" in build([*BULK, *elsewhere]).warnings[0]
    with pytest.raises(NotComparable, match="2 different hosts"):
        build([*BULK, *elsewhere], strict=True)


def test_an_unverified_output_is_a_warning() -> None:
    unchecked = runs("duckdb", 1.0, 1.0, 1.0, verified=False)
    assert any("no oracle checked" in w for w in build([*BULK, *unchecked]).warnings)


def test_a_simulated_row_stands_beside_its_error() -> None:
    comparison = build([*BULK, *FAST, *runs("sim:bulk", 1.8, 1.8, 1.8), *runs("sim:streaming", 1.1, 1.1, 1.1)])
    errors = {r.label: r.sim_error for r in comparison.groups[0].rows if r.clock == "virtual"}
    assert errors == {"sim:bulk": pytest.approx(-0.1), "sim:streaming": pytest.approx(0.1)}
    found = comparison.fidelity
    assert (found.median_error, found.worst_error) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (found.orders, found.orders_agree) == (1, 1)


def test_a_simulation_that_swaps_the_order_is_told() -> None:
    found = build([*BULK, *FAST, *runs("sim:bulk", 1.0), *runs("sim:streaming", 1.1)]).fidelity
    assert (found.orders, found.orders_agree) == (1, 0)


def test_other_options_or_another_cluster_are_no_measurement() -> None:
    other = runs("sim:bulk", 1.8, 1.8, 1.8, options={"fuse": False})
    found = build([*BULK, *other]).fidelity
    assert found.points == ()
    assert found.unmeasured == ("sim:bulk on tpch_q1 at scale 0.1",)


def test_a_comparison_is_plain_data() -> None:
    text = json.dumps(to_plain(build([*BULK, *FAST, record("spark", None)])), allow_nan=False)
    assert "spark" in text
    assert text == json.dumps(to_plain(build([*BULK, *FAST, record("spark", None)])), allow_nan=False)
