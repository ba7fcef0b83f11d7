"""Mechanisms of the modelled engines, one by one, on jobs whose times can be worked out by hand. Other overheads are zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.engines.models.slowstart import most_reducers
from windtunnel.errors import InputError, OutOfMemory
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document

LOAD = {"name": "load", "kind": "map", "batch_rows": 1, "cost": {"per_batch": "1s"}, "row_bytes_out": "1MB"}
INFER = {
    "name": "infer", "kind": "map", "batch_rows": 1, "cost": {"per_batch": "1s"}, "row_bytes_out": "8B",
    "resources": {"cpus": 0, "gpus": 1},
}  # fmt: skip


def simulate(
    engine: str,
    operators: list[dict[str, Any]],
    *,
    rows: int = 4,
    node: dict[str, Any] | None = None,
    overheads: dict[str, float] | None = None,
    expected: int = 0,
    **options: Any,
) -> dict[str, float]:
    """Counters of a run on nodes of 2 CPUs and a device unless ``node`` says otherwise; one row of 1 MB a partition."""
    document = {
        "schema": 1, "name": "by hand",
        "cluster": {"nodes": [{"count": 1, "cpus": 2, "memory": "16GiB", "gpus": {"count": 1, "memory": "0B"}, **(node or {})}]},
        "dataset": {"rows": rows, "row_bytes": "1MB", "partitions": rows},
        "operators": operators, "engines": [{"name": engine}],
    }  # fmt: skip
    scenario = from_document(document, "by hand.toml")
    assert scenario.workload is not None
    bound, recorder = scenario.workload.bind(Path(".")), Recorder()
    free = {c.name: 0.0 for c in ENTRIES[engine].traits.constants}
    options = {**({"limits_s": 0.0} if engine == "ray" else {}), **options}
    session = load_engine(f"sim:{engine}").open(scenario.cluster, {**options, "overheads": {**free, **(overheads or {})}})
    session.prepare(bound)
    assert session.run(bound, recorder, Path(".")).rows == (expected or rows)
    return dict(recorder.counters)


def seconds(engine: str, operators: list[dict[str, Any]], **more: Any) -> float:
    return simulate(engine, operators, **more)["makespan_s"]


NEAR = 0.05


@pytest.mark.parametrize("engine", ["ray", "dask", "flink"])
def test_streams_overlap_their_stages(engine: str) -> None:
    """Two CPUs load four rows in two seconds; the device begins after one and takes four."""
    assert seconds(engine, [LOAD, INFER]) == pytest.approx(5.0, abs=NEAR)


@pytest.mark.parametrize("engine", ["bulk", "spark", "mapreduce"])
def test_stages_with_barriers_do_not(engine: str) -> None:
    assert seconds(engine, [LOAD, INFER]) == pytest.approx(6.0, abs=NEAR)


def test_ray_materialised_is_staged() -> None:
    assert seconds("ray", [LOAD, INFER], materialize=True) == pytest.approx(6.0, abs=NEAR)


def test_ray_offers_what_it_was_given() -> None:
    assert seconds("ray", [LOAD], num_cpus=1) == pytest.approx(4.0, abs=NEAR)
    assert seconds("ray", [LOAD], concurrency={"load": 1}) == pytest.approx(4.0, abs=NEAR)
    assert seconds("ray", [LOAD]) == pytest.approx(2.0, abs=NEAR)


def test_ray_starts_a_process_for_a_task_with_a_device() -> None:
    """Four restarts of half a second on the device's way."""
    assert seconds("ray", [LOAD, INFER], overheads={"device_restart_s": 0.5}) == pytest.approx(7.0, abs=NEAR)


def test_ray_holds_the_source_back_where_the_store_is_small() -> None:
    slow = {**INFER, "cost": {"per_batch": "3s"}}
    small = {"rows": 20, "object_store": "8MB", "block": "1MB"}
    held = simulate("ray", [LOAD, slow], **small)
    free = simulate("ray", [LOAD, slow], backpressure=False, **small)
    assert held.get("spilled_bytes", 0) == 0
    assert free["spilled_bytes"] > 0


