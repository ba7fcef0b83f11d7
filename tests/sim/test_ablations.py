"""Each mechanism of the streaming model switched off in the shipped scenario: the effect that its page tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document, read_document

FILE = Path(__file__).parents[2] / "docs" / "ablations.toml"
GIB = 2**30


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Counters by label, on half of the files."""
    document = read_document(FILE)
    document["dataset"] |= {"rows": 120, "partitions": 40}
    scenario = from_document(document, str(FILE))
    bound = scenario.workload.bind(tmp_path_factory.mktemp("data"))
    found = {}
    for choice in scenario.engines:
        session = load_engine(f"sim:{choice.name}").open(scenario.cluster, {**choice.options, "seed": scenario.seed})
        session.prepare(bound)
        recorder = Recorder()
        assert session.run(bound, recorder, Path()).rows == 2400
        found[choice.label] = recorder.counters
    return found


def test_without_backpressure_memory_grows(counters: dict[str, dict[str, Any]]) -> None:
    free, held = counters["no backpressure"], counters["streaming"]
    assert free["peak_memory_bytes"] > 1.1 * held["peak_memory_bytes"]
    assert free["makespan_s"] == pytest.approx(held["makespan_s"], rel=0.05), "the device is the bottleneck either way"


@pytest.mark.parametrize("label", ["no block splitting", "pickled blocks"])
def test_what_costs_time(counters: dict[str, dict[str, Any]], label: str) -> None:
    assert counters[label]["makespan_s"] > 1.02 * counters["streaming"]["makespan_s"]


def test_unsplit_and_materialised_output_takes_memory(counters: dict[str, dict[str, Any]]) -> None:
    for label in ("no block splitting", "materialised stages"):
        assert counters[label]["peak_memory_bytes"] > 1.5 * counters["streaming"]["peak_memory_bytes"]
    assert counters["materialised stages"]["makespan_s"] > 1.5 * counters["streaming"]["makespan_s"]
