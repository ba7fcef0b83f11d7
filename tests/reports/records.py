"""Records made by hand, for reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from windtunnel.records.record import Recorder, RunRecord

NODE = {
    "name": "here", "count": 1, "cpus": 2, "memory_bytes": 2**32, "memory_limit_bytes": None, "price_per_hour_usd": 0.0,
    "gpus": {"count": 0},
}  # fmt: skip
HOST = {
    "cpu_model": "test",
    "cpus_usable": 2,
    "memory_bytes": 2**32,
    "kernel": "6",
    "python": "3.11",
    "libraries": {"duckdb": "1"},
}


def record(engine: str, makespan_s: float | None, repetition: int = 0, **changes: Any) -> RunRecord:
    """A run of ``engine``; without a makespan a failed one. It computes for half of its time and waits at a barrier."""
    recorder = Recorder()
    if makespan_s:
        for worker in range(2):
            recorder.span("compute", "scan", 0.0, makespan_s / 2, worker=worker, partition=worker, rows=500, bytes=4000)
        recorder.span("barrier", "scan", makespan_s / 2, makespan_s)
        recorder.sample("memory_bytes", makespan_s / 2, 1e6)
    plain = RunRecord(
        run_id=f"{engine}-{changes.get('label', engine)}-{repetition}", cell=engine, experiment="test", workload="tpch_q1",
        workload_digest="d", workload_spec={
            "kind": "etl", "description": "sums", "dataset": {"rows": 1000, "partitions": 4},
            "pipeline": {"operators": [{"name": "scan", "inputs": [], "resources": {"cpus": 1.0, "gpus": 0.0}}]},
        }, scale=0.1, engine=engine, engine_version="1.0", label=engine, options={"fuse": True}, cluster="1 × here (2 CPUs)",
        cluster_spec={"nodes": [NODE]}, clock="virtual" if engine.startswith("sim:") else "wall", seed=7, repetition=repetition,
        warmup=False, status="ok" if makespan_s else "failed", reason=None if makespan_s else "a worker died",
        makespan_s=makespan_s, open_s=0.5, prepare_s=0.01, rows_out=4 if makespan_s else None,
        peak_memory_bytes=10**6 if makespan_s else None, verified=bool(makespan_s), environment=HOST,
        counters={"blocks": 3.0, "spilled_bytes": 128.0} if makespan_s else {}, spans=recorder.span_table(),
        samples=recorder.sample_table(),
    )  # fmt: skip
    return replace(plain, **changes)


def runs(engine: str, *makespans: float, **changes: Any) -> list[RunRecord]:
    """One record a makespan."""
    return [record(engine, m, i, **changes) for i, m in enumerate(makespans)]
