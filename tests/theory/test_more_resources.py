"""More resources are never slower by more than a stated anomaly.

List scheduling has anomalies: with more machines, or faster ones, a job of dependent tasks may take up to twice as long (Graham,
"Bounds on multiprocessing timing anomalies", 1969). Whoever spreads work over more nodes moves bytes besides: four actors on four nodes
read what is made beside them, on eight half of it comes over the network. So the anomaly is stated as: at most twice as long, and the
bytes that crossed the network at the pace of one link.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document

#: what would follow the size of the cluster is held fixed: tasks after a shuffle, subtasks
OPTIONS: dict[str, dict[str, Any]] = {
    "bulk": {"partitions": 8}, "streaming": {"partitions": 8}, "ray": {"partitions": 8}, "dask": {"partitions": 8},
    "spark": {"shuffle_partitions": 8}, "mapreduce": {"shuffle_partitions": 8}, "flink": {"parallelism": 2},
}  # fmt: skip
LINKS = {"1Gbit/s": 125e6, "10Gbit/s": 1.25e9}
KINDS = ("map", "flat_map", "sort", "device", "model")


@st.composite
def clusters_and_jobs(draw: Any) -> tuple[dict[str, Any], str, str]:
    """A scenario, an engine and what there will be more of."""
    operators = []
    for i in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS)) if i else "map"
        op: dict[str, Any] = {
            "name": f"op{i}", "kind": "map" if kind in ("device", "model") else kind, "batch_rows": draw(st.sampled_from((0, 1, 3))),
            "cost": {"per_row": draw(st.sampled_from((0.01, 0.1, 0.5)))}, "row_bytes_out": draw(st.sampled_from(("1KB", "1MB", "20MB"))),
            "resources": {"cpus": draw(st.sampled_from((1, 0.99)))},
        }  # fmt: skip
        if kind == "flat_map":
            op["rows_out"] = 3.0
        if kind == "device":
            op["resources"] = {"cpus": 0, "gpus": 1}
        if kind == "model":
            op |= {"state": {"kind": "actor", "load": "500ms"}, "concurrency": draw(st.sampled_from(([1, 4], [2, 2], [4, 4])))}
        operators.append(op)
    node = {
        "count": draw(st.sampled_from((1, 2, 4))), "cpus": draw(st.sampled_from((4, 8))), "memory": "64GiB", "gpus": {"count": 1},
        "nic": draw(st.sampled_from(sorted(LINKS))),
    }  # fmt: skip
    data = {"rows": draw(st.sampled_from((20, 60))), "row_bytes": "1MB", "partitions": draw(st.sampled_from((4, 12, 20)))}
    document = {
        "schema": 1, "name": "more", "cluster": {"nodes": [node]}, "dataset": data, "operators": operators, "engines": [{"name": "bulk"}],
    }  # fmt: skip
    return document, draw(st.sampled_from(sorted(OPTIONS))), draw(st.sampled_from(("count", "cpus", "nic", "memory")))


def more(document: dict[str, Any], what: str) -> dict[str, Any]:
    """The same with twice as much of something."""
    changed = copy.deepcopy(document)
    node = changed["cluster"]["nodes"][0]
    if what in ("count", "cpus"):
        node[what] *= 2
    else:
        node[what] = {"nic": "100Gbit/s", "memory": "128GiB"}[what]
    return changed


def simulate(document: dict[str, Any], engine: str) -> dict[str, Any] | None:
    """Counters of a run; None where it ends otherwise."""
    scenario = from_document(document, "more.toml")
    assert scenario.workload is not None
    recorder = Recorder()
    session = load_engine(f"sim:{engine}").open(scenario.cluster, {**OPTIONS[engine], "overheads": {"startup_s": 0.0}})
    try:
        session.run(scenario.workload.bind(Path(".")), recorder, Path("."))
    except (RunFailed, OutOfMemory):
        return None
    return recorder.counters


def check(case: tuple[dict[str, Any], str, str]) -> None:
    """The stated anomaly holds, and what ran runs with more too."""
    document, engine, what = case
    less = simulate(document, engine)
    if less is None:
        return
    larger = simulate(more(document, what), engine)
    assert larger is not None, f"{engine} ends with more {what}"
    link = LINKS[document["cluster"]["nodes"][0]["nic"]]
    assert larger["makespan_s"] <= 2.0 * less["makespan_s"] + larger.get("bytes_network", 0) / link


@given(clusters_and_jobs())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_more_is_never_slower_by_more_than_the_anomaly(case: tuple[dict[str, Any], str, str]) -> None:
    check(case)


@pytest.mark.slow
@given(clusters_and_jobs())
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_more_is_never_slower_by_more_than_the_anomaly_in_thousands(case: tuple[dict[str, Any], str, str]) -> None:
    check(case)
