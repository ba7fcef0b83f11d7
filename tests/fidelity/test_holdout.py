"""The held-out experiment: its halves, its judgement on records made by hand, and a small one for real."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim import crafted
from windtunnel.cli import main
from windtunnel.commands.holdout import check_holdout
from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.running.cellspec import WorkloadChoice
from windtunnel.sim.calibration.grid import ENGINES, Grid, cell_of, cell_of_choice
from windtunnel.sim.calibration.holdout import judge, table
from windtunnel.spec.cluster import ClusterSpec

GRID = Grid(workloads=("tpch_q1", "flights_udf"), scales=(0.1, 0.2, 0.4), workers=(1, 2), partitions=(2, 4))


HERE = ClusterSpec.here(cpus=1)


def run(engine: str, seconds: float, n: int = 0, *, foreign: float = 0.0, opened: float = 0.1, **place: float) -> RunRecord:
    """A measured or simulated run."""
    plain = crafted.record(engine=engine, repetition=n, foreign=foreign, **place)  # type: ignore[arg-type]
    clock = "virtual" if engine.startswith("sim:") else "wall"
    return replace(plain, makespan_s=seconds, clock=clock, open_s=opened, run_id=f"{plain.run_id}-{opened}")  # type: ignore[arg-type]


def test_the_halves_are_the_squares_of_a_checkerboard() -> None:
    fitted, predicted = ({cell_of_choice(c, "bulk")[:4] for c in half} for half in GRID.halves())
    assert len(fitted) == len(predicted) == 12 and not fitted & predicted
    for name, scale, workers, partitions in predicted:  # its neighbours in every direction are calibrated
        assert (name, scale, 3 - workers, partitions) in fitted
        assert (name, scale, workers, {2: 4, 4: 2}[partitions]) in fitted
    assert {n for n, *_ in fitted} == {n for n, *_ in predicted} == set(GRID.workloads)


def test_a_simulated_record_lies_where_its_engine_does() -> None:
    assert cell_of(run("sim:bulk", 1.0, scale=2.0, workers=2, partitions=8)) == ("crafted", 2.0, 2, 8, 0, "", "bulk")
    choice = GRID.halves()[0][0]
    assert cell_of_choice(choice, "bulk") == ("tpch_q1", 0.1, 1, 2, 0, "", "bulk")
    images = replace(GRID, workloads=("images",), batches=(4, 64))
    cells = {cell_of_choice(c, "ray") for half in images.halves() for c in half}
    assert {c[4] for c in cells} == {4, 64} and len(cells) == 2 * 12
    assert cell_of_choice(WorkloadChoice(name="images", parameters={"scale": 1.0, "partitions": 2}, cluster=HERE), "ray")[4] == 16


def test_errors_medians_and_the_worst() -> None:
    real = [run("bulk", s, n) for n, s in enumerate((1.0, 1.1, 1.2))] + [run("streaming", 2.0, n) for n in range(3)]
    real += [run("bulk", 4.0, n, scale=2.0) for n in range(3)]
    made = [run("sim:bulk", 1.21), run("sim:streaming", 1.5), run("sim:bulk", 4.0, scale=2.0), run("sim:bulk", 9.0, scale=7.0)]
    found = judge(real, made)
    assert [(p.engine, p.scale, round(p.error, 6)) for p in found.points] == [
        ("bulk", 1.0, 0.1),
        ("streaming", 1.0, -0.25),
        ("bulk", 2.0, 0.0),
    ]
    assert found.median_error == pytest.approx(0.1)
    assert found.worst_error == pytest.approx(0.25)
    assert found.points[0].measured_s == 1.1 and (found.points[0].quiet, found.points[0].runs) == (3, 3)


@pytest.mark.parametrize(("bulk", "streaming", "agree"), [(1.0, 1.4, 1), (1.4, 1.0, 0)])
def test_the_order_counts_where_engines_differ(bulk: float, streaming: float, agree: int) -> None:
    real = [run(e, s + n / 1000, n) for e, s in (("bulk", 1.0), ("streaming", 1.3)) for n in range(5)]
    real += [run(e, 1.0 + n / 1000, n, scale=2.0) for e in ENGINES for n in range(5)]  # no difference here
    made = [
        run("sim:bulk", bulk),
        run("sim:streaming", streaming),
        run("sim:bulk", 2.0, scale=2.0),
        run("sim:streaming", 1.0, scale=2.0),
    ]
    found = judge(real, made)
    assert (found.orders_agree, found.orders) == (agree, 1)


def test_noise_between_sessions_hides_small_differences() -> None:
    real = [run(e, s * f, n, opened=f) for e, s in (("bulk", 1.0), ("streaming", 1.3)) for f in (1.0, 1.5) for n in range(5)]
    found = judge(real, [run("sim:bulk", 1.0), run("sim:streaming", 0.9)])
    assert found.floor == pytest.approx(0.5)
    assert found.orders == 0
    assert [p.measured_s for p in found.points] == pytest.approx([1.0, 1.3])  # the fastest session


def test_disturbed_points_are_shown_and_not_counted() -> None:
    real = [run("bulk", 1.0, n) for n in range(3)] + [run("streaming", 5.0, n, foreign=1.0) for n in range(3)]
    found = judge(real, [run("sim:bulk", 1.0), run("sim:streaming", 1.0)])
    assert [p.engine for p in found.points] == ["bulk"]
    assert [p.engine for p in found.disturbed] == ["streaming"]
    assert found.worst_error == 0.0
    text = table(found)
    assert "1 points had no quiet run" in text and "0/3" in text


def test_nothing_measured_is_no_number() -> None:
    found = judge([], [run("sim:bulk", 1.0)])
    assert (found.points, found.median_error, found.worst_error, found.orders) == ((), None, None, 0)


@pytest.mark.parametrize(
    ("engines", "batches", "words"), [(("duckdb",), (), "both measured and simulated"), ((), (8,), "takes no rows a call")]
)
def test_what_cannot_be_held_out_is_told(engines: tuple[str, ...], batches: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_holdout(("tpch_q1",), engines, batches)


@pytest.mark.slow
def test_a_small_one_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two workloads, eight points: measured, calibrated, predicted, printed; and again without running anything twice."""
    monkeypatch.setenv("WINDTUNNEL_DATA", str(tmp_path / "data"))
    arguments = [
        "holdout", "-w", "flights_udf", "-w", "distributed_sort", "--scale", "0.02", "--scale", "0.04", "--partitions", "4",
        "-n", "3", "--rounds", "1", "--results", str(tmp_path / "r"),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    count = len(list((tmp_path / "r" / "runs").iterdir()))
    points = [*first["points"], *first["disturbed"]]
    assert len(points) == 8 and {p["engine"] for p in points} == set(ENGINES)
    assert all(0.2 < p["simulated_s"] / p["measured_s"] < 5 for p in points)  # a shared machine: the order of magnitude
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("flights_udf at") == 4
    assert len(list((tmp_path / "r" / "runs").iterdir())) == count