def test_spark_runs_as_many_tasks_as_its_executors_have_cores() -> None:
    node = {"cpus": 4}
    assert seconds("spark", [LOAD], node=node) == pytest.approx(1.0, abs=NEAR)
    assert seconds("spark", [LOAD], node=node, executors=1, executor_cores=1) == pytest.approx(4.0, abs=NEAR)
    # 15 GiB are left to executors: two of 7 GiB
    assert seconds("spark", [LOAD], node=node, executor_memory="7GiB", executor_cores=1) == pytest.approx(2.0, abs=NEAR)


def test_spark_pickles_rows_to_python_and_back() -> None:
    """1 MB in and 1 MB out at 1 MB/s: two more seconds a task."""
    crossing = seconds("spark", [LOAD], rows=2, overheads={"bridge_bytes_per_s": 1e6})
    assert crossing == pytest.approx(3.0, abs=NEAR)


def test_spark_joins_small_shuffle_partitions() -> None:
    """A change of resources is a shuffle: 60 rows in 30 partitions of 2 MB, for two cores."""
    second = {**LOAD, "name": "second", "resources": {"cpus": 0.99}}
    counts = {a: simulate("spark", [LOAD, second], rows=60, shuffle_partitions=30, adaptive=a)["tasks"] for a in (True, False)}
    assert counts[False] == 60 + 30
    assert counts[True] == 60 + 2


def test_dask_fuses_and_needs_no_memory_between() -> None:
    second = {**LOAD, "name": "second"}
    assert simulate("dask", [LOAD, second])["tasks"] == 4
    assert simulate("dask", [LOAD, second], fuse=False)["tasks"] == 8


def test_dask_without_queuing_loads_everything_first() -> None:
    """Root tasks that are given out at once run before what follows from them."""
    second = {**LOAD, "name": "second", "resources": {"cpus": 0.99}, "row_bytes_out": "8B"}
    node = {"cpus": 1}
    queued = simulate("dask", [LOAD, second], rows=20, node=node, memory_target="4MB")
    at_once = simulate("dask", [LOAD, second], rows=20, node=node, memory_target="4MB", queuing=False)
    assert queued.get("spilled_bytes", 0) == 0
    assert at_once["spilled_bytes"] > 0


def test_flink_runs_as_many_subtasks_as_it_is_told() -> None:
    assert seconds("flink", [LOAD], parallelism=1) == pytest.approx(4.0, abs=NEAR)
    assert seconds("flink", [LOAD], parallelism={"load": 2}) == pytest.approx(2.0, abs=NEAR)
    with pytest.raises(InputError, match="laod"):
        seconds("flink", [LOAD], parallelism={"laod": 2})


def test_flink_chains_operators_into_one_subtask() -> None:
    """By default, as Flink does; but not operators of different parallelism or resources."""
    second = {**LOAD, "name": "second"}
    assert simulate("flink", [LOAD, second])["tasks"] == 4
    assert simulate("flink", [LOAD, second], chaining=False)["tasks"] == 8
    assert simulate("flink", [LOAD, second], parallelism={"load": 1, "second": 1})["tasks"] == 4
    assert simulate("flink", [LOAD, second], parallelism={"load": 2})["tasks"] == 4  # two CPUs: the default of the other
    assert simulate("flink", [LOAD, second], parallelism={"load": 1})["tasks"] == 8
    assert simulate("flink", [LOAD, INFER], parallelism={"load": 1, "infer": 1})["tasks"] == 8


def test_a_flink_subtask_computes_before_it_waits_for_buffers() -> None:
    """Six subtasks make five records in 7.5 s; four that take 2.5 s for as many never hold them back: 27 rounds, and the last five."""
    load = {**LOAD, "kind": "flat_map", "cost": {"per_batch": "5s"}, "rows_out": 5.0}
    chained = {**LOAD, "name": "next", "cost": {"per_batch": "500ms"}}
    infer = {**INFER, "cost": {"per_batch": "500ms"}}
    wanted = {"load": 6, "next": 6, "infer": 4}
    node = {"cpus": 8, "gpus": {"count": 4, "memory": "0B"}}
    made = seconds("flink", [load, chained, infer], rows=160, expected=800, node=node, parallelism=wanted)
    assert made == pytest.approx(27 * 7.5 + 2.5, abs=0.2)


