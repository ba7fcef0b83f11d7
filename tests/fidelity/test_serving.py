"""The published table of Ray Serve: the errors that `docs/fidelity-serving.md` states, and the shape past saturation."""

from __future__ import annotations

import csv
from importlib import resources

import pytest
from windtunnel.sim import validate


def published() -> list[dict[str, str]]:
    """The rows of the table that ships."""
    text = resources.files("windtunnel.sim").joinpath("published", "serve_unary.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def test_the_scenarios_hold_the_figures_of_the_table() -> None:
    for name, column in (("serve_unary", "requests_per_s"), ("serve_unary_latency", "mean_latency_ms")):
        cells = {(c.system, dict(c.at)["concurrency"]): c.value for c in validate.load(name).cells}
        assert cells == {(r["configuration"], int(r["concurrency"])): float(r[column]) for r in published()}


@pytest.mark.parametrize("name", ["serve_unary", "serve_unary_latency"])
def test_errors_stay_within_their_bars(name: str) -> None:
    (summary,) = validate.validate([validate.load(name)])
    assert summary.median is not None and summary.median <= 0.10
    assert summary.worst is not None and summary.worst <= 0.25
    assert summary.order == (9, 9)
    if name == "serve_unary":
        for system in ("default", "haproxy"):
            rates = [c.value for c in summary.checked if c.cell.system == system]
            assert max(r for r in rates if r is not None) > 1.1 * (rates[-1] or 0)  # falls past saturation


def test_a_fit_finds_constants_that_made_the_numbers() -> None:
    """The runs of a machine that behaves as the model does: what was put in comes out, and other loads are met."""
    from pathlib import Path

    from windtunnel.sim.serving.constants import Fit, Measured, numbers_of

    from tests.fidelity.serving_holdout import rising, scenario
    from windtunnel.record import Recorder
    from windtunnel.registry import load_engine

    engine, truth, runs = load_engine("sim:fastapi"), {"http_s": 1e-3, "hop_s": 2e-3, "cv": 0.5}, []
    for seed, load in enumerate((0.3, 0.7, 0.8, 0.9)):
        asked = scenario("order", rising(160, load), seed)
        bound, recorder = asked.workload.bind(Path()), Recorder()
        engine.open(asked.cluster, {"seed": seed, "overheads": {**truth, "contention": 0.0}}).run(bound, recorder, Path())
        runs.append(
            Measured(name=str(load), workload=bound, cluster=asked.cluster, options={"seed": seed}, numbers=numbers_of(recorder))
        )
    held_out = runs.pop(2)
    fit = Fit(engine, "fastapi", "none", runs)
    found = fit.constants()
    assert found["http_s"] == pytest.approx(truth["http_s"], rel=0.1)
    assert found["hop_s"] == pytest.approx(truth["hop_s"], rel=0.1)
    made = fit.simulated(held_out, found)
    assert made is not None and made["p99"] == pytest.approx(held_out.numbers["p99"], rel=0.05)
