"""The same seed gives the same bytes: in another process, and whatever the hash seed is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = """
schema = 1
name = "drawn"
seed = {seed}
[cluster]
[[cluster.nodes]]
count = 3
cpus = 2
memory = "2GiB"
[dataset]
rows = 200
row_bytes = "1KiB"
partitions = 40
skew = 0.5
[[operators]]
name = "load"
kind = "flat_map"
batch_rows = 2
cost = {{ per_batch = "20ms", per_row = "1ms", cv = 0.4 }}
rows_out = 3.0
row_bytes_out = "64KiB"
[[operators]]
name = "shuffle"
kind = "aggregate"
cost = {{ per_row = "2ms", cv = 0.2 }}
row_bytes_out = "1KiB"
[[operators]]
name = "infer"
kind = "map"
cost = {{ per_batch = "10ms", cv = 0.1 }}
resources = {{ cpus = 1 }}
state = {{ kind = "actor", load = "100ms" }}
concurrency = [1, 3]
[[engines]]
name = "bulk"
options = {{ store_bytes = "2MiB" }}
[[engines]]
name = "streaming"
options = {{ store_bytes = "2MiB" }}
"""
FAULTS = """
[[engines]]
name = "ray"
[[engines]]
name = "dask"
[[faults]]
at = "1200ms"
kind = "node_lost"
target = "node[1]"
until = "2s"
[[faults]]
at = "700ms"
kind = "worker_killed"
target = "node[0]"
[[faults]]
at = "500ms"
kind = "straggler"
target = "node[2]"
factor = 3.0
"""


def records(folder: Path, seed: int, hash_seed: str, more: str = "") -> dict[str, str]:
    """Hashes of everything that a simulation in a process of its own stores."""
    folder.mkdir()
    file = folder.parent / f"drawn-{seed}.toml"
    file.write_text(SCENARIO.format(seed=seed) + more)
    command = [sys.executable, "-m", "windtunnel.cli", "simulate", str(file), "--results", str(folder), "--json"]
    done = subprocess.run(command, env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_equal_seeds_give_equal_bytes_in_other_processes(tmp_path: Path) -> None:
    first = records(tmp_path / "a", 7, "1")
    assert first == records(tmp_path / "b", 7, "2718")
    assert {Path(n).parts[0] for n in first} == {"runs", "spans", "samples", "experiments"}


@pytest.mark.parametrize("engine", ["bulk", "streaming"])
def test_another_seed_draws_other_durations(tmp_path: Path, engine: str) -> None:
    import json

    found = []
    for seed in (7, 8):
        folder = tmp_path / str(seed)
        records(folder, seed, "0")
        runs = [json.loads(p.read_text()) for p in (folder / "runs").glob("*.json")]
        found += [r["makespan_s"] for r in runs if r["label"] == engine]
    assert found[0] != found[1]


def test_faults_strike_alike_in_other_processes(tmp_path: Path) -> None:
    mortal = FAULTS.replace("node[", "worker[")
    first = records(tmp_path / "a", 7, "1", mortal)
    assert first == records(tmp_path / "b", 7, "2718", mortal)
    assert first != records(tmp_path / "c", 7, "1")
