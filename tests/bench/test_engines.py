"""What the embedded engines and the harness cost: start, a block, two overlapping stages, a query beside a bare script."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.cluster import ClusterSpec

CLUSTER = ClusterSpec.here(cpus=2, memory_bytes=4 * 2**30)
HEAD = 'schema = 1\nname = "bench"\n[cluster]\n[[cluster.nodes]]\ncpus = 2\nmemory = "4GiB"\n[[engines]]\nname = "bulk"\n'
TWO_STAGES = (
    HEAD
    + """
[dataset]
rows = 96000
row_bytes = "8B"
partitions = 1500
[[operators]]
name = "prepare"
kind = "map"
cost = { per_batch = "5ms" }
fixed_work = "sleep"
[[operators]]
name = "infer"
kind = "map"
cost = { per_batch = "10ms" }
fixed_work = "sleep"
resources = { cpus = 0 }
state = { kind = "actor", load = "1s" }
concurrency = 1
"""
)
EMPTY = (
    HEAD
    + """
[dataset]
rows = 2000
row_bytes = "64KiB"
partitions = 2000
[[operators]]
name = "first"
kind = "map"
cost = { per_batch = "0s" }
[[operators]]
name = "second"
kind = "map"
cost = { per_batch = "0s" }
resources = { cpus = 0 }
state = { kind = "actor" }
concurrency = 1
"""
)


@pytest.mark.parametrize("name", ["bulk", "streaming"])
def test_cold_start_with_two_workers(benchmark: Any, name: str) -> None:
    sessions: list[Any] = []
    benchmark.pedantic(
        lambda: sessions.append(load_engine(name).open(CLUSTER, {})), teardown=lambda: sessions.pop().close(), rounds=7
    )


def _run(text: str, tmp_path: Path) -> tuple[float, Recorder]:
    workload = parse_scenario(text).workload
    assert workload is not None
    bound = workload.bind(tmp_path)
    session = load_engine("streaming").open(CLUSTER, {})
    try:
        session.prepare(bound)
        recorder = Recorder()
        start = time.perf_counter()
        session.run(bound, recorder, tmp_path)
        return time.perf_counter() - start, recorder
    finally:
        session.close()


def test_two_stages_overlap(benchmark: Any, tmp_path: Path) -> None:
    """1,500 batches: 5 ms asleep on CPUs, then one replica with 10 ms and 1 s of loading. Ideal: 16.0 s."""
    seconds, recorder = benchmark.pedantic(_run, args=(TWO_STAGES, tmp_path), rounds=1)
    benchmark.extra_info["over_ideal"] = round(seconds / 16.0, 3)
    benchmark.extra_info["most_blocks_between"] = _most_between(recorder)


def _most_between(recorder: Recorder) -> int:
    """Blocks emitted by the first stage and not yet finished by the second, at most."""
    spans = recorder.span_table()
    kind, operator = spans["kind"].cast("string"), spans["operator"].cast("string")
    out = spans.filter(pc.and_(pc.equal(kind, "emit"), pc.equal(operator, "prepare")))["end_s"].to_pylist()
    gone = spans.filter(pc.and_(pc.equal(kind, "compute"), pc.equal(operator, "infer")))["end_s"].to_pylist()
    level = most = 0
    for _, change in sorted([(t, 1) for t in out] + [(t, -1) for t in gone]):
        level += change
        most = max(most, level)
    return most


def test_overhead_of_a_block(benchmark: Any, tmp_path: Path) -> None:
    """2,000 blocks of 64 KiB through two empty kernels: seconds over blocks written, 4,000."""
    runs: list[float] = []

    def once() -> None:
        seconds, recorder = _run(EMPTY, tmp_path)
        runs.append(seconds / recorder.counters["blocks"] * 1e3)

    benchmark.pedantic(once, rounds=5)
    benchmark.extra_info["ms_a_block"] = round(statistics.median(runs), 3)


# -- an engine beside a hand-written loop -----------------------------------------------------------------------------


def test_images_beside_a_loop(benchmark: Any, data_root: Path, tmp_path: Path) -> None:
    """`images` on `streaming` and in the loop, in turn: the loop's kernels alone over two CPUs are the bound, streaming's share of it."""
    pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
    bound = load_workload("images", scale=0.1).bind(data_root)
    sessions = {name: load_engine(name).open(CLUSTER, {}) for name in ("loop", "streaming")}
    shares: list[float] = []
    loops: list[float] = []

    def pair() -> None:
        seconds, kernels = {}, 0.0
        for name, session in sessions.items():
            recorder = Recorder()
            output = tmp_path / f"{name}-{len(shares)}"
            output.mkdir()
            start = time.perf_counter()
            session.run(bound, recorder, output)
            seconds[name] = time.perf_counter() - start
            kernels = recorder.counters.get("kernel_s", kernels)
        shares.append(kernels / CLUSTER.cpus / seconds["streaming"])
        loops.append(seconds["streaming"] / seconds["loop"])

    try:
        for session in sessions.values():
            session.prepare(bound)
        benchmark.pedantic(pair, rounds=3, warmup_rounds=1)
    finally:
        for session in sessions.values():
            session.close()
    benchmark.extra_info["of_optimum"] = round(statistics.median(shares[1:]), 3)
    benchmark.extra_info["over_the_loop"] = round(statistics.median(loops[1:]), 3)


# -- the harness beside a bare script ---------------------------------------------------------------------------------

Q1 = (
    "SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - l_discount)), "
    "sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*) "
    "FROM read_parquet({files}) WHERE l_shipdate <= DATE '1998-09-02' GROUP BY ALL ORDER BY ALL"
)


def _bare_duckdb(paths: list[str]) -> Callable[[], Any]:
    import duckdb

    connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": False})
    sql = Q1.format(files=paths)
    return lambda: connection.sql(sql).to_arrow_table()


def _bare_polars(paths: list[str]) -> Callable[[], Any]:
    import datetime as dt

    import polars as pl

    price, discount = pl.col("l_extendedprice"), pl.col("l_discount")

    def query() -> Any:
        lines = pl.scan_parquet(paths).filter(pl.col("l_shipdate") <= dt.date(1998, 9, 2))
        groups = lines.group_by("l_returnflag", "l_linestatus").agg(
            pl.col("l_quantity").sum().alias("sum_qty"), price.sum().alias("sum_base_price"),
            (price * (1 - discount)).sum().alias("sum_disc_price"),
            (price * (1 - discount) * (1 + pl.col("l_tax"))).sum().alias("sum_charge"),
            pl.col("l_quantity").mean().alias("avg_qty"), price.mean().alias("avg_price"),
            discount.mean().alias("avg_disc"), pl.len().alias("count_order"),
        )  # fmt: skip
        return groups.sort("l_returnflag", "l_linestatus").collect(engine="streaming").to_arrow()

    return query


@pytest.mark.parametrize(("name", "bare"), [("duckdb", _bare_duckdb), ("polars", _bare_polars)])
def test_harness_beside_a_bare_script(
    benchmark: Any, name: str, bare: Callable[..., Any], data_root: Path, tmp_path: Path
) -> None:
    """TPC-H Q1 at scale 0.5, alternating in one process: the median of the ratios of neighbours."""
    bound = load_workload("tpch_q1", scale=0.5).bind(data_root)
    script = bare(list(bound.table("lineitem").paths))
    session = load_engine(name).open(CLUSTER, {})
    session.prepare(bound)
    pairs: list[tuple[float, float]] = []

    def pair(turn: int) -> None:
        ours = _timed(lambda: session.run(bound, Recorder(), tmp_path)) if turn % 2 else 0.0
        theirs = _timed(script)
        ours = ours or _timed(lambda: session.run(bound, Recorder(), tmp_path))
        pairs.append((ours, theirs))

    try:
        for turn in range(3):
            pair(turn)
        pairs.clear()
        turns = iter(range(10_000))
        benchmark.pedantic(lambda: pair(next(turns)), rounds=31)
    finally:
        session.close()
    benchmark.extra_info["ratio"] = round(statistics.median(a / b for a, b in pairs), 3)
    benchmark.extra_info["ratio_of_medians"] = round(
        statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs), 3
    )


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
