"""Records whose costs are known: the calibration finds them, and the simulated world gives the run back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.sim import crafted
from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.sim.calibration.calibrate import calibrate
from windtunnel.sim.calibration.fits import non_negative_fit, rows_law, weighted_median
from windtunnel.sim.costs.measured import Calibration


def fitted(records: list[RunRecord]) -> Calibration:
    """The calibration of crafted records."""
    return calibrate(records, provenance={"date": "2026-01-01"}, workloads={"crafted": crafted.WORKLOAD})


PHASES = [
    ("scan", "Scan", crafted.SCAN), ("keep", "Filter", crafted.FILTER), ("sums", "PartialAggregate", crafted.PARTIAL),
    ("sums", "Exchange", crafted.EXCHANGE), ("sums", "FinalAggregate", crafted.FINAL),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "phase", "cost"), PHASES)
def test_costs_of_phases_are_found(operator: str, phase: str, cost: tuple[float, float]) -> None:
    found = fitted(crafted.grid()).operator("crafted", operator, phase)
    assert found.samples == (72 if phase == "FinalAggregate" else 168)
    rows = crafted.ROWS_AT_SCALE_1 / 4
    # What a task takes is found to a percent; how it splits into fixed and per row, to a tenth.
    assert found.fixed_s + rows * (found.per_row_s + found.per_byte_s * crafted.WIDTH) == pytest.approx(
        cost[0] + rows * cost[1], rel=0.02
    )
    assert found.fixed_s == pytest.approx(cost[0], rel=0.1, abs=2e-5)
    assert found.cv < 0.02 and found.error < 0.02


def test_rows_and_widths_are_found() -> None:
    calibration = fitted(crafted.grid())
    scan, keep = calibration.operator("crafted", "scan", "Scan"), calibration.operator("crafted", "keep", "Filter")
    partial = calibration.operator("crafted", "sums", "PartialAggregate")
    assert (scan.rows_factor, scan.rows_exponent) == pytest.approx((crafted.ROWS_AT_SCALE_1, 1.0))
    assert (keep.rows_factor, keep.rows_exponent) == pytest.approx((crafted.KEPT, 1.0))
    assert (partial.rows_factor, partial.rows_exponent) == pytest.approx((crafted.GROUPS, 0.0))
    assert (scan.row_bytes_out, partial.row_bytes_out) == pytest.approx((crafted.WIDTH, crafted.GROUP_BYTES))


def test_overheads_and_the_co_run_law_are_found() -> None:
    cost = fitted(crafted.grid()).engine("bulk")
    assert cost.startup_s == pytest.approx(crafted.STARTUP_S, rel=0.05)
    assert cost.finish_s == pytest.approx(crafted.FINISH_S, rel=0.01)
    assert cost.task_s + cost.launch_s + cost.done_s == pytest.approx(crafted.GAP_S, rel=0.2)
    assert cost.emit_block_s == pytest.approx(crafted.EMIT_S, rel=0.3)
    assert cost.fetch_block_s == pytest.approx(crafted.FETCH_S, rel=0.3)
    assert cost.slowdown[0] == (1.0, 1.0)
    assert cost.slowdown[-1] == (2.0, pytest.approx(crafted.SLOWDOWN, rel=0.02))


def test_who_feels_neighbours_more_is_found() -> None:
    """Scans are slowed down by 1.6, all else by 1.25: what each feels is the law times its sensitivity."""
    calibration = fitted(crafted.grid(scan_slowdown=1.6))
    law = calibration.engine("bulk").slowdown[-1][1]
    for operator, phase, truth in (("scan", "Scan", 1.6), ("keep", "Filter", 1.25), ("sums", "PartialAggregate", 1.25)):
        sensitivity = calibration.operator("crafted", operator, phase).sensitivity
        assert 1 + sensitivity * (law - 1) == pytest.approx(truth, rel=0.03)
    for operator, phase, cost in PHASES[:3]:
        found = calibration.operator("crafted", operator, phase)
        assert found.fixed_s + 1e5 * found.per_row_s == pytest.approx(cost[0] + 1e5 * cost[1], rel=0.03)


def test_cold_memory_is_found() -> None:
    calibration = fitted(crafted.grid(cold=1.3))
    assert calibration.engine("bulk").cold == pytest.approx(1.3, rel=0.03)
    assert fitted(crafted.grid()).engine("bulk").cold == pytest.approx(1.0, abs=0.02)
    for operator, phase, cost in PHASES[:3]:
        found = calibration.operator("crafted", operator, phase)
        assert found.fixed_s + 1e5 * found.per_row_s == pytest.approx(cost[0] + 1e5 * cost[1], rel=0.05)


def test_the_fastest_session_of_a_cell_counts() -> None:
    slow = [replace(r, run_id=r.run_id + "-slow", open_s=9.0) for r in crafted.grid(slower=1.3)]
    assert fitted([*slow, *crafted.grid()]).operators == fitted(crafted.grid()).operators


def test_pauses_tell_what_forgetting_inputs_costs() -> None:
    from windtunnel.sim.calibration.overheads import pauses_law
    from windtunnel.sim.costs.measured import EngineCost

    found = [(0.0, 0.0005), (1e3, 0.0005), (10e6, 0.0025), (20e6, 0.0045), (40e6, 0.0085)]
    base, rate = pauses_law(found, EngineCost(engine="x"))
    assert base == pytest.approx(0.0005)
    assert rate == pytest.approx(5e9)
    assert pauses_law(found[:2], EngineCost(engine="x"))[1] == 0.0


def test_spread_is_found() -> None:
    records = [crafted.record(scale=s, cv=0.1, repetition=n) for s in (0.5, 1.0, 2.0) for n in range(40)]
    calibration = fitted(records)
    for operator, phase, _ in PHASES[:3]:
        assert calibration.operator("crafted", operator, phase).cv == pytest.approx(0.1, rel=0.25)


def test_a_hiccup_changes_nothing() -> None:
    clean, spoilt = crafted.grid(), crafted.grid()
    spoilt[3] = replace(crafted.record(scale=0.5, workers=1, partitions=4, repetition=1, slower=7.0), run_id=spoilt[3].run_id)
    a, b = fitted(clean), fitted(spoilt)
    for operator, phase, _ in PHASES:
        one, other = a.operator("crafted", operator, phase), b.operator("crafted", operator, phase)
        assert other.fixed_s + 1e5 * other.per_row_s == pytest.approx(one.fixed_s + 1e5 * one.per_row_s, rel=0.02)


def test_runs_beside_busy_neighbours_are_left_out() -> None:
    disturbed = [replace(r, run_id=r.run_id + "-busy") for r in crafted.grid(foreign=1.2, slower=1.6)]
    alone, both = fitted(crafted.grid()), fitted([*crafted.grid(), *disturbed])
    assert both.operators == alone.operators
    assert both.provenance["records"] == alone.provenance["records"] == 36
    assert both.provenance["left_out"] == 36
    assert fitted(disturbed).provenance["records"] >= 12  # nothing better: the quietest third stands in


def test_the_simulation_gives_the_runs_back() -> None:
    """Calibrated on some cells, another cell is predicted as its costs say."""
    from tests.sim.jobs import cluster
    from windtunnel.engines.models.bulk import Bulk
    from windtunnel.engines.physical import compile_job
    from windtunnel.records.record import Recorder
    from windtunnel.sim.costs.laws import stage_laws
    from windtunnel.sim.world.world import SimWorld
    from windtunnel.spec.workload import BoundWorkload, TableData

    calibration = fitted(crafted.grid())
    for scale, workers, partitions in ((1.5, 1, 6), (1.5, 2, 6), (0.7, 2, 4), (3.0, 1, 8)):
        data = TableData(name="t", format="parquet", paths=("-",) * partitions, rows=1, bytes=1, schema=())
        workload = replace(crafted.WORKLOAD, dataset=replace(crafted.WORKLOAD.dataset, scale=scale, partitions=partitions))
        bound = BoundWorkload(workload=workload, tables=(data,), folder=Path())
        job = compile_job(bound, partitions=2)
        world = SimWorld(
            cluster(workers), job, stage_laws(job, bound, calibration), Recorder(), cost=calibration.engine("bulk"), seed=1
        )
        rows = sum(b.rows for b in world.run(Bulk()))
        measured = crafted.record(scale=scale, workers=workers, partitions=partitions)
        assert rows == crafted.GROUPS
        assert measured.makespan_s is not None
        assert world.makespan_s == pytest.approx(measured.makespan_s, rel=0.05)


def test_residuals_tell_measured_from_fitted() -> None:
    calibration = fitted(crafted.grid())
    assert len(calibration.residuals) == 36
    assert max(r.error for r in calibration.residuals) < 0.02
    assert all(r.engine == "bulk" and r.measured_s > 0 for r in calibration.residuals)


def test_nothing_to_fit_is_a_sentence() -> None:
    bad = [replace(crafted.record(), status="failed"), replace(crafted.record(), warmup=True)]
    bad += [replace(crafted.record(), clock="virtual"), replace(crafted.record(), engine="spark")]
    with pytest.raises(InputError, match="none of 4 records is a measured, successful wall run of bulk or streaming"):
        fitted(bad)


def test_non_negative_fit_by_hand() -> None:
    columns = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]])
    assert non_negative_fit(columns, np.array([3.0, 5.0, 9.0])) == pytest.approx([1.0, 2.0])
    assert non_negative_fit(columns, np.array([4.0, 3.0, 1.0]))[1] == 0.0  # never negative


def test_rows_laws_by_hand() -> None:
    x = np.array([10.0, 100.0, 1000.0])
    assert rows_law(x, x / 4) == pytest.approx((0.25, 1.0))
    assert rows_law(x, np.array([7.0, 7.0, 7.0])) == pytest.approx((7.0, 0.0))
    assert rows_law(x, 3 * x**0.5) == pytest.approx((3.0, 0.5))
    assert rows_law(x, np.zeros(3)) == (0.0, 1.0)
    assert rows_law(np.array([50.0, 50.0]), np.array([5.0, 5.0])) == pytest.approx((0.1, 1.0))


def test_weighted_median_by_hand() -> None:
    assert weighted_median([(1.0, 1.0), (2.0, 1.0), (9.0, 1.0)]) == 2.0
    assert weighted_median([(1.0, 1.0), (2.0, 1.0), (9.0, 5.0)]) == 9.0
