"""No run beats its bound, however odd the scenario: unequal nodes and devices, free operators, remote data, fractions of CPUs, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document

ENGINES = ("bulk", "streaming", "ray", "spark", "dask", "flink", "mapreduce")
COSTS = {"per_batch": 0.02, "per_row": 0.1, "per_byte": 1e-8}
KINDS = ("map", "flat_map", "filter", "aggregate", "sort", "device", "model")


@st.composite
def operators(draw: Any) -> list[dict[str, Any]]:
    """One to four, some of which take no time at all."""
    made = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS)) if i else "map"
        op: dict[str, Any] = {
            "name": f"op{i}", "kind": "map" if kind in ("device", "model") else kind, "batch_rows": draw(st.sampled_from((0, 1, 7))),
            "cost": {key: draw(st.sampled_from((0.0, value))) for key, value in COSTS.items()},
            "row_bytes_out": draw(st.sampled_from(("0B", "1KB", "1MB"))),
            "resources": {"cpus": draw(st.sampled_from((0.25, 0.5, 1, 1.5, 2)))}, "language": draw(st.sampled_from(("python", "native"))),
        }  # fmt: skip
        if kind in ("flat_map", "filter"):
            op["rows_out"] = 3.0 if kind == "flat_map" else 0.5
        if kind in ("device", "model"):
            op["resources"] = {"cpus": draw(st.sampled_from((0, 0.5))), "gpus": draw(st.sampled_from((0.5, 1)))}
        if kind == "model":
            op |= {"state": {"kind": "actor", "load": draw(st.sampled_from(("0s", "700ms")))}, "concurrency": [1, 3]}
        made.append(op)
    return made


@st.composite
def odd_scenarios(draw: Any) -> dict[str, Any]:
    """Two groups of unlike nodes, with devices of two kinds, and at times data far away, slow disks, or something that breaks."""
    nodes: list[dict[str, Any]] = [
        {"name": "large", "count": draw(st.integers(1, 2)), "cpus": 4, "memory": "32GiB", "nic": "1Gbit/s",
         "gpus": {"kind": "slow", "count": 1, "memory": "4GiB", "speed": 0.5}},
        {"name": "small", "count": draw(st.integers(1, 3)), "cpus": draw(st.sampled_from((1, 2))), "memory": "16GiB",
         "nic": draw(st.sampled_from(("100Mbit/s", "10Gbit/s"))), "gpus": {"kind": "fast", "count": draw(st.integers(0, 2)), "speed": 4.0}},
    ]  # fmt: skip
    if draw(st.booleans()):
        nodes[1]["disk"] = {"kind": "hdd", "drives": draw(st.integers(1, 4)), "read": "100MB/s", "write": "100MB/s"}
    data: dict[str, Any] = {
        "rows": 40, "row_bytes": "1MB", "partitions": draw(st.integers(1, 12)), "skew": draw(st.sampled_from((0.0, 1.0))),
        "location": draw(st.sampled_from(("generated", "local", "remote"))),
    }  # fmt: skip
    if data["location"] == "remote":
        data["remote"] = {"bandwidth_per_node": draw(st.sampled_from(("10MB/s", "1GB/s"))), "latency": "20ms"}
    faults = []
    for kind in draw(
        st.lists(st.sampled_from(("straggler", "worker_killed", "network_slow", "node_lost", "gpu_lost")), max_size=2)
    ):
        target = "large[0]" if kind == "gpu_lost" else "small[0]"
        faults.append({"at": draw(st.integers(1, 60)) / 10, "kind": kind, "target": target, "factor": 3.0})
    return {
        "schema": 1, "name": "odd", "cluster": {"nodes": nodes, "network": {"oversubscription": draw(st.sampled_from((1.0, 3.0)))}},
        "dataset": data, "operators": draw(operators()), "engines": [{"name": draw(st.sampled_from(ENGINES))}], "faults": faults,
    }  # fmt: skip


def check(document: dict[str, Any]) -> None:
    """Run it; nothing is faster than can be, whatever was lost."""
    scenario = from_document(document, "odd.toml")
    assert scenario.workload is not None
    engine = document["engines"][0]["name"]
    options = {"checkpoint_s": 2.0} if engine == "flink" else {}
    recorder = Recorder()
    session = load_engine(f"sim:{engine}").open(scenario.cluster, {**options, "overheads": {"startup_s": 0.0}})
    why = ""
    try:
        session.run(scenario.workload.bind(Path(".")), recorder, Path("."))
    except (RunFailed, OutOfMemory) as error:
        why = str(error)
    if why:
        assert "model stopped" not in why, why
        assert document["faults"] or "memory" in why or "no room for one actor" in why, why
        return
    counters = recorder.counters
    assert counters["makespan_s"] >= counters["lower_bound_s"] * (1 - 1e-9), counters


@given(odd_scenarios())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_odd_run_beats_its_bound(document: dict[str, Any]) -> None:
    check(document)


@pytest.mark.slow
@given(odd_scenarios())
@settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_odd_run_beats_its_bound_in_thousands(document: dict[str, Any]) -> None:
    check(document)