def test_mapreduce_starts_a_process_for_every_task() -> None:
    """Four tasks on two CPUs: two rounds of a second of work and half a second of start."""
    assert seconds("mapreduce", [LOAD], overheads={"task_s": 0.5}) == pytest.approx(3.0, abs=NEAR)


def test_mapreduce_replicates_its_output() -> None:
    node = {"count": 3, "nic": "10Gbit/s"}
    assert simulate("mapreduce", [LOAD], node=node, replication=1).get("bytes_network", 0) == 0
    assert simulate("mapreduce", [LOAD], node=node, replication=3)["bytes_network"] == 2 * 4 * 1e6


def test_mapreduce_merges_what_its_sort_buffer_cannot_hold() -> None:
    wide = {"name": "wide", "kind": "sort", "cost": {"per_row": "1ms"}, "row_bytes_out": "1MB"}
    assert "bytes_merged" not in simulate("mapreduce", [LOAD, wide], overheads={"merge_bytes": 80e6})
    assert simulate("mapreduce", [LOAD, wide], overheads={"merge_bytes": 0.5e6})["bytes_merged"] > 0


BIG = {**LOAD, "memory": "400MB", "cost": {"per_batch": "2s"}}


def test_ray_kills_the_youngest_task_and_tries_again_later() -> None:
    """Four tasks of 400 MB on a gigabyte: looks at 0.25 and 0.5 s kill two, which come back after a second and are killed again, and
    after two more: the last begins at 1.75 + 2 s."""
    node = {"cpus": 4, "memory": "1GB"}
    made = simulate("ray", [BIG], node=node)
    assert made["makespan_s"] == pytest.approx(5.75, abs=NEAR)
    assert (made["workers_killed_for_memory"], made["tasks"]) == (4, 4)
    assert made["peak_memory_bytes"] == pytest.approx(4 * 401e6)
    with pytest.raises(OutOfMemory):
        simulate("ray", [BIG], node=node, memory_usage_threshold=0.0)


def test_a_task_too_large_for_its_node_would_be_killed_for_ever() -> None:
    with pytest.raises(OutOfMemory, match="its last task"):
        simulate("ray", [BIG], node={"cpus": 4, "memory": "300MB"})


WIDE = {"name": "wide", "kind": "sort", "cost": {"per_row": "1ms"}, "row_bytes_out": "1MB"}


def test_slow_start_gives_slots_of_maps_to_reducers() -> None:
    """Eight maps of a second on two slots. When half have ended a reducer may hold one: the other four then take four seconds."""
    asked = {"rows": 8, "shuffle_partitions": 2, "replication": 1}
    assert seconds("mapreduce", [LOAD, WIDE], slowstart=1.0, **asked) == pytest.approx(4.0, abs=NEAR)
    assert seconds("mapreduce", [LOAD, WIDE], slowstart=0.05, **asked) == pytest.approx(6.0, abs=NEAR)
    assert seconds("mapreduce", [LOAD, WIDE], slowstart=0.9, **asked) == pytest.approx(4.0, abs=NEAR)


def test_slow_start_fetches_while_maps_run() -> None:
    """Six maps of 10 s on four slots of two nodes; the reducer needs three outputs from the other node, 10 s each. It fetches two of them
    while the last two maps run, from the time on that it first asks for them, a second after the others ended."""
    load = {**LOAD, "cost": {"per_batch": "10s"}}
    node = {"count": 2, "nic": "0.8Mbit/s"}
    asked = {"rows": 6, "shuffle_partitions": 2, "replication": 1, "node": node}
    assert seconds("mapreduce", [load, WIDE], slowstart=1.0, **asked) == pytest.approx(50.0, abs=NEAR)
    assert seconds("mapreduce", [load, WIDE], **asked) == pytest.approx(41.0, abs=NEAR)


