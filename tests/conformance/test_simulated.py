"""The other world: every workload that runs for real runs simulated, from costs measured here, with the same operators in its record."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import ETL
from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.records.record import RunRecord
from windtunnel.registry import WORKLOADS, load_workload
from windtunnel.running.cell import run_cell
from windtunnel.running.cellspec import CellSpec, WorkloadChoice, cell_digest
from windtunnel.scenario.tables import EngineChoice
from windtunnel.sim.calibration.calibrate import calibrate
from windtunnel.spec.cluster import ClusterSpec, NodeSpec

SCALE = 0.01
MODELS = ("bulk", "streaming")
ROOMY = ClusterSpec(nodes=(NodeSpec(cpus=2, memory_bytes=16 * 2**30),))  # Flink keeps a process for every operator
MODELLED = tuple(name for name in ENTRIES if name not in MODELS)
NAMES = [
    pytest.param(n, marks=[] if n in (*ETL, "images") else [pytest.mark.slow])
    for n in WORKLOADS
    if load_workload(n).clients is None
]  # models take their time

Measured = Callable[[str], tuple[dict[str, RunRecord], Path]]


def run(name: str, engine: str, cluster: ClusterSpec, data_root: Path, scratch: Path, **options: Any) -> tuple[RunRecord, ...]:
    """One measured run, in this process."""
    choice = WorkloadChoice(name=name, parameters={"scale": SCALE})
    chosen = EngineChoice(name=engine, label=engine, options=options)
    cell = cell_digest("conformance", choice.load(), chosen, cluster, {})
    spec = CellSpec(
        experiment="conformance", workload=choice, engine=chosen, cluster=cluster, repetitions=(0,), round=0, seed=7,
        data_root=str(data_root), store_root="", cell=cell, scratch=str(scratch),
    )  # fmt: skip
    records: list[RunRecord] = []
    run_cell(spec, lambda record, start, end: records.append(record))
    return tuple(r for r in records if not r.warmup)


@pytest.fixture(scope="module")
def measured(data_root: Path, two_cpus: ClusterSpec, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Real runs of a workload by engine, and costs fitted to them; made when they are first asked for."""
    scratch = tmp_path_factory.mktemp("scratch")

    @cache
    def of(name: str) -> tuple[dict[str, RunRecord], Path]:
        runs = {m: run(name, m, two_cpus, data_root, scratch) for m in MODELS}
        costs = scratch / f"{name}.json"
        calibrate([r for records in runs.values() for r in records], provenance={}).save(costs)
        return {m: records[-1] for m, records in runs.items()}, costs

    return of


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_workload_runs_in_both_worlds(
    name: str,
    model: str,
    measured: Measured,
    two_cpus: ClusterSpec,
    data_root: Path,
    tmp_path: Path,
) -> None:
    runs, costs = measured(name)
    real = runs[model]
    simulated = run(name, f"sim:{model}", two_cpus, data_root, tmp_path, calibration=str(costs))[-1]
    assert (real.status, simulated.status) == ("ok", "ok"), (real.reason, simulated.reason)
    assert simulated.makespan_s is not None
    assert simulated.makespan_s >= simulated.counters["lower_bound_s"] * 0.5
    assert simulated.rows_out is not None and real.rows_out is not None
    assert 0.5 * real.rows_out - 2 <= simulated.rows_out <= 2 * real.rows_out + 2
    assert simulated.counters["tasks"] == real.counters["tasks"]
    assert _operators(simulated) == _operators(real)


@pytest.mark.parametrize("engine", MODELLED)
@pytest.mark.parametrize("name", NAMES)
def test_a_workload_runs_on_every_simulated_engine(
    name: str,
    engine: str,
    measured: Measured,
    data_root: Path,
    tmp_path: Path,
) -> None:
    runs, costs = measured(name)
    real = runs["bulk"]
    simulated = run(name, f"sim:{engine}", ROOMY, data_root, tmp_path, calibration=str(costs))[-1]
    assert simulated.status == "ok", simulated.reason
    assert simulated.makespan_s is not None and simulated.rows_out is not None and real.rows_out is not None
    assert simulated.makespan_s >= simulated.counters["lower_bound_s"] * 0.5
    assert 0.5 * real.rows_out - 2 <= simulated.rows_out <= 2 * real.rows_out + 2
    startup = next(c.value for c in ENTRIES[engine].traits.constants if c.name == "startup_s")
    assert simulated.makespan_s > startup, "the engine's own constants hold where a calibration has none of it"


def _operators(record: RunRecord) -> set[str]:
    """Operators with a compute span; a sink writes while it emits for real, and computes simulated."""
    sinks = {op["name"] for op in record.workload_spec["pipeline"]["operators"] if op["kind"] == "sink"}
    return {s["operator"] for s in record.spans.to_pylist() if s["kind"] == "compute"} - sinks
