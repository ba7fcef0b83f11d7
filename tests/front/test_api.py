"""The public interface: its names are there, it imports nothing heavy, and its verbs do what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import windtunnel
from windtunnel.errors import InputError

TINY = """
schema = 1
name = "tiny"
[cluster]
[[cluster.nodes]]
cpus = 2
memory = "4GiB"
[dataset]
rows = 8
row_bytes = "8B"
partitions = 4
[[operators]]
name = "work"
kind = "map"
cost = { per_row = "1ms" }
[[engines]]
name = "bulk"
[[engines]]
name = "streaming"
[sweep]
"cluster.nodes[0].cpus" = [1, 2]
"""


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    for name in windtunnel.__all__:
        assert getattr(windtunnel, name).__doc__, name
        assert name in dir(windtunnel)
    with pytest.raises(AttributeError, match="its public names: Experiment"):
        _ = windtunnel.nothing


def test_importing_it_is_light() -> None:
    code = "import sys, windtunnel; print([m for m in ('numpy', 'pyarrow', 'simpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_scenario_is_simulated_from_a_file_and_from_a_dictionary(tmp_path: Path) -> None:
    import tomllib

    (tmp_path / "job.toml").write_text(TINY, encoding="utf-8")
    records = windtunnel.simulate(tmp_path / "job.toml")
    again = windtunnel.simulate(tomllib.loads(TINY), results=tmp_path / "kept")
    assert records and [r.makespan_s for r in records] == [r.makespan_s for r in again]
    assert len(windtunnel.Store(tmp_path / "kept").records()) == len(records)
    assert windtunnel.run_document(records[0])["interval_s"][1] > (records[0].makespan_s or 0)
    with pytest.raises(InputError):
        windtunnel.simulate({"schema": 1})


def test_workloads_run_for_real_and_are_compared(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDTUNNEL_DATA", str(data_root))
    records = windtunnel.run(["tpch_q1"], {"duckdb": {}, "polars": {}}, scale=0.01, repetitions=1)
    assert {r.status for r in records} == {"ok"} and all(r.verified for r in records)
    assert "tpch_q1" in windtunnel.compare(records).verdicts[0]
    with pytest.raises(InputError, match="duckdb"):
        windtunnel.run(["tpch_q1"], ["duckdbb"])
