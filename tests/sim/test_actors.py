"""Stateful kernels of records made by hand: loads, first calls and calls are found; the simulated world pays them; other engines too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.sim import crafted
from tests.sim.jobs import FREE, step, two_stages
from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.engines.models.ray import pool_of
from windtunnel.engines.physical import compile_job
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.sim.calibration.actors import FirstCall, first_call, kept, loading, published_s
from windtunnel.sim.calibration.calibrate import calibrate
from windtunnel.sim.calibration.foreign import foreign_cost, kernel_law, loads_a_worker, remainder
from windtunnel.sim.calibration.grid import Cell, choice_of
from windtunnel.sim.calibration.observe import _stand_in, observe
from windtunnel.sim.costs.curves import knots_of, task_seconds
from windtunnel.sim.costs.laws import LOAD, stage_laws
from windtunnel.sim.costs.measured import Calibration, EngineCost
from windtunnel.sim.world.tasks import StageRun
from windtunnel.spec.canonical import to_plain
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.devices import emulated
from windtunnel.spec.plan import MapBatches, Operator, Pipeline, Resources, Scan, State
from windtunnel.spec.workload import Workload

LOAD_S, FIRST_S, CALL_S, ROW_S = 0.4, 0.15, 0.02, 1e-3


def workload(batch_rows: int, gpus: float = 0.0) -> Workload:
    """A scan and a model."""
    resources = Resources(cpus=0, gpus=gpus) if gpus else Resources()
    model = Operator(
        name="model", kind="map", kernel=MapBatches(function="tests:none", schema=(("x", "int64"),)), inputs=("scan",),
        state=State(kind="actor"), batch_rows=batch_rows, language="python", resources=resources,
    )  # fmt: skip
    scan = Operator(name="scan", kind="scan", kernel=Scan(table="t", columns=("x",)))
    return replace(crafted.WORKLOAD, name="model", kind="inference", pipeline=Pipeline((scan, model)))


def record(
    rows: int, batch_rows: int, *, tasks: int = 4, engine: str = "streaming", device: str = "", late: float = 0.0
) -> RunRecord:
    """A run of one worker that loads the model, and whose first task takes longer."""
    recorder, at = Recorder(), 0.0
    for p in range(tasks):
        recorder.span("compute", "scan", at, at + 0.01, partition=p, worker=0, rows=rows, bytes=8 * rows)
        recorder.span("emit", "scan", at + 0.01, at + 0.011, partition=p, worker=0, rows=rows, bytes=8 * rows)
        at += 0.012
    recorder.span("load", "model", at, at + LOAD_S, worker=1)
    at += LOAD_S
    for p in range(tasks):
        calls = -(-rows // batch_rows)
        seconds = calls * CALL_S + rows * ROW_S + (FIRST_S if p == 0 else 0.0)
        if device:
            seconds = calls * emulated(device).fixed_s + rows * (emulated(device).row_s + late)
        recorder.span("compute", "model", at, at + seconds, partition=p, worker=1, rows=rows, bytes=8 * rows)
        recorder.span("fetch", "model", at, at, partition=p, worker=1, rows=rows, bytes=8 * rows)
        recorder.span("emit", "model", at + seconds, at + seconds + 0.001, partition=p, worker=1, rows=rows, bytes=8 * rows)
        at += seconds + 0.0015
    base = crafted._record(recorder, at, 1.0, 1, tasks, 0, engine)
    spec = to_plain(workload(batch_rows, 1.0 if device else 0.0))
    assert isinstance(spec, dict)
    cluster = {**base.cluster_spec}
    cluster["nodes"] = [{**n, "gpus": {**n["gpus"], "kind": device or "slot"}} for n in cluster["nodes"]]
    dataset = {**spec["dataset"], "partitions": tasks}
    name = f"{rows}-{batch_rows}-{device}"
    return replace(
        base, workload="model", workload_spec={**spec, "dataset": dataset}, cluster_spec=cluster, rows_out=rows * tasks,
        cell=name, run_id=name,
    )  # fmt: skip


def fitted(*records: RunRecord) -> Calibration:
    """The calibration of such runs."""
    return calibrate(records, provenance={}, workloads={"model": workload(8)})


def test_loads_first_calls_calls_and_rows_are_told_apart() -> None:
    calibration = fitted(record(40, 8), record(80, 8), record(40, 40), record(80, 40))
    load, model = calibration.operator("model", "model", LOAD), calibration.operator("model", "model", "MapBatches")
    assert load.fixed_s == pytest.approx(LOAD_S) and load.first_s == pytest.approx(FIRST_S, rel=0.01)
    assert [n for n, _ in model.curve] == [0, 8, 40]
    assert [s for _, s in model.curve] == pytest.approx([0.02, 0.028, 0.06], rel=0.05)
    assert task_seconds(model.curve, 50, 16) == pytest.approx(4 * CALL_S + 50 * ROW_S, rel=0.02)  # between: 16, 16, 16 and 2


def test_a_curve_that_is_no_line_is_followed() -> None:
    """A row in calls of 32 takes longer than in calls of 8: between the two as far as the way is, beyond the last as before it."""
    curve = ((0.0, 0.0), (8.0, 0.04), (32.0, 0.232))
    assert [task_seconds(curve, n, n) for n in (4, 8, 20, 32, 56)] == pytest.approx([0.02, 0.04, 0.136, 0.232, 0.424])
    assert task_seconds(curve, 50, 32) == pytest.approx(0.232 + 0.12)
    assert knots_of([8, 32, 33]) == (0.0, 8, 32) and knots_of([8, 9]) == ()


def test_one_batch_size_tells_no_calls_from_rows() -> None:
    model = fitted(record(40, 8), record(80, 8)).operator("model", "model", "MapBatches")
    assert model.curve == () and model.fixed_s + 80 * model.per_row_s == pytest.approx(10 * CALL_S + 80 * ROW_S, rel=0.02)


def test_a_first_call_of_many_rows_takes_longer() -> None:
    found = first_call(np.array([0.1, 0.22, 0.1]), np.array([8.0, 32.0, 8.0]))
    assert (found.first_s, found.first_row_s) == pytest.approx((0.06, 0.005))
    assert first_call(np.array([0.1, 0.3, 0.2]), np.array([8.0, 8.0, 8.0])) == FirstCall(0.2, 0.0)
    assert first_call(np.array([-0.1, -0.2]), np.array([8.0, 32.0])) == FirstCall()


def test_rows_a_call_come_from_the_record() -> None:
    run = observe(record(40, 40), {"model": workload(8)})
    assert {s.operators: s.payload[0].steps[0].batch_rows for s in run.job.stages}[("model",)] == 40


def test_a_simulated_worker_loads_as_long_as_was_measured() -> None:
    calibration = fitted(record(40, 8), record(80, 8))
    job = loading(compile_job(_stand_in(workload(8)), partitions=1, fuse=True), "model", calibration)
    assert [s.state.load_s for s in job.stages] == pytest.approx([0.0, LOAD_S], rel=0.01)
    assert [law.first_s for law in stage_laws(job, _stand_in(workload(8)), calibration)] == pytest.approx(
        [0.0, FIRST_S], rel=0.01
    )


def test_state_that_a_session_keeps_is_one_task_with_its_input() -> None:
    (stage,) = compile_job(kept(_stand_in(workload(8))), partitions=1, fuse=True).stages
    assert stage.operators == ("scan", "model") and stage.state.kind == "stateless"
    on_device = compile_job(kept(_stand_in(workload(8, 1.0))), partitions=1, fuse=True)
    assert [s.state.kind for s in on_device.stages] == ["stateless", "actor"]


def test_of_an_emulated_device_only_what_exceeds_its_figures_is_fitted() -> None:
    late = 2e-4
    records = [record(n, 8, device="emulated:T4", late=late) for n in (40, 80)]
    run = observe(records[0], {"model": workload(8, 1.0)})
    figures = emulated("emulated:T4")
    assert published_s(run, "model", "emulated:T4", 40, 5, 0.0) == pytest.approx(5 * figures.fixed_s + 40 * figures.row_s)
    calibration = fitted(*records)
    assert not calibration.has("model", "model", "MapBatches"), "published time is no measurement"
    cost = calibration.operator("model", "model", "MapBatches@emulated")
    assert cost.fixed_s + 80 * cost.per_row_s == pytest.approx(80 * late, rel=0.05)


# -- engines that keep their insides to themselves ----------------------------------------------------------------------


def told(engine: str, cell: Cell, seconds: float, **counters: float) -> RunRecord:
    """A run of a foreign engine."""
    plain = crafted.record(engine=engine, scale=cell.scale, workers=cell.workers)
    return replace(plain, makespan_s=seconds, counters=counters)


def cell(scale: float, workers: int) -> Cell:
    """A place in the grid."""
    return Cell("crafted", scale, workers, 4, 0, "", "ray")


def simulated(where: Cell, seconds: float, kernels: float) -> RunRecord:
    """A simulated run with a kernel of so many seconds."""
    recorder = Recorder()
    recorder.span("compute", "model", 0.0, kernels)
    return replace(told("sim:ray", where, seconds), spans=recorder.span_table())


def test_what_is_left_is_told_apart() -> None:
    took, before, crossing = np.array([5.0, 6.0, 8.0]), np.array([1.0, 1.5, 2.5]), np.array([100.0, 200.0, 400.0])
    assert remainder(took, before, crossing) == pytest.approx((3.5, 5e-3))
    assert remainder(np.array([1.0, 2.0]), np.array([1.5, 3.0]), np.array([1.0, 2.0])) == (0.0, 0.0)  # never negative


def test_kernels_tell_the_co_run_law_of_an_engine() -> None:
    cells = {cell(1.0, 1): (2.0, 2.2), cell(1.0, 2): (2.0, 3.0), cell(2.0, 2): (4.0, 6.0)}
    measured = {
        c: [told("ray", c, 9.0, **{"kernel_s:model": 99.0, "kernel_s": 99.0}, kernel_cpu_s=s)] for c, (_, s) in cells.items()
    }
    law = kernel_law(measured, {c: [simulated(c, 1.0, e)] for c, (e, _) in cells.items()}, Calibration())
    assert law == ((1.0, pytest.approx(1.1)), (2.0, pytest.approx(1.5)))


def test_sessions_that_keep_state_load_less() -> None:
    places = (cell(1.0, 2), cell(2.0, 2), cell(2.0, 1))
    assert loads_a_worker({c: [told("ray", c, 1.0, kernel_s=1.0, loads=float(c.workers))] for c in places}) == 1.0
    assert loads_a_worker({c: [told("ray", c, 1.0, kernel_s=1.0)] for c in places}) == 0.0
    assert loads_a_worker({c: [told("ray", c, 1.0)] for c in places}) == 1.0  # no kernels: nobody counted


def test_overheads_of_a_foreign_engine_are_found() -> None:
    """An engine that starts in 3 s, crosses in 2 ms a row and runs kernels 1.2 times as long; loads are kept."""
    places = {cell(1.0, 1): 100.0, cell(2.0, 1): 200.0, cell(4.0, 1): 400.0}

    def simulate(cost: EngineCost) -> dict[Cell, list[RunRecord]]:
        law = dict(cost.slowdown).get(1.0, 1.0)
        seconds = {c: cost.startup_s + rows * (0.01 * law + cost.bridge_row_s) for c, rows in places.items()}
        return {c: [simulated(c, s, 0.01 * places[c] * law)] for c, s in seconds.items()}

    measured = {
        c: [told("ray", c, 3.0 + rows * (0.012 + 0.002), **{"kernel_s:model": rows, "kernel_s": rows}, kernel_cpu_s=0.012 * rows)]
        for c, rows in places.items()
    }
    cost = foreign_cost("ray", measured, Calibration(), simulate)
    assert (cost.startup_s, cost.bridge_row_s) == pytest.approx((3.0, 0.002))
    assert cost.keeps_state
    assert cost.slowdown == ((1.0, pytest.approx(1.2)),)
    assert cost.task_s == 14e-3  # its sourced constants stay


def test_an_engine_whose_own_operators_work_gets_a_factor() -> None:
    def simulate(cost: EngineCost) -> dict[Cell, list[RunRecord]]:
        return {c: [simulated(c, cost.startup_s + 2.0 * c.scale, 0.0)] for c in places}

    places = {cell(s, 1): 3.0 + 1.5 * 2.0 * s for s in (0.5, 1.0, 4.0)}
    embedded = Calibration(engines=(EngineCost(engine="bulk", slowdown=((1.0, 1.0), (2.0, 1.2))),))
    cost = foreign_cost("spark", {c: [told("spark", c, s)] for c, s in places.items()}, embedded, simulate)
    assert cost.startup_s == pytest.approx(3.0)
    assert [m for _, m in cost.slowdown] == pytest.approx([1.5, 1.8])


def test_one_cell_is_too_few() -> None:
    with pytest.raises(InputError, match="2 at least"):
        foreign_cost("ray", {cell(1.0, 1): [told("ray", cell(1.0, 1), 2.0)]}, Calibration(), lambda cost: {})


def test_a_cell_with_a_device_is_a_job_for_it() -> None:
    choice = choice_of(Cell("images", 0.1, 2, 4, 8, "emulated:T4", ""))
    assert choice.parameters["gpus"] == 1.0 and choice.cluster is not None
    assert choice.cluster.nodes[0].gpus.kind == "emulated:T4" and choice.load().pipeline is not None


@pytest.mark.parametrize(("cpus", "pools", "found"), [(4, 1, (4, 0.5)), (2, 1, (2, 0.5)), (2, 2, (2, 0.25)), (1, 1, (1, 0.0))])
def test_actors_of_ray_leave_a_cpu_to_read_with(cpus: int, pools: int, found: tuple[int, float]) -> None:
    assert pool_of(1.0, cpus, pools) == found
    job = compile_job(_stand_in(workload(8)), partitions=1, fuse=True)
    if pools == 1:
        planned = ENTRIES["ray"].plan(job, {}, ClusterSpec.here(cpus=cpus))
        stage = planned.stages[1]
        assert stage.concurrency is not None and (stage.concurrency.minimum, stage.resources.cpus) == found
        assert planned.stages[0] == job.stages[0]


def test_an_actor_keeps_busy_what_its_kernel_needs_not_what_it_claims() -> None:
    job, laws = two_stages(2, step(per_row=1e-9), step(per_row=1.0), state=State(kind="actor"), resources=Resources(cpus=0.25))
    weights = [StageRun(job.stages[1], replace(laws[1], cpus=cpus), FREE, 1, 0).weight for cpus in (0.0, 1.0)]
    assert weights == [0.25, 1.0]