def test_tasks_are_spread_over_the_nodes() -> None:
    """Four tasks on two nodes of four CPUs write 2 MB to each of two disks, from which the reducer reads them; it writes 4 MB."""
    slow = {"count": 2, "cpus": 4, "disk": {"read": "1MB/s", "write": "1MB/s"}}
    made = seconds("spark", [LOAD, WIDE], rows=4, shuffle_partitions=1, node=slow, page_cache=False, bypass_merge_threshold=0)
    assert made == pytest.approx(1 + 2 + 2 + 4, abs=NEAR)


def test_the_limit_of_reducers_is_hadoops() -> None:
    """RMContainerAllocator: the share of ended maps, half of the slots at most, and what the maps do not need."""
    assert most_reducers(10, 0.2, needed=80, unsent=70) == 2
    assert most_reducers(10, 0.9, needed=80, unsent=70) == 5
    assert most_reducers(10, 0.2, needed=3, unsent=1) == 7  # eight are the maps', of which they need three
    assert most_reducers(10, 0.2, needed=80, unsent=0) == float("inf")


@pytest.mark.parametrize("engine", sorted(ENTRIES))
def test_an_unknown_option_is_refused(engine: str) -> None:
    with pytest.raises(InputError, match="colour"):
        simulate(engine, [LOAD], colour="red")


def test_ray_keeps_what_was_materialised_until_the_next_is() -> None:
    """Four rows of 1 MB: with all inputs kept, eight blocks are in the store at the end of the second stage."""
    copy = {**LOAD, "name": "copy"}
    assert simulate("ray", [LOAD, copy], materialize=True)["peak_store_bytes"] == 8e6
    assert simulate("ray", [LOAD, copy])["peak_store_bytes"] < 8e6


def test_ray_actors_take_what_is_on_their_node_first() -> None:
    """Blocks of two nodes wait in turns; an actor that looks at one only fetches many from the other node, one with a choice few."""
    infer = {**INFER, "state": {"kind": "actor"}, "concurrency": [2, 2]}
    two = {"count": 2, "cpus": 2}
    varied = {**LOAD, "cost": {"per_batch": "1s", "cv": 0.6}}
    far, near = (
        simulate("ray", [varied, infer], rows=16, node=two, materialize=True, tasks_in_flight=n).get("bytes_network", 0)
        for n in (0, 8)
    )
    assert far >= near + 4e6


def test_plain_ray_tasks_are_awaited_one_by_one() -> None:
    """No rounds: a task that ends beside a longer one is followed at once."""
    from windtunnel.engines.models.ray_entry import CORE

    assert next(c.value for c in CORE if c.name == "round_s") == 0.0
    assert seconds("ray", [LOAD], executor="core") == pytest.approx(2.0, abs=NEAR)


def test_spark_puts_few_partitions_together_from_a_file_each() -> None:
    """Two maps of 1 MB into two partitions are written twice, through the page cache; into more than the threshold, once."""
    infer = {**INFER, "resources": {"cpus": 1, "gpus": 1}}
    assert simulate("spark", [LOAD, infer], shuffle_partitions=2)["bytes_concatenated"] == 4e6
    assert "bytes_concatenated" not in simulate("spark", [LOAD, infer], shuffle_partitions=2, bypass_merge_threshold=1)


def test_spark_may_load_a_model_in_every_task() -> None:
    """Four tasks on one device: a load of 3 s once, or by each of them."""
    model = {**INFER, "state": {"kind": "actor", "load": "3s"}, "concurrency": [1, 1]}
    once = seconds("spark", [LOAD, model], shuffle_partitions=4)
    assert seconds("spark", [LOAD, model], shuffle_partitions=4, reload=True) == pytest.approx(2 + 4 * 4, abs=0.2)
    assert once < 12
