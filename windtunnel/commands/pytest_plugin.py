"""The pytest plugin: a scenario becomes a test in three lines.

    def test_the_nightly_job(windtunnel_gate):
        windtunnel_gate("nightly.toml")

The scenario is simulated and its numbers are compared with a baseline file beside the test, ``baselines/nightly.json``; anything
that grew fails the test, and so does a baseline that is missing. ``pytest --windtunnel-update`` writes the baselines anew: the
change is then reviewed with the commit. ``windtunnel_simulate`` gives the records alone, for tests of their own, and can be timed:
``benchmark(windtunnel_simulate, "nightly.toml")``.

The plugin loads with pytest wherever windtunnel is installed, so it imports nothing before a fixture asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from windtunnel.records.record import RunRecord
    from windtunnel.reports.gate.judge import Finding
    from windtunnel.reports.gate.series import Series

Simulate = Callable[..., "tuple[RunRecord, ...]"]
Gate = Callable[..., "tuple[Finding, ...]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    group = parser.getgroup("windtunnel")
    group.addoption("--windtunnel-update", action="store_true", help="write the baselines of windtunnel_gate anew")


@pytest.fixture
def windtunnel_simulate(request: pytest.FixtureRequest) -> Simulate:
    """``simulate(file, calibration=None)``: the records of a scenario; a relative path counts from the test's folder."""

    def simulate(file: str | Path, *, calibration: str | Path | None = None) -> tuple[RunRecord, ...]:
        from windtunnel.commands.simulate import scenario_experiment
        from windtunnel.running.experiment import simulated
        from windtunnel.scenario.reading import load_scenario

        scenario = load_scenario(request.path.parent / file)
        costs = None if calibration is None else request.path.parent / calibration
        experiment = scenario_experiment(scenario, simulated=True, calibration=costs)
        return tuple(record for cell in experiment.cells() for record in simulated(cell))

    return simulate


@pytest.fixture
def windtunnel_gate(request: pytest.FixtureRequest, windtunnel_simulate: Simulate) -> Gate:
    """``gate(file, tolerance="0.0001%", baseline=None, calibration=None, allow=())``: fails where a number grew; gives the findings.

    ``allow``: facts that may differ, such as "options". An edited scenario needs none: what was edited is told beside what grew.
    """

    def gate(
        file: str | Path, *, tolerance: str | float = "0.0001%", baseline: str | Path | None = None,
        calibration: str | Path | None = None, allow: Sequence[str] = (),
    ) -> tuple[Finding, ...]:  # fmt: skip
        from windtunnel.reports.gate import files, judge, series
        from windtunnel.spec.units import parse_fraction

        new = tuple(files.short(s) for s in series.of_records(windtunnel_simulate(file, calibration=calibration)))
        path = request.path.parent / (baseline or Path("baselines") / f"{Path(file).stem}.json")
        if request.config.getoption("--windtunnel-update"):
            _write(path, new)
        if not path.exists():
            pytest.fail(f"there is no baseline {path}; make it with pytest --windtunnel-update and commit it", pytrace=False)
        findings = judge.judge(files.read(path), new, judge.Rules(tolerance=parse_fraction(tolerance), allow=tuple(allow)))
        if judge.exit_code(findings):
            pytest.fail(_told(findings, path), pytrace=False)
        return findings

    return gate


def _write(path: Path, series: tuple[Series, ...]) -> None:
    from windtunnel.reports.gate.files import to_json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(series), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _told(findings: tuple[Finding, ...], path: Path) -> str:
    from windtunnel.reports.gate.exports import sentence

    bad = [f for f in findings if f.verdict not in ("same", "better")]
    lines = [f"  {f.verdict}: {f.subject}{' · ' + f.quantity if f.quantity else ''}: {sentence(f)}" for f in bad]
    return "\n".join([f"not what {path} says:", *lines, "if that is meant, pytest --windtunnel-update writes it anew"])
