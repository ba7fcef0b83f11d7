"""Whatever goes wrong, the output is complete and counted once, or the run says why not; books close, and no bound is beaten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document

ENGINES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("bulk", {}), ("streaming", {}), ("ray", {}), ("spark", {}), ("dask", {}), ("flink", {}), ("mapreduce", {}),
    ("flink", {"checkpoint_s": 1.5, "min_pause_s": 0.5, "state_bytes": 100_000_000}),
    ("spark", {"speculation": True, "speculation_quantile": 0.5, "speculation_multiplier": 1.2}),
    ("dask", {"memory_pause": 0.042, "memory_terminate": 0.047}),
)  # fmt: skip
FAULTS = ("node_lost", "node_joins", "worker_killed", "straggler", "gpu_lost", "network_slow")


@st.composite
def faults(draw: Any, nodes: int) -> list[dict[str, Any]]:
    """A few faults; node 0 keeps its CPUs, so that the job can end."""
    made: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(FAULTS))
        node = draw(st.integers(0, nodes - 1)) if kind not in ("node_lost", "node_joins") else draw(st.integers(1, nodes))
        if kind == "node_lost":
            node = min(node, nodes - 1)
        at = draw(st.integers(1, 120)) / 10
        fault = {"at": at, "kind": kind, "target": f"worker[{node}]", "factor": draw(st.floats(1.0, 8.0))}
        if draw(st.booleans()):
            fault["until"] = at + draw(st.floats(0.1, 20.0))
        made.append(fault)
    return made


@st.composite
def scenarios(draw: Any) -> dict[str, Any]:
    """A pipeline of two to four operators, with an exchange or a device stage at times, on two to four nodes."""
    nodes = draw(st.integers(2, 4))
    operators = [operator("first", "map", draw)]
    for i in range(draw(st.integers(1, 3))):
        operators.append(operator(f"op{i}", draw(st.sampled_from(("map", "flat_map", "aggregate", "sort", "device"))), draw))
    return {
        "schema": 1, "name": "random", "seed": draw(st.integers(0, 99)),
        "cluster": {"nodes": [{"count": nodes, "cpus": 2, "memory": "8GiB", "gpus": {"count": 1}, "nic": "1Gbit/s"}]},
        "dataset": {"rows": 40, "row_bytes": "1MB", "partitions": draw(st.integers(1, 12))},
        "operators": operators, "engines": [{"name": "bulk"}], "faults": draw(faults(nodes)),
    }  # fmt: skip


def operator(name: str, kind: str, draw: Any) -> dict[str, Any]:
    """An operator with whole numbers of rows out."""
    made: dict[str, Any] = {
        "name": name, "kind": "map" if kind == "device" else kind, "batch_rows": draw(st.sampled_from((0, 1, 3))),
        "cost": {"per_row": draw(st.sampled_from((0.05, 0.3, 0.6))), "cv": draw(st.sampled_from((0.0, 0.5)))}, "row_bytes_out": "1MB",
        "resources": {"cpus": draw(st.sampled_from((1, 0.99)))},
    }  # fmt: skip
    if kind == "flat_map":
        made["rows_out"] = 3.0
    if kind == "device":
        made["resources"] = {"cpus": 0, "gpus": 1}
        if draw(st.booleans()):
            made |= {"state": {"kind": "actor", "load": "500ms"}, "concurrency": [1, 2]}
    return made


def expected(document: dict[str, Any]) -> int:
    rows = 40
    for op in document["operators"]:
        rows *= int(op.get("rows_out", 1))
    return rows


def _operator(name: str, resources: dict[str, float]) -> dict[str, Any]:
    cost = {"per_row": 0.05, "cv": 0.0}
    return {"name": name, "kind": "map", "batch_rows": 0, "cost": cost, "row_bytes_out": "1MB", "resources": resources}


#: a reducer's only input is lost while it runs, and made again on another node
LOST_INPUT = {
    "schema": 1, "name": "lost input", "seed": 0,
    "cluster": {"nodes": [{"count": 2, "cpus": 2, "memory": "8GiB", "gpus": {"count": 1}, "nic": "1Gbit/s"}]},
    "dataset": {"rows": 40, "row_bytes": "1MB", "partitions": 1},
    "operators": [_operator("a", {"cpus": 1}), _operator("b", {"cpus": 0, "gpus": 1}), _operator("c", {"cpus": 1})],
    "engines": [{"name": "bulk"}],
    "faults": [
        {"at": 0.1, "kind": "worker_killed", "target": "worker[0]", "factor": 1.0},
        {"at": 2.4, "kind": "node_lost", "target": "worker[1]", "factor": 1.0},
    ],
}  # fmt: skip
#: a map output of the first job is lost while the reducers of the second may begin: what must run again goes before them
LOST_BEFORE_REDUCERS = {
    **LOST_INPUT, "name": "lost before reducers", "dataset": {"rows": 40, "row_bytes": "1MB", "partitions": 3},
    "operators": [_operator("a", {"cpus": 1}), {**_operator("b", {"cpus": 1}), "kind": "aggregate"}, _operator("c", {"cpus": 0.99})],
    "faults": [{"at": 1.9, "kind": "node_lost", "target": "worker[1]", "factor": 1.0, "until": 2.9}],
}  # fmt: skip


@pytest.mark.parametrize(("engine", "options"), ENGINES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=scenarios())
@example(document=LOST_INPUT)
@example(document=LOST_BEFORE_REDUCERS)
def test_output_is_complete_and_counted_once(engine: str, options: dict[str, Any], document: dict[str, Any]) -> None:
    scenario = from_document(document, "random.toml")
    assert scenario.workload is not None
    bound = scenario.workload.bind(Path("."))
    recorder = Recorder()
    session = load_engine(f"sim:{engine}").open(
        scenario.cluster, {"seed": scenario.seed, "overheads": {"startup_s": 0.0}, **options}
    )
    session.prepare(bound)
    why = ""
    try:
        outcome = session.run(bound, recorder, Path("."))
    except (RunFailed, OutOfMemory) as error:
        why = str(error)
    if "memory_terminate" in options and ("ran out of memory" in why or "4 times" in why):
        return
    if why:
        assert "model stopped" not in why, why
        assert loses(document) or "no room" in why, f"a run without losses failed: {why}"
        return
    assert outcome.rows == expected(document)
    if not any(f["kind"] in ("node_lost", "gpu_lost") for f in document["faults"]):
        assert recorder.counters["makespan_s"] >= recorder.counters["lower_bound_s"] * (1 - 1e-9) or varies(document)
    world = session.world
    results = sum(b.bytes for b in world._blocks if b is not None and not b.on_disk and b.stage == len(world._stages) - 1)
    assert world.stored_bytes >= 0
    for machine in world._machines:
        assert machine.memory.used >= 0 and machine.store.used >= 0
    assert results <= sum(m.memory.used for m in world._machines) + 1


def loses(document: dict[str, Any]) -> bool:
    """Whether a fault takes something that a job may need for ever."""
    return any(f["kind"] in ("node_lost", "gpu_lost", "worker_killed", "node_joins") for f in document["faults"])


def varies(document: dict[str, Any]) -> bool:
    return any(op["cost"]["cv"] for op in document["operators"])


def test_nodes_that_join_are_room_for_work() -> None:
    document = {
        "schema": 1, "name": "join", "cluster": {"nodes": [{"count": 1, "cpus": 1, "memory": "8GiB"}]},
        "dataset": {"rows": 20, "row_bytes": "8B", "partitions": 20},
        "operators": [{"name": "work", "kind": "map", "batch_rows": 1, "cost": {"per_row": "1s"}}],
        "engines": [{"name": "bulk"}], "faults": [{"at": "10s", "kind": "node_joins", "target": "worker[1]"}],
    }  # fmt: skip
    scenario = from_document(document, "join.toml")
    assert scenario.workload is not None and scenario.cluster.expanded().cpus == 2
    bound = scenario.workload.bind(Path("."))
    recorder = Recorder()
    session = load_engine("sim:bulk").open(scenario.cluster, {})
    session.run(bound, recorder, Path("."))
    assert 15.0 <= recorder.counters["makespan_s"] <= 16.1  # ten seconds alone, five together, and one task's rest


def short_of_memory(memory: str, options: dict[str, Any], rows: int = 6, ample: int = 0) -> tuple[int, dict[str, float]]:
    """Dask: tasks of a second that work with 300 MB, of a megabyte of output, on one node of four CPUs; rows and counters.

    ``ample``: nodes beside it that have memory for everything.
    """
    nodes = [{"name": "short", "count": 1, "cpus": 4, "memory": memory}]
    nodes += [{"name": "ample", "count": ample, "cpus": 4, "memory": "8GB"}] if ample else []
    document = {
        "schema": 1, "name": "memory", "cluster": {"nodes": nodes},
        "dataset": {"rows": rows, "row_bytes": "1MB", "partitions": rows},
        "operators": [
            {"name": "work", "kind": "map", "batch_rows": 1, "cost": {"per_row": "1s"}, "resources": {"cpus": 1}, "memory": "300MB"},
            {"name": "next", "kind": "aggregate", "rows_out": 1.0, "row_bytes_out": "1MB", "cost": {"per_row": "1ms"}},
        ],
        "engines": [{"name": "dask"}],
    }  # fmt: skip
    scenario = from_document(document, "memory.toml")
    assert scenario.workload is not None
    recorder = Recorder()
    names = ("startup_s", "launch_s", "done_s", "task_s", "worker_memory_bytes", "fetch_bytes_per_s")
    session = load_engine("sim:dask").open(scenario.cluster, {**options, "overheads": dict.fromkeys(names, 0)})
    outcome = session.run(scenario.workload.bind(Path(".")), recorder, Path("."))
    return outcome.rows, recorder.counters


def test_a_dask_worker_pauses_and_is_killed_by_its_memory_by_hand() -> None:
    # Three tasks fit below 80 % of a gigabyte when they begin; the fourth waits until one has ended and the monitor has looked.
    rows, counters = short_of_memory("1GB", {})
    assert rows == 6 and counters["pauses"] == 1 and "workers_terminated" not in counters
    assert counters["makespan_s"] == pytest.approx(2.1, abs=0.1)
    # With memory for all of them it takes as many rounds, and none waits.
    rows, counters = short_of_memory("8GB", {})
    assert rows == 6 and "pauses" not in counters
    # Where nobody pauses, four are too many: they are begun four times, and that is the end.
    with pytest.raises(RunFailed, match="its worker died 4 times"):
        short_of_memory("1GB", {"memory_pause": 0.0})
    with pytest.raises(OutOfMemory):
        short_of_memory("1GB", {"memory_pause": 0.0, "memory_terminate": 0.0})
    with pytest.raises(RunFailed, match="its worker died 4 times"):  # one alone is too large
        short_of_memory("200MB", {})


def test_what_a_killed_dask_worker_kept_is_made_again_by_hand() -> None:
    # Four tasks fit beside their own output, but not beside that of four others: when the second round begins, the node loses its first
    # results and what it runs. Of these eight tasks four begin there anew, and four more on both nodes; one gathers the results.
    rows, counters = short_of_memory("1207MB", {"memory_pause": 0.0, "memory_terminate": 1.0}, rows=16, ample=1)
    assert rows == 16 and counters["workers_terminated"] == 1 and counters["tasks"] == 16 + 4 + 1
    assert counters["makespan_s"] == pytest.approx(3.0, abs=0.05)


def losing(engine: str, options: dict[str, Any], fault: dict[str, Any], nodes: int = 2) -> Recorder:
    """Ten tasks of a second each on nodes of one CPU, with one fault."""
    document = {
        "schema": 1, "name": "loss", "cluster": {"nodes": [{"count": nodes, "cpus": 1, "memory": "8GiB"}]},
        "dataset": {"rows": 10, "row_bytes": "8B", "partitions": 10},
        "operators": [{"name": "work", "kind": "map", "batch_rows": 1, "cost": {"per_row": "1s"}}],
        "engines": [{"name": engine}], "faults": [fault],
    }  # fmt: skip
    scenario = from_document(document, "loss.toml")
    assert scenario.workload is not None
    recorder = Recorder()
    free = {"startup_s": 0.0, "actor_start_s": 0.0, "worker_start_s": 0.0, **options.pop("overheads", {})}
    outcome = (
        load_engine(f"sim:{engine}")
        .open(scenario.cluster, {**options, "overheads": free})
        .run(scenario.workload.bind(Path(".")), recorder, Path("."))
    )
    assert outcome.rows == 10
    return recorder


def test_a_lost_node_costs_what_it_was_doing_by_hand() -> None:
    lost = {"at": "3500ms", "kind": "node_lost", "target": "worker[1]"}
    recorder = losing("bulk", {"prefetch": False}, lost)
    # 3 + 3 tasks in three seconds; at 3.5 s one is lost half done; the neighbour ends its own at 4 s and does three more.
    # The results that lay on the lost node are with whoever asked for them.
    assert recorder.counters["makespan_s"] == pytest.approx(7.0, abs=0.05)
    assert recorder.counters["nodes_lost"] == 1


def test_flink_starts_again_from_its_last_checkpoint() -> None:
    killed = {"at": "4500ms", "kind": "worker_killed", "target": "worker[1]"}
    with pytest.raises(RunFailed, match="without checkpoints"):
        losing("flink", {}, killed)
    whole = losing("flink", {"restart": True}, killed).counters
    half = losing("flink", {"checkpoint_s": 2.0}, killed).counters
    assert whole["makespan_s"] > half["makespan_s"] + 2.0  # eight tasks are done again, or those of the last half second
    assert whole["tasks"] > half["tasks"] >= 10


def test_a_checkpoint_counts_when_its_state_is_written_by_hand() -> None:
    """Checkpoints at 2.2 and 4.4 s write 1.25 GB a node in a second; the second of them is not done when a worker dies."""
    killed = {"at": "4500ms", "kind": "worker_killed", "target": "worker[1]"}
    free = dict.fromkeys(("task_s", "launch_s", "done_s"), 0.0)
    light = losing("flink", {"checkpoint_s": 2.2, "overheads": free}, killed).counters
    heavy = losing("flink", {"checkpoint_s": 2.2, "state_bytes": 2_500_000_000, "overheads": free}, killed).counters
    # Eight tasks ended by then; none of them is done again where nothing has to be written. The dead worker's waits behind the other's.
    assert light["makespan_s"] == pytest.approx(6.0, abs=0.05) and light["tasks"] == 10
    # Else four ended after the first checkpoint. Its state is back at 5.5 s, and five tasks are left for two workers.
    assert heavy["makespan_s"] == pytest.approx(8.5, abs=0.05) and heavy["tasks"] == 14
    assert (heavy["bytes_checkpointed"], heavy["bytes_restored"]) == (5e9 + 2.5e9, 2.5e9)
    # A pause of two seconds moves the second checkpoint, begun after 3.2 s, past the loss.
    rested = losing(
        "flink", {"checkpoint_s": 2.2, "min_pause_s": 2, "state_bytes": 2_500_000_000, "overheads": free}, killed
    ).counters
    assert rested["bytes_checkpointed"] == heavy["bytes_checkpointed"] - 2.5e9


def test_a_copy_of_a_slow_task_ends_before_it_by_hand() -> None:
    slow = {"at": 0.5, "kind": "straggler", "target": "worker[1]", "factor": 20.0}
    free = {"task_s": 0.0, "launch_s": 0.0, "done_s": 0.0}
    alone = losing("spark", {"overheads": free}, slow, nodes=3).counters
    assert alone["makespan_s"] == pytest.approx(21.0, abs=0.05)  # its second task is slow
    # Nine tasks are done after four seconds. The tenth, which began after one, has then taken as long as three of them: at the next
    # tick it gets a copy, which takes a second.
    copied = losing("spark", {"overheads": free, "speculation": True}, slow, nodes=3).counters
    assert copied["makespan_s"] == pytest.approx(5.15, abs=0.1)
    assert copied["tasks_cancelled"] == 1 and copied["tasks"] == 10
    patient = {"overheads": free, "speculation": True, "speculation_multiplier": 5.5}
    assert losing("spark", patient, slow, nodes=3).counters["makespan_s"] == pytest.approx(7.65, abs=0.1)
    never = {"overheads": free, "speculation": True, "speculation_quantile": 1.0}
    assert losing("spark", never, slow, nodes=3).counters["makespan_s"] == pytest.approx(21.0, abs=0.05)
