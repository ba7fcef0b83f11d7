"""Wall records made by hand from known costs, laid out as the embedded workers write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.records.record import Recorder, RunRecord
from windtunnel.spec.canonical import to_plain
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.expr import col
from windtunnel.spec.plan import Aggregate, Filter, Measure, Operator, Pipeline, Scan
from windtunnel.spec.workload import DatasetSpec, Workload

STARTUP_S, FINISH_S, GAP_S = 0.004, 0.003, 0.0005
ROWS_AT_SCALE_1, WIDTH, KEPT, GROUPS, GROUP_BYTES = 400_000, 80, 0.5, 10, 64
SLOWDOWN = 1.25  # beside one other busy worker
SCAN = (1e-3, 2e-7)  # seconds fixed and a row
FILTER = (1e-4, 1e-7)
PARTIAL = (2e-4, 3e-7)
EXCHANGE = (4e-4, 0.0)
FINAL = (6e-4, 0.0)
EMIT_S, FETCH_S = 1e-4, 8e-5

WORKLOAD = Workload(
    name="crafted", kind="etl",
    pipeline=Pipeline((
        Operator(name="scan", kind="scan", kernel=Scan(table="t", columns=("k", "v"))),
        Operator(name="keep", kind="filter", kernel=Filter(predicate=col("v") > 1), inputs=("scan",)),
        Operator(
            name="sums", kind="aggregate", inputs=("keep",),
            kernel=Aggregate(keys=("k",), measures=(Measure(name="n", function="count"),)),
        ),
    )),
    dataset=DatasetSpec(name="t", generator="tests:none", scale=1.0, partitions=4),
)  # fmt: skip


@dataclass
class Clock:
    """Lays tasks out on workers; with two of them every task is slowed down by its neighbour."""

    recorder: Recorder
    workers: int
    noise: np.random.Generator
    cv: float = 0.0
    cold: float = 1.0
    scan_slowdown: float = SLOWDOWN

    def __post_init__(self) -> None:
        self.free = [STARTUP_S] * self.workers
        self.warm = [False] * self.workers

    def task(self, partition: int, pieces: Iterable[tuple[str, str, float, int, int]]) -> None:
        """(kind, operator, seconds, rows, bytes) one after the other on the worker that is free first."""
        worker = self.free.index(min(self.free))
        at = self.free[worker]
        for kind, operator, seconds, rows, size in pieces:
            factor = max(0.1, 1.0 + self.cv * float(self.noise.standard_normal()))
            if self.workers > 1:
                factor *= self.scan_slowdown if operator == "scan" else SLOWDOWN
            if kind in ("compute", "serialize") and not self.warm[worker]:
                factor *= self.cold
            end = at + seconds * factor
            self.recorder.span(
                kind, operator, at, end, partition=partition, worker=worker, rows=rows, bytes=size,  # type: ignore[arg-type]
            )  # fmt: skip
            at = end
        self.free[worker] = at + GAP_S
        self.warm[worker] = True

    def barrier(self) -> None:
        """All workers wait for the last one."""
        self.free = [max(self.free)] * self.workers

    @property
    def end(self) -> float:
        """When the run was over."""
        return max(self.free) - GAP_S + FINISH_S


def record(
    *, scale: float = 1.0, workers: int = 1, partitions: int = 4, repetition: int = 0, engine: str = "bulk", cv: float = 0.0,
    foreign: float = 0.0, slower: float = 1.0, cold: float = 1.0, scan_slowdown: float = SLOWDOWN,
) -> RunRecord:  # fmt: skip
    """A run with these costs. ``foreign`` cores were busy with others' work, and everything took ``slower`` times as long.

    A worker's first task takes ``cold`` times as long; beside another worker, scans take ``scan_slowdown`` times as long.
    """
    recorder = Recorder()
    clock = Clock(recorder, workers, np.random.default_rng(repetition), cv, cold, scan_slowdown)
    rows = round(scale * ROWS_AT_SCALE_1 / partitions)
    kept = round(rows * KEPT)

    def cost(of: tuple[float, float], count: int) -> float:
        return slower * (of[0] + of[1] * count)

    for p in range(partitions):
        share = GROUPS // 2
        clock.task(p, [
            ("compute", "scan", cost(SCAN, rows), rows, rows * WIDTH),
            ("compute", "keep", cost(FILTER, rows), rows, rows * WIDTH),
            ("compute", "sums", cost(PARTIAL, kept), kept, kept * WIDTH),
            ("serialize", "sums", cost(EXCHANGE, 0), GROUPS, GROUPS * GROUP_BYTES),
            *[("emit", "sums", slower * EMIT_S, share, share * GROUP_BYTES)] * 2,
        ])  # fmt: skip
    clock.barrier()
    for p in range(2):
        share = GROUPS // 2
        clock.task(p, [
            ("compute", "sums", cost(FINAL, 0), share * partitions, share * partitions * GROUP_BYTES),
            *[("fetch", "sums", slower * FETCH_S, share, share * GROUP_BYTES)] * partitions,
            ("emit", "sums", slower * EMIT_S, share, share * GROUP_BYTES),
        ])  # fmt: skip
    for at in (0.0, clock.end):
        recorder.sample("foreign_cpu_cores", at, foreign)
    return _record(recorder, clock.end, scale, workers, partitions, repetition, engine)


def _record(
    recorder: Recorder, end: float, scale: float, workers: int, partitions: int, repetition: int, engine: str
) -> RunRecord:
    dataset = replace(WORKLOAD.dataset, scale=scale, partitions=partitions)
    cluster = ClusterSpec(nodes=(NodeSpec(name="here", cpus=workers),))
    spec, hardware = to_plain(replace(WORKLOAD, dataset=dataset)), to_plain(cluster)
    assert isinstance(spec, dict) and isinstance(hardware, dict)
    name = f"{engine}-{scale}-{workers}-{partitions}"
    return RunRecord(
        run_id=f"{name}-{repetition}", cell=name, experiment="test", workload="crafted", workload_digest="d", workload_spec=spec,
        scale=scale, engine=engine, engine_version="1", label=engine, options={"partitions": 2}, cluster="here",
        cluster_spec=hardware, clock="wall", seed=7, repetition=repetition, warmup=False, status="ok", reason=None,
        makespan_s=end, open_s=0.1, prepare_s=0.1, rows_out=GROUPS, peak_memory_bytes=1, verified=True, environment={"cpu": "x"},
        counters={}, spans=recorder.span_table(), samples=recorder.sample_table(),
    )  # fmt: skip


def grid(**changes: float) -> list[RunRecord]:
    """Runs at several scales and partitions, on one worker and on two."""
    return [
        record(scale=scale, workers=workers, partitions=partitions, repetition=n, **changes)  # type: ignore[arg-type]
        for scale in (0.5, 1.0, 2.0) for workers in (1, 2) for partitions in (2, 4, 8) for n in range(2)
    ]  # fmt: skip
