"""The published table of Ray Serve: the errors that `docs/fidelity-serving.md` states, and the shape past saturation."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from windtunnel.sim.judging import validate


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

    from windtunnel.records.record import Recorder
    from windtunnel.registry import load_engine
    from windtunnel.sim.serving.constants import numbers_of
    from windtunnel.sim.serving.measured import closed, fit, measured, rising, scenario

    truth, stairs = {"http_s": 1e-3, "hop_s": 2e-3, "cv": 0.5}, ((0.35, 4.0), (0.65, 4.0), (0.9, 6.0), (0.8, 30.0))

    def made(arrivals: str, seed: int) -> Recorder:
        asked, recorder = scenario("order", arrivals, seed), Recorder()
        options = {"seed": seed, "overheads": {**truth, "contention": 0.0}}
        load_engine("sim:fastapi").open(asked.cluster, options).run(asked.workload.bind(Path()), recorder, Path())
        return recorder

    top = numbers_of(made(closed(), 1), 0.0, 3.0)
    assert top is not None
    run, begin, told = made(rising(top["throughput"], ((0.2, 2.0), *stairs)), 2), 2.0, []
    for load, seconds in stairs:
        told.append({"load": load, "seconds": seconds, "numbers": numbers_of(run, begin, begin + seconds)})
        begin += seconds
    plain = {"composition": "order", "ceiling": top, "stairs": told}
    found = fit("fastapi", measured(plain, [0.35, 0.65, 0.9]))
    best = found.constants(60)
    assert best["http_s"] == pytest.approx(truth["http_s"], rel=0.1)
    assert best["hop_s"] == pytest.approx(truth["hop_s"], rel=0.15)
    (_, held_out) = measured(plain, [0.8])
    (predicted,) = found.simulated(held_out, best)
    assert predicted is not None and predicted["p99"] == pytest.approx(told[3]["numbers"]["p99"], rel=0.05)  # type: ignore[index]
