"""What may be set against what, and what must be said: groups, noise floors, failures, mixtures, hosts, fidelity."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.reports.records import HOST, record, runs
from windtunnel.errors import NotComparable
from windtunnel.records.record import RunRecord
from windtunnel.reports.compare import build
from windtunnel.reports.fidelity import fidelity
from windtunnel.reports.rows import Row
from windtunnel.spec.canonical import to_plain

QUIET = [*runs("bulk", 2.0, 2.0, 2.0), *runs("bulk", 2.0, 2.0, 2.0, label="bulk (A/A)")]
LOUD = [*runs("bulk", 2.0, 2.0, 2.0), *runs("bulk", 3.0, 3.0, 3.0, label="bulk (A/A)")]


def bad(engine: str, repetition: int = 0, **changes: Any) -> RunRecord:
    return record(engine, None, repetition, **changes)


def row(records: list[RunRecord], label: str) -> Row:
    return next(r for g in build(records).groups for r in g.rows if r.label == label)


def test_the_winner_is_set_against_the_next_and_the_baseline() -> None:
    found = build([*QUIET, *runs("polars", 1.0, 1.0, 1.0), *runs("duckdb", 1.5, 1.5, 1.5)])
    assert found.verdicts == (
        "tpch_q1 at scale 0.1: polars is fastest, 1 s: 1.5× (1.5 to 1.5) faster than duckdb, 2× (2 to 2) faster than bulk",
    )


def test_an_engine_of_too_few_runs_hides_no_verdict_on_the_others() -> None:
    verdict = build([*QUIET, *runs("polars", 1.0, 1.0, 1.0), *runs("dask", 0.5, 0.5)]).verdicts[0]
    assert "polars is fastest, 1 s" in verdict
    assert verdict.endswith("; too few runs of dask (500 ms)")
    assert "too few runs to tell" in build([*runs("bulk", 2.0), *runs("polars", 1.0)]).verdicts[0]


def test_numbers_of_a_row() -> None:
    found = row([*QUIET, *runs("polars", 1.0, 2.0, 4.0)], "polars")
    assert (found.n, found.statuses, found.fastest_s, found.slowest_s) == (3, {"ok": 3}, 1.0, 4.0)
    assert found.against is not None
    assert (found.against.value, found.against.low, found.against.high) == (1.0, 0.5, 2.0)
    assert (found.verdict, found.baseline, found.verified) == ("no difference shown", "bulk", True)


def test_difference_below_the_noise_floor_is_none() -> None:
    other = runs("polars", 1.5, 1.5, 1.5)
    assert build([*LOUD, *other]).groups[0].noise == pytest.approx(0.5)
    assert row([*LOUD, *other], "polars").verdict == "no difference shown"
    assert row([*QUIET, *other], "polars").verdict == "faster"


def test_a_group_without_an_arm_takes_the_largest_floor_of_the_others() -> None:
    groups = build([*LOUD, *runs("bulk", 1.0, 1.0, 1.0, workload="other")]).groups
    assert [g.noise for g in groups] == [pytest.approx(0.5), pytest.approx(0.5)]
    assert build(runs("bulk", 1.0, 1.0, 1.0)).groups[0].noise is None


def test_ends_of_bad_runs_are_counted_and_told() -> None:
    records = [*QUIET, *runs("polars", 1.0, 1.0, 1.0), bad("polars", 3), bad("polars", 4, status="timeout")]
    assert row(records, "polars").statuses == {"ok": 3, "failed": 1, "timeout": 1}
    assert "polars failed in 2 of 5 runs" in build(records).verdicts[0]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("out_of_memory", "ran out of memory"),
        ("timeout", "did not end in time"),
        ("unsupported", "cannot run it"),
        ("wrong_result", "gave a wrong result"),
    ],
)
def test_each_end_has_its_words_and_no_number(status: str, told: str) -> None:
    records = [*QUIET, bad("polars", status=status, reason="because")]
    found = row(records, "polars")
    assert (found.makespan_s, found.against, found.cost_usd, found.barrier_s) == (None, None, None, None)
    assert (found.verdict, found.reason) == ("no result", "because")
    assert build(records).verdicts[0].endswith(f"; polars {told}")


def test_nothing_ended_well() -> None:
    found = build([bad("bulk"), bad("bulk", 1)])
    assert found.verdicts == ("tpch_q1 at scale 0.1: no engine has a result; bulk failed",)
    assert found.timelines == ()


def test_simulated_verdicts_say_so() -> None:
    found = build([*runs("sim:bulk", 2.0, 2.0, 2.0), *runs("sim:streaming", 1.0, 1.0, 1.0)])
    assert found.verdicts[0].startswith("tpch_q1 at scale 0.1 (simulated): sim:streaming is fastest")
    assert found.effects == ()


def test_other_data_are_another_group() -> None:
    spec = runs("bulk", 1.0)[0].workload_spec
    more = {**spec, "dataset": {**spec["dataset"], "partitions": 8}}
    found = build([*runs("bulk", 1.0), *runs("bulk", 2.0, workload_spec=more)])
    assert [g.title.rpartition(", ")[2] for g in found.groups] == ["4 partitions", "8 partitions"]


def test_what_differs_between_hosts_is_named() -> None:
    elsewhere = {**HOST, "cpu_model": "other", "libraries": {"duckdb": "2"}}
    records = [*QUIET, *runs("duckdb", 1.0, environment=elsewhere)]
    (reason,) = build(records).not_comparable
    assert reason.endswith("which differ in cpu model and duckdb")
    with pytest.raises(NotComparable, match="cpu model and duckdb"):
        build(records, strict=True)


def test_load_and_unverified_output_forbid_nothing() -> None:
    busy = runs("duckdb", 1.0, environment={**HOST, "load_average": [9.0]}, verified=False)
    assert build([*QUIET, *busy], strict=True).not_comparable == ()


def test_simulated_runs_may_come_from_anywhere() -> None:
    assert build([*QUIET, *runs("sim:bulk", 1.0, environment={})], strict=True).not_comparable == ()


def test_one_label_for_two_configurations_is_not_comparable() -> None:
    mixed = [record("polars", 1.0, 0, options={"engine": "streaming"}), record("polars", 1.0, 1, options={"engine": "eager"})]
    (reason,) = build([*QUIET, *mixed]).not_comparable
    assert reason == "polars on tpch_q1 at scale 0.1 stands for runs with different options"


def test_order_of_records_does_not_matter() -> None:
    records = [*QUIET, *runs("polars", 1.0, 1.5), bad("polars", 2), *runs("sim:bulk", 1.0, 1.1)]
    assert json.dumps(to_plain(build(records))) == json.dumps(to_plain(build(records[::-1])))


def test_runs_of_no_duration_have_no_ratio() -> None:
    instant = [replace(r, label="instant", makespan_s=0.0) for r in runs("bulk", 1.0, 1.0, 1.0)]
    found = row([*instant, *runs("polars", 1.0, 1.0, 1.0)], "polars")
    assert (found.n, found.against, found.of_best) == (3, None, None)


def test_a_real_difference_within_the_noise_has_no_order() -> None:
    records = [*LOUD, *runs("streaming", 1.9, 1.9, 1.9), *runs("sim:bulk", 1.0), *runs("sim:streaming", 1.1)]
    assert fidelity(records).orders == 0


def test_errors_by_hand() -> None:
    made = [*runs("sim:bulk", 1.0, 3.0), *runs("sim:streaming", 0.5), *runs("sim:spark", 9.0)]
    found = fidelity([*runs("bulk", 2.0, 4.0, 3.0), *runs("streaming", 1.0), *made])
    assert {p.label: p.error for p in found.points} == {
        "sim:bulk": pytest.approx(2 / 3 - 1),
        "sim:streaming": pytest.approx(-0.5),
    }
    assert found.median_error == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found.worst_error == pytest.approx(0.5)
    assert found.unmeasured == ("sim:spark on tpch_q1 at scale 0.1",)
