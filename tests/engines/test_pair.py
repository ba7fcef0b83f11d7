"""Two engines, one after the other: the plan is cut in two, the answer is that of one engine, and nothing is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conformance.harness import answer_of, marks
from windtunnel.engines.pair import TABLE, legs, plain
from windtunnel.errors import InputError, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import col
from windtunnel.spec.plan import Filter, Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload

#: first leg, second leg; those with a start of their own run in the long suite
QUICK = (("duckdb", "polars"), ("polars", "streaming"))
LONG = (("spark", "streaming"), ("bulk", "spark"), ("dask", "duckdb"), ("duckdb", "dask"), ("duckdb", "ray"), ("daft", "ray-core"),
        ("polars", "daft"), ("duckdb", "mapreduce"), ("duckdb", "flink"))  # fmt: skip


def _pairs() -> list[Any]:
    found = []
    for pair in (*QUICK, *LONG):
        needed = [mark for name in pair for mark in marks(name)]
        found.append(pytest.param(*pair, marks=[*needed, *([pytest.mark.slow] if pair in LONG else [])]))
    return found


@pytest.fixture
def bound(data_root: Path) -> BoundWorkload:
    pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
    found: BoundWorkload = load_workload("handoff", scale=0.003, partitions=2).bind(data_root)
    return found


@pytest.mark.parametrize(("first", "second"), _pairs())
def test_a_pair_answers_as_one_engine_does(
    first: str, second: str, bound: BoundWorkload, two_cpus: ClusterSpec, tmp_path: Path
) -> None:
    for way in ("parquet", "arrow"):
        session = load_engine("pair").open(two_cpus, {"first": first, "second": second, "through": way})
        try:
            session.prepare(bound)
            recorder, output = Recorder(), tmp_path / way
            output.mkdir()
            bound.verify(answer_of(session.run(bound, recorder, output)))
            folder = session._folder
            assert list(folder.iterdir()) == [], "what was handed over is gone after the run"
        finally:
            session.close()
        assert not folder.exists()
        counters = recorder.counters
        assert counters["handover_bytes"] > 0
        assert counters["handover_rows"] < 30, "some photographs have too few listings"
        parts = ("first_leg_s", "handover_s", "second_plan_s", "second_leg_s")
        begun = sum(counters[p] for p in parts[:3])
        assert all(counters[p] > 0 for p in parts)
        second_ones = [s for s in recorder.spans if s[1] in (TABLE, "decode", "classify", "write")]
        assert min(s[5] for s in second_ones) >= begun * 0.999, "the second leg's spans come after the first's"


def test_the_plan_is_cut_before_its_first_kernel(bound: BoundWorkload) -> None:
    first, second = legs(bound, None)
    assert first.pipeline.output.name == "join"
    assert [op.name for op in second.pipeline.operators] == [TABLE, "decode", "classify", "write"]
    scan = second.pipeline[TABLE].kernel
    assert isinstance(scan, Scan)
    assert scan.columns == ("id", "jpeg", "offers", "least")
    assert second.pipeline["decode"].inputs == (TABLE,)


@pytest.mark.parametrize(("cut", "says"), [("write", "leaves nothing"), ("jion", "'join'")])
def test_a_wrong_cut_is_one_sentence(bound: BoundWorkload, cut: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        legs(bound, cut)


def test_a_cut_that_leaves_two_ways_across_is_refused(bound: BoundWorkload) -> None:
    operators = list(bound.pipeline.operators)
    operators[3] = Operator(name="scan", kind="filter", kernel=Filter(predicate=col("offers") > 0), inputs=("offers",))
    crossed = replace(bound, workload=replace(bound.workload, pipeline=Pipeline(tuple(operators))))
    with pytest.raises(InputError, match="'scan', which comes later, reads 'offers'"):
        legs(crossed, "wanted")


def test_the_second_leg_may_read_tables_too(bound: BoundWorkload, two_cpus: ClusterSpec, tmp_path: Path) -> None:
    session = load_engine("pair").open(two_cpus, {"first": "duckdb", "second": "polars", "through": "arrow", "cut": "wanted"})
    try:
        session.prepare(bound)
        bound.verify(answer_of(session.run(bound, Recorder(), tmp_path)))
    finally:
        session.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "first"), ({"first": "duckdb"}, "second"), ({"first": "pair", "second": "duckdb"}, "first"),
        ({"first": "duckdb", "second": "duckdb"}, "nothing over"), ({"first": "duckdb", "second": "polar"}, "polars"),
        ({"first": "duckdb", "second": "polars", "through": "kafka"}, "parquet"),
    ],
)  # fmt: skip
def test_a_wrong_pair_is_one_sentence(options: dict[str, Any], says: str, two_cpus: ClusterSpec) -> None:
    with pytest.raises(InputError, match=says):
        load_engine("pair").open(two_cpus, options)


def test_what_an_engine_cannot_run_is_said_before_the_run(data_root: Path, two_cpus: ClusterSpec) -> None:
    bound = load_workload("handoff", scale=0.003, partitions=2).bind(data_root)
    session = load_engine("pair").open(two_cpus, {"first": "polars", "second": "loop", "cut": "offers"})
    try:
        with pytest.raises(Unsupported, match="join"):
            session.prepare(bound)
    finally:
        session.close()


def test_wide_layouts_become_plain() -> None:
    table = pa.table({"a": pa.array(["x"], pa.large_string()), "b": pa.array([b"y"], pa.binary_view()), "c": [1]})
    assert [str(t) for t in plain(table).schema.types] == ["string", "binary", "int64"]
    assert plain(table).to_pylist() == table.to_pylist()
