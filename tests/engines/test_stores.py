"""Systems that keep data, for real: each operation on each system through client processes, killed ones too, judged by the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windtunnel.engines.api import Outcome
from windtunnel.engines.stores.driver import moments, read_journal
from windtunnel.errors import Unsupported, WrongResult
from windtunnel.records.record import Recorder
from windtunnel.registry import engine_entry, load_engine, load_workload, missing_modules
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.data.history import history_of
from windtunnel.workloads.data.linear import KINDS

FORMATS = ("delta", "iceberg", "lance", "ducklake")
OPERATIONS = ("append", "overwrite", "upsert", "increment", "delete", "add_column", "compact", "mixed")


def run(
    engine: str, data_root: Path, two_cpus: ClusterSpec, tmp_path: Path, workload: str = "lake", **parameters: Any
) -> tuple[BoundWorkload, Outcome, dict[str, float]]:
    """One run: (workload, outcome, counters with the judge's)."""
    if absent := missing_modules(engine):
        pytest.skip(f"{engine} needs {', '.join(absent)}; run: {engine_entry(engine).install}")
    usual = {"scale": 0.02, "rows": 20, "commits": 6} if workload == "lake" else {}
    bound = load_workload(workload, **{**usual, **parameters}).bind(data_root)
    session = load_engine(engine).open(two_cpus, {})
    try:
        session.prepare(bound)
        recorder = Recorder()
        outcome = session.run(bound, recorder, tmp_path)
        return bound, outcome, {**recorder.counters, **outcome.account()}
    finally:
        session.close()


def test_a_table_format_keeps_every_acknowledged_commit(data_root: Path, two_cpus: ClusterSpec, tmp_path: Path) -> None:
    bound, outcome, counters = run("delta", data_root, two_cpus, tmp_path, operation="mixed", kills=2, commits=8)
    assert outcome.table is not None and outcome.seconds is not None
    bound.verify(outcome.table)
    assert counters["operations"] == 16 and 1 <= counters["killed"] <= 2
    assert counters["acknowledged"] + counters["refused"] + counters["killed"] == 16
    assert not any(counters[kind] for kind in KINDS)
    history = history_of(outcome.table)
    assert sum(d.kind == "version" for d in history) >= counters["acknowledged"]
    damaged = outcome.table.filter(
        [d.tag != history[0].tag or d.kind == "version" for d in history]
    )  # somebody else's rows are there
    with pytest.raises(WrongResult, match="unexplained"):
        bound.verify(damaged)


def test_plain_files_lose_increments_and_nobody_is_told(data_root: Path, two_cpus: ClusterSpec, tmp_path: Path) -> None:
    bound, outcome, counters = run("files", data_root, two_cpus, tmp_path, operation="increment", commits=60, writers=3)
    assert counters["refused"] == 0 and counters["lost"] > 0
    with pytest.raises(WrongResult, match="lost"):
        bound.verify(outcome.table)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("engine", FORMATS)
def test_every_operation_on_every_format(
    engine: str, operation: str, data_root: Path, two_cpus: ClusterSpec, tmp_path: Path
) -> None:
    bound, outcome, counters = run(engine, data_root, two_cpus, tmp_path, operation=operation, writers=3, kills=3)
    bound.verify(outcome.table)
    assert counters["acknowledged"] > 0 and counters["killed"] + counters["failed"] <= 3


def test_pipelines_and_clients_are_told_apart(data_root: Path, two_cpus: ClusterSpec) -> None:
    lake, query = (load_workload(name, scale=0.02).bind(data_root) for name in ("lake", "flights_udf"))
    for engine, workload in (("duckdb", lake), ("streaming", lake), ("files", query)):
        session = load_engine(engine).open(two_cpus, {})
        try:
            with pytest.raises(Unsupported, match=engine):
                session.prepare(workload)
        finally:
            session.close()


def test_kills_are_spread_over_clients_operations_and_moments() -> None:
    found = moments(8, 2, 40)
    assert [len(part) for part in found] == [4, 4]
    assert all(0 <= number < 40 for part in found for number, _ in part)
    assert all(len({number for number, _ in part}) == 4 for part in found)
    shares = sorted(share for part in found for _, share in part)
    assert shares[0] < 0.2 and shares[-1] > 0.9


def test_an_operation_without_an_end_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(
        '{"b": 0, "kind": "append", "t": 1, "rows": 2}\n{"e": 0, "t": 2, "o": "ok", "a": 1, "w": "", "s": null}\n'
        '{"b": 1, "kind": "append", "t": 3, "rows": 2}\n{"b": 2, "kind": "append", "t": 4, "rows": 2}\n{"e": 2, "t'
    )
    assert [(d.number, d.outcome, d.end_s) for d in read_journal(path, "writer")] == [
        (0, "ok", 2), (1, "unknown", float("inf")), (2, "unknown", float("inf")),
    ]  # fmt: skip
