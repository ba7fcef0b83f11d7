"""Simulations side by side: the same results wherever they run, and nothing left when they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windtunnel.cli import main
from windtunnel.errors import ExitCode, RunFailed
from windtunnel.running import pool

SWEEP = """
schema = 1
name = "sweep"
[cluster]
[[cluster.nodes]]
count = 4
cpus = 2
memory = "4GiB"
[dataset]
rows = {rows}
row_bytes = "1KiB"
partitions = {rows}
[[operators]]
name = "work"
kind = "map"
cost = {{ per_row = "100ms", cv = 0.3 }}
[[engines]]
name = "{engine}"
[sweep]
"cluster.nodes[0].count" = [1, 2, 4]
"""


def square(x: int) -> int:
    return x * x


def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_results_come_with_their_items(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(pool.each(square, [3, 1, 2])) == [(3, 9), (1, 1), (2, 4)]
    monkeypatch.setattr(pool, "PATIENCE_S", 0.0)
    assert sorted(pool.each(square, [3, 1, 2], jobs=2)) == [(1, 1), (2, 4), (3, 9)]


def test_a_dead_process_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.0)
    with pytest.raises(RunFailed, match="has died"):
        list(pool.each(die, [1, 2], jobs=2))


def test_leaving_early_stops_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.0)
    begin = time.monotonic()
    results = pool.each(nap, [0.01, 60.0], jobs=2)
    _, child = next(results)
    results.close()
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_sweep_gives_the_same_bytes_on_one_core_and_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.0)
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP.format(rows=40, engine="streaming"), encoding="utf-8")
    printed = []
    for jobs in ("1", "2"):
        assert main(["simulate", str(file), "--json", "--jobs", jobs, "--results", str(tmp_path / jobs)]) == ExitCode.OK
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].count('"makespan_s"') == 3


def test_no_scheduler_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed")
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP.format(rows=4, engine="bulk"), encoding="utf-8")
    command = ["simulate", str(file), "--address", "nonsense", "--results", str(tmp_path / "r")]
    assert main(command) == ExitCode.BAD_INPUT
    assert "no Dask scheduler answers at nonsense" in capsys.readouterr().err


def test_a_dask_cluster_simulates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distributed = pytest.importorskip("distributed")
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP.format(rows=40, engine="bulk"), encoding="utf-8")
    assert main(["simulate", str(file), "--json", "--results", str(tmp_path / "here")]) == ExitCode.OK
    here = capsys.readouterr().out
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        command = ["simulate", str(file), "--json", "--results", str(tmp_path / "there"), "--address", cluster.scheduler_address]
        assert main(command) == ExitCode.OK
    assert capsys.readouterr().out == here


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP.format(rows=400_000, engine="streaming"), encoding="utf-8")
    command = [sys.executable, "-m", "windtunnel.cli", "simulate", str(file), "--jobs", "2", "--results", str(tmp_path / "r")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        time.sleep(4.0)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert b"Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
