"""Prediction intervals against hand computation and against laws whose coverage is known; what the host does, in outline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from tests.sim import crafted
from windtunnel.sim.calibration.crossfit import halves, with_held_out
from windtunnel.sim.calibration.host import cost, host_costs, seconds
from windtunnel.sim.costs.measured import Calibration, HeldOut
from windtunnel.sim.judging.prediction import PER_DOUBLING, coverage, distance, engine_law, law, law_of, published, told
from windtunnel.sim.judging.student import probability, quantile


def cell(error: float, *, engine: str = "bulk", group: str = "g", cpus: int = 2, name: str = "c") -> HeldOut:
    """A cell that took e^error times what was simulated."""
    return HeldOut(engine=engine, cell=name, group=group, cpus=cpus, measured_s=math.exp(error), simulated_s=1.0)


def test_three_cells_by_hand() -> None:
    found = law([cell(0.0), cell(0.1), cell(0.2)])
    assert found is not None and (found.mean, found.sd) == (pytest.approx(0.1), pytest.approx(0.1))
    half = 2.9199856 * 0.1 * math.sqrt(1 + 1 / 3)  # t of 2 degrees of freedom at 95 %
    assert found.factors() == (pytest.approx(math.exp(0.1 - half)), pytest.approx(math.exp(0.1 + half)))
    assert found.within(1.0, math.exp(0.1)) == pytest.approx(0.5)  # a bias moves the middle
    assert found.within(math.inf, 5.0) == 0.0 and found.within(1.0, math.inf) == 1.0


def test_one_cell_is_no_law() -> None:
    assert law([cell(0.1)]) is None
    assert coverage([cell(0.1)]) == (0, 0)


def test_nine_of_ten_draws_of_a_normal_law_lie_inside() -> None:
    dice = np.random.default_rng(7)
    inside = of = 0
    for _ in range(40):
        more = coverage([cell(float(e)) for e in dice.normal(0.2, 0.15, 12)])
        inside, of = inside + more[0], of + more[1]
    assert of == 480 and 0.87 < inside / of < 0.93


def test_cells_of_another_kind_are_not_covered() -> None:
    """The measure of coverage can fail: a group that is off by twice is outside of what the others give."""
    usual = [cell(e, group="a") for e in (-0.02, -0.01, 0.0, 0.01, 0.02)]
    odd = [cell(0.7, group="b"), cell(0.7, group="b")]
    assert coverage([*usual, *odd], by_group=True)[0] == 5


def test_an_engine_with_few_cells_is_no_better_known_than_all() -> None:
    many = [cell(e) for e in (-0.3, -0.2, 0.0, 0.2, 0.3)]
    few = engine_law([*many, cell(0.01, engine="new")], "new")
    assert few is not None and few.sd > 0.15 and few.mean == 0.0
    worse = engine_law([*many, cell(2.0, engine="new")], "new")
    assert worse is not None and worse.sd > few.sd


def test_distance_widens() -> None:
    found = law([cell(0.0, cpus=4), cell(0.1, cpus=8)])
    assert found is not None
    assert distance(found, 8) == 0.0 and distance(found, 32) == pytest.approx((2 * PER_DOUBLING) ** 2)
    near, far = found.factors(), found.factors(more_variance=distance(found, 4096))
    assert far[0] < near[0] and far[1] > near[1]


def test_a_calibration_speaks_before_published_cells() -> None:
    own = Calibration(held_out=tuple(cell(e) for e in (0.0, 0.01, 0.02, 0.03, 0.04)))
    assert law_of("bulk", own).cells == 5
    assert law_of("bulk", Calibration()).cells == len(published())
    assert told("bulk", 2, own)["interval_held_out"] == 1.0 and told("bulk", 2)["interval_held_out"] == 0.0


def test_an_engine_that_nobody_measured_inherits_nothing() -> None:
    """What was held out of bulk says nothing of Spark, whose constants are published ones."""
    own = Calibration(held_out=tuple(cell(e) for e in (0.0, 0.01, 0.02, 0.03, 0.04)))
    assert law_of("spark", own) == law_of("spark")
    assert told("spark", 2, own) == told("spark", 2)
    assert told("bulk", 2)["interval_own"] == 0.0 < told("spark", 2)["interval_own"] < told("spark", 2)["interval_cells"]
    assert told("bulk", 2, own)["interval_own"] == 5.0
    one = Calibration(held_out=(cell(0.1),))
    assert told("bulk", 2, one) == told("bulk", 2), "one cell is no law"


@pytest.mark.parametrize("serving", [False, True])
def test_intervals_cover_what_was_published(serving: bool) -> None:
    """The bar: 85 to 95 % of the cells that nothing was fitted to, each by an interval that did not know it."""
    inside, of = coverage(published(serving=serving))
    assert of >= 20 and 0.85 <= inside / of <= 0.95
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    left_out, _ = coverage(published(serving=serving), by_group=True)
    assert f"{inside} of {of}" in page and f"{left_out} of {of}" in page, "docs/benchmarks.md tells older figures"


def test_held_out_cells_are_replaced_by_newer_ones_and_survive_the_file(tmp_path: Path) -> None:
    first = with_held_out(Calibration(), [cell(0.1), cell(0.2, name="d")])
    found = with_held_out(first, [cell(0.3)])
    assert [round(math.log(c.measured_s), 6) for c in found.held_out] == [0.3, 0.2]
    found.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json").held_out == found.held_out


def test_the_halves_of_a_workload_are_a_checkerboard() -> None:
    records = [crafted.record(scale=s, workers=w, partitions=p, repetition=0) for s in (0.5, 1.0) for w in (1, 2) for p in (4, 8)]
    white, black = halves(records)
    assert len(white) == len(black) == 4
    assert {r.scale for r in white} == {r.scale for r in black} == {0.5, 1.0}


def test_a_micro_measurement_is_a_median_with_quartiles() -> None:
    found = cost("x", "", "s", [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.low, found.high, found.samples) == (3.0, 2.0, 4.0, 5)
    assert len(seconds(lambda: None, 3)) == 3


@pytest.mark.slow
def test_the_host_is_measured(tmp_path: Path) -> None:
    found = {(h.name, h.at): h for h in host_costs(tmp_path)}
    assert all(h.value > 0 and h.low <= h.value <= h.high for h in found.values())
    arrow, pickled = (
        found["Arrow IPC there and back", "text of 12 bytes"], found["pickle there and back", "rows of text of 12 bytes"]
    )  # fmt: skip
    assert arrow.value < pickled.value / 10
    assert not list(tmp_path.iterdir())


def test_students_t_is_scipys() -> None:
    for freedom in (*range(1, 40), 333):
        for value in (-50.0, -3.0, -0.1, 0.0, 0.2, 2.5, 40.0):
            assert probability(value, freedom) == pytest.approx(special.stdtr(freedom, value), abs=1e-14)
        for share in (0.001, 0.05, 0.3, 0.8, 0.95, 0.975, 0.999):
            assert quantile(share, freedom) == pytest.approx(special.stdtrit(freedom, share), rel=1e-11)
    assert quantile(0.5, 3) == 0.0
