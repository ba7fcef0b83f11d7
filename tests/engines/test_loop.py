"""The hand-written loop: the rows of an engine with nothing between the kernels, its notes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import answer_of
from windtunnel.errors import Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Operator, Pipeline, Sink
from windtunnel.spec.workload import BoundWorkload

CHAIN = """
schema = 1
name = "chain"
[cluster]
[[cluster.nodes]]
cpus = 2
memory = "4GiB"
[dataset]
rows = 12
row_bytes = "8B"
partitions = 3
[[operators]]
name = "double"
kind = "flat_map"
cost = { per_row = "1ms" }
fixed_work = "sleep"
rows_out = 2.0
row_bytes_out = "16B"
[[operators]]
name = "model"
kind = "map"
cost = { per_row = "1ms" }
fixed_work = "sleep"
state = { kind = "actor", load = "10ms" }
[[engines]]
name = "loop"
"""


@pytest.fixture(scope="module")
def session(two_cpus: ClusterSpec) -> Iterator[Any]:
    """An open loop, once for the module."""
    found = load_engine("loop").open(two_cpus, {})
    yield found
    found.close()


def chain_of_maps(data_root: Path, *, sink: bool) -> BoundWorkload:
    """flights_udf up to its kernel: a scan and a map of real rows."""
    workload = load_workload("flights_udf", scale=0.002, partitions=3)
    end = next(i for i, op in enumerate(workload.pipeline.operators) if op.kind == "map") + 1
    operators = workload.pipeline.operators[:end]
    last = (Operator(name="write", kind="sink", kernel=Sink(), inputs=(operators[-1].name,)),) if sink else ()
    bound: BoundWorkload = replace(workload, pipeline=Pipeline((*operators, *last)), oracle=None).bind(data_root)
    return bound


@pytest.mark.parametrize("sink", [False, True])
def test_it_makes_the_rows_of_an_engine(session: Any, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path, sink: bool) -> None:
    bound = chain_of_maps(data_root, sink=sink)
    tables = []
    streaming = load_engine("streaming").open(two_cpus, {})
    try:
        for number, engine in enumerate((session, streaming)):
            (output := tmp_path / str(number)).mkdir()
            engine.prepare(bound)
            table = answer_of(engine.run(bound, Recorder(), output))
            tables.append(table.sort_by([(name, "ascending") for name in table.schema.names]).to_pylist())
    finally:
        streaming.close()
    assert tables[0] == tables[1] and tables[0]


def test_declared_operators_and_its_notes(session: Any, tmp_path: Path) -> None:
    bound = parse_scenario(CHAIN).workload.bind(tmp_path)
    session.prepare(bound)
    recorder = Recorder()
    assert session.run(bound, recorder, tmp_path).rows == 24
    told = recorder.counters
    assert told["kernel_s:double"] >= 0.012 and told["kernel_s:model"] >= 0.024
    assert told["kernel_s"] == pytest.approx(told["kernel_s:double"] + told["kernel_s:model"])
    assert 1 <= told["loads"] <= 2 and told["kernel_calls"] == 6


@pytest.mark.parametrize("name", ["tpch_q1", "distributed_sort"])
def test_it_refuses_what_needs_an_exchange(session: Any, name: str, data_root: Path) -> None:
    with pytest.raises(Unsupported, match="its processes exchange nothing"):
        session.prepare(load_workload(name, scale=0.001).bind(data_root))
