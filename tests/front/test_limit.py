"""Memory limits of real runs: a cell that passes its limit is ended and says so, by whatever keeps the limit here."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running import child as parent
from windtunnel.running.cellspec import WorkloadChoice
from windtunnel.running.experiment import Experiment
from windtunnel.running.limit import FOLDER, Group, make_group
from windtunnel.running.measure import Sampler, marked
from windtunnel.scenario.reading import parse_scenario
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec

HOG = """
schema = 1
name = "hog"
[cluster]
[[cluster.nodes]]
cpus = 1
memory = "8GiB"
memory_limit = "600MB"
[dataset]
rows = 1
row_bytes = "8B"
partitions = 1
[[operators]]
name = "hog"
kind = "map"
memory = "{memory}"
fixed_work = "sleep"
cost = {{ per_batch = "{seconds}" }}
[[engines]]
name = "streaming"
"""


def hog(tmp_path: Path, memory: str, seconds: str) -> RunRecord:
    """The last record of a cell that holds so much memory."""
    scenario = parse_scenario(HOG.format(memory=memory, seconds=seconds))
    choice = WorkloadChoice(name="hog", document=scenario.document, cluster=scenario.cluster, engines=scenario.engines)
    plain = Experiment(name="hog", workloads=(choice,), engines=(), cluster=scenario.cluster, repetitions=1, aa=False)
    *_, last = plain.run(Store(tmp_path / "r"))
    return last


@pytest.mark.linux
def test_a_run_that_passes_its_limit_is_out_of_memory(tmp_path: Path) -> None:
    found = hog(tmp_path, "700MB", "20s")
    assert found.status == "out_of_memory" and found.makespan_s is None
    assert found.reason is not None and "passed the memory limit of 572.2 MiB" in found.reason
    assert found.environment["memory_limited_by"] in ("cgroup", "watchdog")
    assert not marked(f"{found.cell}.{os.getpid()}.0")


@pytest.mark.linux
def test_a_run_within_its_limit_says_who_kept_it(tmp_path: Path) -> None:
    found = hog(tmp_path, "10MB", "10ms")
    assert found.status == "ok" and found.environment["memory_limited_by"] in ("cgroup", "watchdog")


@pytest.mark.linux
def test_the_watchdog_ends_the_tree() -> None:
    inner = "import time; x = b'x' * 10**8; time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    sampler = Sampler(process.pid, "none", interval_s=0.02, limit_bytes=60_000_000)
    sampler.start()
    try:
        assert process.wait(timeout=20) == -9
    finally:
        process.kill()
        sampler.stop()
    assert sampler.exceeded is not None and sampler.exceeded.memory_bytes > 60_000_000


def folder(tmp_path: Path, controllers: str = "cpu memory", inside: str = "memory") -> Path:
    """A folder that looks like a control group's."""
    (tmp_path / "cgroup.controllers").write_text(controllers)
    (tmp_path / "cgroup.subtree_control").write_text(inside)
    return tmp_path


def test_a_group_has_the_limit_and_no_swap(tmp_path: Path) -> None:
    group = make_group(12345, folder(tmp_path))
    assert group is not None and group.folder.parent == tmp_path
    told = {name: (group.folder / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")}
    assert told == {"memory.max": "12345", "memory.swap.max": "0", "memory.oom.group": "1"}
    assert group.add(7) and (group.folder / "cgroup.procs").read_text() == "7"


@pytest.mark.parametrize(("events", "killed"), [("oom 1\noom_kill 0\n", False), ("oom 2\noom_kill 3\n", True), ("", False)])
def test_the_kernel_tells_whether_it_killed(tmp_path: Path, events: str, killed: bool) -> None:
    (tmp_path / "memory.events").write_text(events)
    assert Group(tmp_path, 1).killed is killed


def test_without_the_controller_there_is_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    assert make_group(1, folder(tmp_path, controllers="cpu")) is None
    assert make_group(1, tmp_path / "nowhere") is None
    assert list(tmp_path.glob("windtunnel-*")) == []


def test_a_delegated_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(FOLDER, str(folder(tmp_path / "mine")))
    group = make_group(1, folder(tmp_path))
    assert group is not None and group.folder.parent == tmp_path / "mine"


def test_only_what_runs_here_is_limited() -> None:
    here = ClusterSpec.here(cpus=1, memory_bytes=5)
    spec = parent.CellSpec(
        experiment="x", workload=WorkloadChoice(name="tpch_q6"), engine=EngineChoice(name="bulk", label="bulk", options={}), cluster=here,
        repetitions=(0,), round=0, seed=1, data_root="", store_root="", cell="c",
    )  # fmt: skip
    assert parent._limit_bytes(spec) == 5
    assert parent._limit_bytes(replace(spec, cluster=replace(here, address="spark://far:1"))) is None
    assert parent._limit_bytes(replace(spec, engine=replace(spec.engine, name="sim:bulk"))) is None
