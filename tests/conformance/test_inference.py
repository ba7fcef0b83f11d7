"""Batch inference with a real model on every engine present: verified answers, counted loads and dead letters."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")

from tests.conformance.harness import REAL, answer_of, marks
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.registry import load_engine, load_workload
from windtunnel.running.cell import run_cell
from windtunnel.running.cellspec import CellSpec, WorkloadChoice, cell_digest
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.workloads.inference import photos, vision

SCALE = 0.006
IN_PROCESS = ("duckdb", "polars")  # they call kernels in one process


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in REAL])
def session(request: pytest.FixtureRequest, two_cpus: ClusterSpec) -> Iterator[Any]:
    """An open engine, once for the module."""
    found = load_engine(request.param).open(two_cpus, {})
    found.label = request.param
    yield found
    found.close()


def test_photographs_are_classified_and_loads_are_counted(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = load_workload("images", scale=SCALE, partitions=4).bind(data_root)
    session.prepare(bound)
    recorder = Recorder()
    table = answer_of(session.run(bound, recorder, tmp_path))
    bound.verify(table)
    assert table.num_rows == 60
    processes = 1 if session.label in IN_PROCESS else 2
    assert 1 <= recorder.counters["loads"] <= processes, "a model is loaded once a worker, not once a partition"


def test_orc_holds_photographs_too(session: Any, data_root: Path, tmp_path: Path) -> None:
    bound = load_workload("images", scale=0.002, partitions=2, format="orc").bind(data_root)
    session.prepare(bound)
    recorder = Recorder()
    bound.verify(answer_of(session.run(bound, recorder, tmp_path)))
    assert "loads" in recorder.counters, "told where models were kept, too"


def test_the_record_counts_dead_letters(two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    choice = WorkloadChoice(name="images", parameters={"scale": 0.015, "partitions": 3})
    engine = EngineChoice(name="streaming", label="streaming", options={})
    cell = cell_digest("conformance", choice.load(), engine, two_cpus, {})
    spec = CellSpec(
        experiment="conformance", workload=choice, engine=engine, cluster=two_cpus, repetitions=(0,), round=0, seed=7,
        data_root=str(data_root), store_root="", cell=cell, scratch=str(tmp_path), warmup=False,
    )  # fmt: skip
    records: list[RunRecord] = []
    run_cell(spec, lambda record, start, end: records.append(record))
    (record,) = records
    assert record.status == "ok" and record.verified, record.reason
    assert record.rows_out == 150
    damaged = sum(vision.decode_one(photos.photo(7, number))[0] != "ok" for number in range(150))
    assert record.counters["dead_letters"] == damaged > 0


@pytest.mark.linux
@pytest.mark.parametrize("name", ["bulk", "streaming"])
def test_a_killed_actor_is_loaded_again(name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    """The process that holds the model dies in the middle: another loads it, and the answer is whole."""
    bound = load_workload("images", scale=0.02, partitions=4).bind(data_root)
    session = load_engine(name).open(two_cpus, {})
    try:
        session.prepare(bound)
        recorder = Recorder()
        killer = threading.Thread(target=_kill_an_actor, args=(session.world, recorder))
        killer.start()
        table = answer_of(session.run(bound, recorder, tmp_path))
        killer.join()
        bound.verify(table)
        assert recorder.counters["workers_lost"] >= 1
        assert recorder.counters["loads"] >= 2
    finally:
        session.close()


def _kill_an_actor(world: Any, recorder: Recorder) -> None:
    """Kill the first process that has loaded its model and has work."""
    for _ in range(2000):
        for process in list(world._by_worker.values()):
            if process.stage >= 0 and process.loaded and process.tasks:
                os.kill(process.popen.pid, signal.SIGKILL)
                return
        time.sleep(0.005)
