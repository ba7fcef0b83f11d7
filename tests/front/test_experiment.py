"""Experiments: order, resuming, deaths of cells and of the whole thing, and what remains on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.reports.records import record
from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running.cellspec import WorkloadChoice
from windtunnel.running.experiment import Experiment
from windtunnel.running.measure import marked
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec

SMALL = ClusterSpec.here(cpus=2, memory_bytes=2 * 2**30)


def experiment(data_root: Path, *engines: str, **changes: object) -> Experiment:
    """tpch_q6 at a thousandth."""
    plain = Experiment(
        name="test",
        workloads=(WorkloadChoice(name="tpch_q6", parameters={"scale": 0.01}),),
        engines=tuple(EngineChoice(name=e, label=e) for e in engines),
        cluster=SMALL,
        repetitions=2,
        data_root=data_root,
        timeout_s=60,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_every_cell_runs_and_is_verified(data_root: Path, tmp_path: Path) -> None:
    records = experiment(data_root, "duckdb", "polars").run(Store(tmp_path))
    measured = [r for r in records if not r.warmup]
    assert sorted({r.label for r in measured}) == ["duckdb", "duckdb (A/A)", "polars"]
    assert all(r.status == "ok" and r.verified and r.makespan_s and r.peak_memory_bytes for r in measured)
    assert len(measured) == 6
    assert {r.options.get("engine") for r in measured if r.engine == "polars"} == {"streaming"}
    assert all(r.environment["libraries"]["pyarrow"] for r in measured)


def test_records_open_in_duckdb_and_pandas(data_root: Path, tmp_path: Path) -> None:
    import duckdb

    experiment(data_root, "duckdb", aa=False).run(Store(tmp_path))
    ((count,),) = duckdb.sql(f"SELECT count(*) FROM read_json_auto('{tmp_path}/runs/*.json') WHERE status = 'ok'").fetchall()
    assert count >= 3
    spans = duckdb.sql(f"SELECT kind, max(end_s) AS s FROM read_parquet('{tmp_path}/spans/*.parquet') GROUP BY kind").fetchall()
    assert spans[0][0] == "query"
    pytest.importorskip("pandas")
    frame = pq.read_table(next((tmp_path / "spans").glob("*.parquet"))).to_pandas()
    assert {"kind", "start_s", "end_s"} <= set(frame.columns)


def test_rounds_are_interleaved_in_an_order_of_their_own(data_root: Path) -> None:
    cells = experiment(data_root, "bulk", "duckdb", "polars", rounds=3).cells()
    rounds = [[c.engine.label for c in cells if c.round == n] for n in range(3)]
    assert all(sorted(r) == sorted(rounds[0]) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert next(c.repetitions for c in cells if c.round == 1) == (2, 3)
    assert cells == experiment(data_root, "bulk", "duckdb", "polars", rounds=3).cells()


def test_a_second_run_needs_resume_and_then_adds_nothing(data_root: Path, tmp_path: Path) -> None:
    asked = experiment(data_root, "duckdb", aa=False)
    first = asked.run(Store(tmp_path))
    with pytest.raises(InputError, match="--resume"):
        asked.run(Store(tmp_path))
    again = asked.run(Store(tmp_path), resume=True)
    assert [r.run_id for r in again] == [r.run_id for r in first]


def test_resume_runs_what_is_missing(data_root: Path, tmp_path: Path) -> None:
    asked = experiment(data_root, "duckdb", aa=False)
    asked.run(Store(tmp_path))
    (lost,) = (tmp_path / "runs").glob("*-r1.json")
    before = {p: p.read_bytes() for p in (tmp_path / "runs").glob("*.json") if p != lost}
    lost.unlink()
    records = asked.run(Store(tmp_path), resume=True)
    assert sorted(r.repetition for r in records if not r.warmup) == [0, 1]
    assert all(p.read_bytes() == content for p, content in before.items())


def test_a_cell_that_takes_too_long_is_a_record(data_root: Path, tmp_path: Path) -> None:
    scenario = (
        'schema = 1\nname = "slow"\n[cluster]\n[[cluster.nodes]]\ncpus = 1\nmemory = "1GiB"\n[dataset]\nrows = 1\nrow_bytes = 8\n'
        'partitions = 1\n[[operators]]\nname = "wait"\nkind = "map"\ncost = { per_batch = "1h" }\nfixed_work = "sleep"\n'
        '[[engines]]\nname = "bulk"\n'
    )
    file = tmp_path / "slow.toml"
    file.write_text(scenario)
    command = [sys.executable, "-m", "windtunnel.cli", "run", str(file), "--timeout", "4s", "--no-aa", "--json"]
    done = subprocess.run([*command, "--results", str(tmp_path / "r")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5
    (run,) = json.loads(done.stdout)["runs"]
    assert run["status"] == "timeout"
    assert "4 s" in run["reason"]
    assert run["makespan_s"] is None


def test_a_dying_cell_is_a_record_with_its_last_words(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_plug(tmp_path, "import os\nprint('going down', flush=True)\nos.kill(os.getpid(), 9)")))
    from windtunnel import registry

    monkeypatch.setitem(registry.ENGINES, "duckdb", registry.EngineEntry("dying:Engine"))
    records = experiment(data_root, "duckdb", aa=False).run(Store(tmp_path / "r"))
    (record,) = records
    assert record.status == "failed"
    assert record.reason is not None
    assert "killed by SIGKILL" in record.reason


def _plug(folder: Path, body: str) -> Path:
    """A sitecustomize that makes the adapter's module die when it is imported in the child."""
    plug = folder / "plug"
    plug.mkdir()
    (plug / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'windtunnel.engines.adapters.duckdb':\n"
        + "".join(f"            {line}\n" for line in body.splitlines())
        + "        return None\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    return plug


def test_a_cell_that_ends_while_a_session_opens_leaves_no_folder(tmp_path: Path) -> None:
    code = (
        "import windtunnel.running.cell as cell; from types import SimpleNamespace; "
        "from windtunnel.engines.local.store import create_session;"
        "print(create_session()[0]); cell._end_family(SimpleNamespace(marker='', scratch=''))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "windtunnel-" in told.stdout and not Path(told.stdout.strip()).exists()


@pytest.mark.linux
def test_kill_9_of_the_whole_experiment_loses_only_the_running_cell(data_root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [
        sys.executable, "-m", "windtunnel.cli", "run", "-w", "tpch_q6", "-w", "tpch_q1", "-e", "streaming", "-e", "bulk",
        "--scale", "0.01", "-n", "3", "--cpus", "2", "--results", str(results), "--json",
    ]  # fmt: skip
    environment = {**os.environ, "WINDTUNNEL_DATA": str(data_root)}
    victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = results / "runs"
    _wait(lambda: len(list(runs.glob("*-r*.json"))) >= 4)
    family = psutil.Process(victim.pid).children(recursive=True)
    victim.kill()
    victim.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert not any(list(Path("/dev/shm").glob(f"windtunnel-{p.pid}-*")) for p in family)
    finished = {p.name: p.read_bytes() for p in runs.glob("*.json")}
    assert all(json.loads(text)["status"] == "ok" for text in finished.values())
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert all((runs / name).read_bytes() == text for name, text in finished.items())
    assert len(json.loads(done.stdout)["runs"]) == 2 * 3 * 3


@pytest.mark.linux
def test_ctrl_c_keeps_finished_records_and_leaves_nothing(data_root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [
        sys.executable, "-m", "windtunnel.cli", "run", "-w", "tpch_q6", "-e", "streaming", "--scale", "0.01", "-n", "400",
        "--no-aa", "--cpus", "2", "--results", str(results),
    ]  # fmt: skip
    environment = {**os.environ, "WINDTUNNEL_DATA": str(data_root)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait(lambda: len(list((results / "runs").glob("*-r*.json"))) >= 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "finished records are kept" in err
    assert "Traceback" not in err
    assert Store(results).records()
    assert not marked(f".{process.pid}.")


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 90 s")


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_went(tmp_path: Path) -> None:
    store, made = Store(tmp_path), record("bulk", 2.0)
    store.append(made)
    found = store.read(made.run_id)
    assert replace(found, spans=made.spans, samples=made.samples) == made
    assert found.spans.to_pylist() == made.spans.to_pylist()
    assert found.samples.to_pylist() == made.samples.to_pylist()


def test_results_are_append_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record("bulk", 2.0))
    with pytest.raises(InputError, match="append-only"):
        store.append(record("bulk", 3.0))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.write_text("{"), "no run record: it is not JSON"),
        (lambda p: p.write_text("[]"), "no run record: expected object, got array"),
        (lambda p: p.write_text(p.read_text().replace('"schema":1', '"schema":99')), "schema 99; this version reads schema 1"),
        (lambda p: p.write_text(p.read_text().replace('"status":"ok"', '"status":"great"')), "no run record: status is 'great'"),
    ],
)
def test_a_damaged_record_is_one_sentence(tmp_path: Path, damage: object, says: str) -> None:
    store = Store(tmp_path)
    store.append(record("bulk", 2.0))
    damage(next((tmp_path / "runs").glob("*.json")))  # type: ignore[operator]
    with pytest.raises(InputError, match=says):
        store.records()


def test_corrupt_spans_are_one_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record("bulk", 2.0))
    next((tmp_path / "spans").glob("*.parquet")).write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        store.records()


def test_a_half_written_run_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record("bulk", 2.0))
    (tmp_path / "runs" / ".writing-abc").write_text('{"schema": 1')
    assert len(store.records()) == 1


def test_a_failing_warm_up_is_a_failed_run_and_not_hidden(data_root: Path, tmp_path: Path) -> None:
    """The cell ends there; reports leave warm-ups out, so its failure stands for the first measured run."""
    from windtunnel.running.cell import run_cell
    from windtunnel.running.cellspec import CellSpec, cell_digest

    choice = WorkloadChoice(name="tpch_q6", parameters={"scale": 0.01})
    engine = EngineChoice(name="bulk", label="bulk", options={"store_bytes": "1B", "spill_dir": "/proc/nowhere"})
    spec = CellSpec(
        experiment="x", workload=choice, engine=engine, cluster=SMALL, repetitions=(0, 1), round=0, seed=7, data_root=str(data_root),
        store_root="", cell=cell_digest("x", choice.load(), engine, SMALL, {}), scratch=str(tmp_path),
    )  # fmt: skip
    records: list[RunRecord] = []
    run_cell(spec, lambda record, start, end: records.append(record))
    assert [(r.repetition, r.warmup, r.status) for r in records] == [(0, False, "failed")]
