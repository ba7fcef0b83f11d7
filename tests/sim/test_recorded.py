"""Recorded jobs in the simulator: hand-computable logs replay without error, and tasks in scenarios obey what they wait for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.logs import writers
from windtunnel.commands.replay import replay as command
from windtunnel.errors import InputError
from windtunnel.logs.reading import read_graph
from windtunnel.scenario.reading import from_document
from windtunnel.sim.recorded.replay import replay


def spark(tmp_path: Path, **sizes: Any) -> Path:
    path = tmp_path / "log"
    path.write_bytes(writers.spark_log(**sizes))
    return path


def test_a_spark_job_replays_as_it_was(tmp_path: Path) -> None:
    """Three stages of two waves of a second on two cores, half a second of the driver before each."""
    result = replay(read_graph(spark(tmp_path, stages=3, tasks=4, cores=2, seconds=1.0, gap_s=0.5)))
    assert result.recorded_s == 7.5
    assert result.replayed_s == pytest.approx(7.5)
    (part,) = result.parts
    assert part.replayed == pytest.approx((0.5, 7.5))


@settings(max_examples=25, deadline=None)
@given(stages=st.integers(1, 4), tasks=st.integers(1, 9), cores=st.integers(1, 4), gap=st.sampled_from([0.0, 0.25, 2.0]))
def test_chains_of_stages_replay_in_closed_form(
    tmp_path_factory: pytest.TempPathFactory, stages: int, tasks: int, cores: int, gap: float
) -> None:
    path = spark(tmp_path_factory.mktemp("job"), stages=stages, tasks=tasks, cores=cores, seconds=1.0, gap_s=gap)
    assert replay(read_graph(path)).replayed_s == pytest.approx(stages * (gap + -(-tasks // cores)))


def scenario(*tasks: dict[str, Any]) -> dict[str, Any]:
    nodes = [{"cpus": 4, "memory": "8GiB"}]
    return {
        "schema": 1, "name": "tasks", "cluster": {"nodes": nodes}, "tasks": list(tasks), "engines": [{"name": "bulk"}],
    }  # fmt: skip


def test_tasks_of_a_scenario_wait_for_what_they_read() -> None:
    document = scenario(
        {"name": "a", "seconds": "1s"},
        {"name": "b", "count": 2, "seconds": ["2s", "4s"], "reads": ["a"]},
        {"name": "c", "seconds": "1s", "after": ["b"], "gap": "3s"},
    )
    graph = from_document(document, "scenario.toml").workload.graph
    assert graph is not None
    assert [[(i.group, i.mode) for i in g.inputs] for g in graph.groups] == [[], [(0, "all")], [(1, "order")]]
    with pytest.raises(InputError, match="not when they ran"):
        replay(graph)
    result = replay(replace(graph, timed=True))  # a single slot: one task after the other, and the driver's time before the last
    assert result.replayed_s == pytest.approx(1 + 2 + 4 + 3 + 1)


def test_tasks_that_name_no_earlier_group_end_in_a_sentence() -> None:
    with pytest.raises(InputError, match="no earlier group"):
        from_document(scenario({"name": "a", "seconds": "1s", "reads": ["b"]}, {"name": "b", "seconds": "1s"}), "scenario.toml")


@pytest.mark.parametrize(
    ("reads", "parts", "sentence"),
    [
        (["a"], {"b": [[0]]}, "reads does not name"),
        ([], {"a": [[0]]}, "reads does not name"),
        (["a"], {"a": [[2]]}, "numbers from 0 to 1"),
        (["a"], {"a": [[0], [1]]}, "1 lists"),
    ],
)
def test_parts_of_what_is_not_there_end_in_a_sentence(reads: list[str], parts: dict[str, Any], sentence: str) -> None:
    tasks = {"name": "a", "count": 2, "seconds": "1s"}, {"name": "c", "seconds": "1s", "reads": reads, "parts": parts}
    with pytest.raises(InputError, match=sentence):
        from_document(scenario(*tasks), "scenario.toml")


def test_a_task_waits_for_just_the_parts_that_it_reads() -> None:
    """Task 0 of b reads task 1 of a, and the other way round: edges of the graph, child first."""
    a = {"name": "a", "count": 2, "seconds": ["2s", "4s"]}
    b = {"name": "b", "count": 2, "seconds": "1s", "reads": ["a"], "parts": {"a": [[1], [0]]}}
    graph = from_document(scenario(a, b), "scenario.toml").workload.graph
    assert graph is not None and sorted(map(tuple, graph.edges.tolist())) == [(2, 1), (3, 0)]


def test_the_command_tells_the_error(tmp_path: Path) -> None:
    path = spark(tmp_path, stages=2, tasks=3, cores=2, seconds=1.0, gap_s=0.5)
    told = CliRunner().invoke(command, [str(path), "--json"], standalone_mode=False)
    (job,) = json.loads(told.stdout)["replayed"]
    assert job["recorded_s"] == 5.0
    assert abs(job["error"]) < 1e-6
    assert [p["tasks"] for p in job["parts"]] == [6]
