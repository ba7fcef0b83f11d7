"""The Ray adapter beside what the conformance suite asks of every engine: pools, set-up, killed workers, what is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="needs windtunnel[ray]")

from tests.conformance.harness import answer_of
from windtunnel.engines.adapters import ray as adapter
from windtunnel.engines.adapters import ray_cluster
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Concurrency, MapBatches, Operator, Resources, State


def stateful(**changes: Any) -> Operator:
    """An operator that keeps a model."""
    kernel = MapBatches(function="tests.engines.test_ray:Model", schema=(("x", "int64"),))
    return Operator(name="model", kind="map", kernel=kernel, inputs=("scan",), batch_rows=8, state=State(kind="actor"), **changes)


class Model:
    """A kernel class; never called here."""


def test_a_pool_of_open_size_leaves_cpus_to_read_with() -> None:
    tuned = adapter._kernel(stateful(), 4, 1)
    assert (tuned["compute"].min_size, tuned["compute"].max_size, tuned["num_cpus"]) == (4, 4, 0.5)
    two = adapter._kernel(stateful(), 4, 2)
    assert two["num_cpus"] == 0.25, "all pools together claim half of the CPUs"
    assert adapter._kernel(stateful(), 1, 1)["num_cpus"] == 0.0, (
        "an actor that holds the only CPU would wait for its input for ever"
    )
    stock = adapter._kernel(stateful(), None, 1)
    assert (stock["compute"].min_size, stock["compute"].max_size, stock["num_cpus"]) == (1, float("inf"), 1.0)


def test_a_pool_that_the_plan_sizes_is_as_the_plan_says() -> None:
    asked = stateful(concurrency=Concurrency(minimum=1, maximum=3), resources=Resources(cpus=0.5, gpus=1.0))
    given = adapter._kernel(asked, 8, 1)
    assert (given["compute"].min_size, given["compute"].max_size) == (1, 3)
    assert (given["num_cpus"], given["num_gpus"], given["batch_size"]) == (0.5, 1.0, 8)


def test_a_long_path_is_one_sentence(two_cpus: ClusterSpec) -> None:
    with pytest.raises(InputError, match="set TMPDIR"):
        ray_cluster.start(two_cpus, {"object_store": None}, Path("/" + "long" * 15), tuned=True)


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize(("name", "actor"), [("ray", "MapWorker"), ("ray-core", "ray::Actor")])
def test_a_killed_actor_costs_time_but_no_rows(
    name: str, actor: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
    bound = load_workload("images", scale=0.05, partitions=4).bind(data_root)
    session = load_engine(name).open(two_cpus, {})
    folder = session._scratch
    try:
        session.prepare(bound)
        killed: list[int] = []
        killer = threading.Thread(target=_kill_an_actor, args=(folder, actor, killed))
        killer.start()
        recorder = Recorder()
        table = answer_of(session.run(bound, recorder, tmp_path))
        killer.join()
        assert killed, "no actor was there to kill"
        bound.verify(table)
        assert recorder.counters["loads"] >= 3, "two actors, and the one that took the killed one's place"
    finally:
        session.close()
    assert not folder.exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


def _kill_an_actor(folder: Path, actor: str, killed: list[int]) -> None:
    """Kill a process of the pool once it has loaded its model."""
    for _ in range(600):
        if list((folder / "loads").glob("*.json")):
            for process in psutil.process_iter(["cmdline"]):
                if actor in " ".join(process.info["cmdline"] or []):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
        time.sleep(0.05)
