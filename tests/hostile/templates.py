"""Whole results folders that scenes are copied from: complete records as a run leaves them, made without running anything."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from windtunnel.records.record import Recorder, RunRecord
from windtunnel.records.store import Store
from windtunnel.running.cellspec import CellSpec, WorkloadChoice, base_record
from windtunnel.scenario.reading import Scenario, from_document
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec

SCENARIO = """
schema = 1
name = "job"
repetitions = 2
[dataset]
rows = 400
row_bytes = "1KB"
partitions = 8
[[operators]]
name = "work"
kind = "map"
batch_rows = 10
cost = { per_row = "2ms", cv = 0.1 }
row_bytes_out = "1KB"
[cluster]
[[cluster.nodes]]
count = 2
cpus = 2
memory = "8GiB"
[[engines]]
name = "bulk"
[[engines]]
name = "streaming"
"""
HOST = {
    "cpu_model": "Test CPU", "cpus": 2, "cpus_usable": 2, "cpu_quota": None, "governor": None, "memory_bytes": 2**33,
    "memory_limit_bytes": None, "system": "Linux", "kernel": "6.1", "machine": "x86_64", "python": "3.11.7", "core": "python",
    "libraries": {"windtunnel": "0.1.0", "pyarrow": "20.0"}, "load_average": [0.0, 0.0, 0.0],
}  # fmt: skip


@cache
def _scenario() -> Scenario:
    return from_document(tomllib.loads(SCENARIO), "job.toml")


def record(engine: str, repetition: int, makespan_s: float, label: str | None = None, **changes: Any) -> RunRecord:
    """A good run of the scenario on ``engine`` ("sim:…" for a simulated one)."""
    scenario = _scenario()
    name = label or engine.removeprefix("sim:")
    virtual = engine.startswith("sim:")
    cell = CellSpec(
        experiment="job", workload=WorkloadChoice(name="job", document=scenario.document, file="job.toml"),
        engine=EngineChoice(name=engine, label=name, options={"fuse": True}), repetitions=(repetition,), round=0, seed=7,
        cluster=scenario.cluster if virtual else ClusterSpec.here(cpus=2), data_root="", store_root="",
        cell=f"{engine.removeprefix('sim:'):0<12}{'a/a' in name.lower():d}{virtual:d}",
    )  # fmt: skip
    recorder = Recorder()
    for worker in range(2):
        recorder.span("compute", "work", 0.0, makespan_s / 2, worker=worker, partition=worker, rows=200, bytes=200_000)
    recorder.span("barrier", "work", makespan_s / 2, makespan_s)
    recorder.sample("memory_bytes", makespan_s / 2, 1e6)
    environment = {"libraries": {"windtunnel": "0.1.0"}, "core": "python"} if virtual else HOST
    plain = base_record(cell, scenario.workload, repetition, environment)
    counters = {"tasks": 8, "blocks": 16, "bytes_network": 400_000, "spilled_bytes": 0}
    return replace(
        plain, engine_version="1", status="ok", reason=None, makespan_s=makespan_s, open_s=None if virtual else 0.2,
        prepare_s=None if virtual else 0.01, rows_out=400, peak_memory_bytes=600_000, verified=not virtual, counters=counters,
        spans=recorder.span_table(), samples=recorder.sample_table(), **changes,
    )  # fmt: skip


def _keep(folder: Path, records: Iterator[RunRecord]) -> None:
    store = Store(folder)
    for made in records:
        store.append(made)


def simulated(folder: Path) -> None:
    """Two engines with two seeds each."""
    _keep(folder, (record(f"sim:{e}", r, 0.5 + 0.01 * r) for e in ("bulk", "streaming") for r in range(2)))


def measured(folder: Path) -> None:
    """Two engines and the A/A arm of one, five runs each."""
    arms = (("bulk", "bulk"), ("bulk", "bulk (A/A)"), ("streaming", "streaming"))
    _keep(folder, (record(e, r, 0.5 + 0.002 * r, label) for e, label in arms for r in range(5)))
