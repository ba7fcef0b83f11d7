"""Tables of what only some workloads have: medians over good runs, in all three renderings, and none for others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reports.records import record
from windtunnel.records.document import run_document
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.reports import compare
from windtunnel.reports.details import details
from windtunnel.reports.render import details as tables
from windtunnel.reports.render import html, markdown


def fed(first: float, repetition: int = 0) -> RunRecord:
    """A loop that steps twice for a second from ``first`` on, with a second between."""
    recorder = Recorder()
    for start in (first, first + 2):
        recorder.span("step", "train", start, start + 1, rows=10)
    plain = record("ray", first + 3.5, repetition, spans=recorder.span_table())
    operators = [{"name": n, "inputs": [], "resources": {"cpus": 1.0, "gpus": 0.0}} for n in ("scan", "train")]
    return replace(plain, workload_spec={**plain.workload_spec, "kind": "ingest", "pipeline": {"operators": operators}})


def handed(way: str, handover_s: float) -> RunRecord:
    """A run of a pair."""
    counters = {
        "first_leg_s": 1.0,
        "handover_s": handover_s,
        "second_plan_s": 0.1,
        "second_leg_s": 2.0,
        "handover_bytes": 2.0**20,
    }
    return record("pair", 4.0, label=f"a, b, {way}", counters=counters)


def test_medians_of_what_a_loop_went_through() -> None:
    found = details([fed(1.0), fed(3.0, 1), fed(2.0, 2)])["fed"]
    assert found == {
        "first_batch_s": 2.0, "stall_s": 3.0, "stall_share": pytest.approx(0.6), "later_stall_s": 1.0,
        "rows_per_s": pytest.approx(20 / 3), "end_s": 5.0,
    }  # fmt: skip


def test_every_rendering_shows_the_loop() -> None:
    comparison = compare.build([fed(1.0), fed(1.0, 1)])
    for text in (markdown.render(comparison), html.render(comparison)):
        assert "Feeding the training loop" in text
        assert "50%" in text  # two of four seconds
    assert run_document(fed(1.0))["training"]["stall_s"] == 2.0


def test_a_pair_tells_its_legs() -> None:
    (group,) = compare.build([handed("parquet", 0.5), handed("arrow", 0.02)]).groups
    (table,) = tables.details(group)
    assert table.heads[:3] == ("engine", "first leg", "hand-over")
    assert {row[0]: row[2] for row in table.rows} == {"a, b, parquet": "500 ms", "a, b, arrow": "20 ms"}


def test_other_runs_have_no_such_table() -> None:
    (group,) = compare.build([record("bulk", 1.0)]).groups
    assert tables.details(group) == []
    assert "training" not in run_document(record("bulk", 1.0))
