"""Every ETL workload on every engine present: verified answers, declared gaps, one way to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import ETL, REAL, answer, answer_of, marks
from windtunnel.errors import RunFailed, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Aggregate, MapBatches, Measure, Operator, Pipeline
from windtunnel.spec.workload import Workload

SHUFFLES = ("skewed_groupby", "sessionization", "flights_udf")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in REAL])
def session(request: pytest.FixtureRequest, two_cpus: ClusterSpec) -> Iterator[Any]:
    """An open engine, once for the module."""
    found = load_engine(request.param).open(two_cpus, {})
    yield found
    found.close()


@pytest.mark.parametrize("name", ETL)
def test_answers_are_verified(session: Any, name: str, data_root: Path, tmp_path: Path) -> None:
    answer(session, load_workload(name, scale=0.01), data_root, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ETL)
def test_answers_are_verified_at_scale_0_1(session: Any, name: str, data_root: Path, tmp_path: Path) -> None:
    answer(session, load_workload(name, scale=0.1), data_root, tmp_path)


@pytest.mark.parametrize("format", ["csv", "json", "orc"])
@pytest.mark.parametrize("name", SHUFFLES)
def test_every_format_is_read(session: Any, name: str, format: str, data_root: Path, tmp_path: Path) -> None:
    answer(session, load_workload(name, scale=0.002, format=format), data_root, tmp_path)


@pytest.mark.parametrize("name", ["tpch_q12", "distributed_sort", "skewed_groupby"])
def test_one_partition_is_enough(session: Any, name: str, data_root: Path, tmp_path: Path) -> None:
    answer(session, load_workload(name, scale=0.002, partitions=1), data_root, tmp_path)


def test_a_second_run_gives_the_same_answer(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = load_workload("tpch_q12", scale=0.01).bind(data_root)
    session.prepare(bound)
    for number in range(3):
        output = tmp_path / str(number)
        output.mkdir()
        bound.verify(session.run(bound, Recorder(), output).table)


def test_a_failing_kernel_names_operator_and_line(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = _with_kernel("tests.conformance.kernels:explode").bind(data_root)
    session.prepare(bound)
    with pytest.raises(RunFailed) as failure:
        session.run(bound, Recorder(), tmp_path)
    text = str(failure.value)
    assert failure.value.operator == "clean"
    assert "ValueError: no such carrier: 3" in text
    assert "kernels.py" in text
    assert "raise ValueError" in text
    assert "\n" not in text


def test_a_session_survives_a_failure(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = _with_kernel("tests.conformance.kernels:explode").bind(data_root)
    session.prepare(bound)
    with pytest.raises(RunFailed):
        session.run(bound, Recorder(), tmp_path)
    (tmp_path / "again").mkdir()
    answer(session, load_workload("flights_udf", scale=0.002), data_root, tmp_path / "again")


def test_a_kernel_may_change_the_number_of_rows(session: Any, data_root: Path, tmp_path: Path) -> None:
    """Rows that vanish and rows that become two, counted by an aggregate behind them."""
    import numpy as np
    import pyarrow.parquet as pq

    workload = load_workload("flights_udf", scale=0.002)
    kernel = MapBatches(function="tests.conformance.kernels:repeat", schema=(("distance", "int64"), ("kind", "string")))
    count = (Measure(name="n", function="count"), Measure(name="miles", function="sum", column="distance"))
    operators = (
        workload.pipeline["scan"],
        Operator(name="repeat", kind="flat_map", kernel=kernel, inputs=("scan",), batch_rows=1000, language="python"),
        Operator(name="count", kind="aggregate", kernel=Aggregate(keys=("kind",), measures=count), inputs=("repeat",)),
    )
    bound = replace(workload, pipeline=Pipeline(operators), oracle=None).bind(data_root)
    session.prepare(bound)
    table = answer_of(session.run(bound, Recorder(), tmp_path))
    distance = np.concatenate([pq.read_table(p)["distance"].to_numpy() for p in bound.table("flights").paths])
    expected = {f"d{k}": (k * int((distance % 3 == k).sum()), k * int(distance[distance % 3 == k].sum())) for k in (1, 2)}
    found = zip(table["kind"].to_pylist(), table["n"].to_pylist(), table["miles"].to_pylist(), strict=True)
    assert {kind: (n, miles) for kind, n, miles in found} == expected


def _with_kernel(function: str) -> Workload:
    """flights_udf with another kernel."""
    workload: Workload = load_workload("flights_udf", scale=0.002)
    changed = []
    for op in workload.pipeline.operators:
        if isinstance(op.kernel, MapBatches):
            op = replace(op, kernel=replace(op.kernel, function=function, params=(("threshold", 3),)))
        changed.append(op)
    return replace(workload, pipeline=Pipeline(tuple(changed)))


def test_declared_costs_run_or_are_a_declared_gap(session: Any, data_root: Path, tmp_path: Path) -> None:
    gaps = getattr(session, "_capabilities", load_engine("bulk").capabilities).gaps
    bound = _declared(exchange="declared aggregate" not in gaps).bind(data_root)
    if "declared" in gaps:
        with pytest.raises(Unsupported, match="declared by cost"):
            session.prepare(bound)
        return
    answer = answer_of(run(session, bound, tmp_path))
    assert answer.num_rows == 40 and answer.schema.names == ["payload"]
    assert {len(value) for value in answer["payload"].to_pylist()} == {64}


def run(session: Any, bound: Any, output: Path) -> Any:
    """Prepare and run; a stateful operator is loaded by somebody."""
    recorder = Recorder()
    session.prepare(bound)
    outcome = session.run(bound, recorder, output)
    assert recorder.counters["loads"] >= 1
    return outcome


DECLARED = """
schema = 1
name = "declared"
[cluster]
[[cluster.nodes]]
cpus = 2
memory = "4GiB"
[dataset]
rows = 20
row_bytes = "8B"
partitions = 4
[[operators]]
name = "double"
kind = "flat_map"
batch_rows = 1
cost = { per_batch = "1ms" }
fixed_work = "sleep"
rows_out = 2.0
row_bytes_out = "32B"
[[operators]]
name = "exchange"
kind = "aggregate"
cost = { per_row = "10us" }
row_bytes_out = "64B"
[[operators]]
name = "model"
kind = "map"
batch_rows = 4
cost = { per_batch = "1ms" }
fixed_work = "sleep"
state = { kind = "actor", load = "20ms", memory = "1MB" }
concurrency = 1
resources = { cpus = 0.5 }
[[engines]]
name = "bulk"
"""


def _declared(*, exchange: bool) -> Workload:
    workload = parse_scenario(DECLARED if exchange else DECLARED.replace('"aggregate"', '"map"')).workload
    assert workload is not None
    return workload
