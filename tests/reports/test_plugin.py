"""The pytest plugin, used as a stranger would: a scenario, three lines of test, a baseline."""

from __future__ import annotations

import json

import pytest

from tests.reports.test_gate import SCENARIO

pytest_plugins = ["pytester"]

TEST = """
def test_gate(windtunnel_gate):
    windtunnel_gate("job.toml")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a scenario and a gate."""
    pytester.makefile(".toml", job=SCENARIO.format(cost="2ms", width="1KB"))
    pytester.makepyfile(test_job=TEST)
    return pytester


def test_a_missing_baseline_fails_and_says_how_to_make_it(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-p", "no:benchmark")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no baseline*pytest --windtunnel-update*"])


def test_a_change_of_the_job_fails_until_the_baseline_is_renewed(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("--windtunnel-update").assert_outcomes(passed=1)
    baseline = project.path / "baselines" / "job.json"
    document = json.loads(baseline.read_text())
    assert len(document["series"]) == 2
    project.runpytest_subprocess().assert_outcomes(passed=1)
    for series in document["series"].values():
        series["values"]["makespan_s"] = [0.97 * v for v in series["values"]["makespan_s"]]
    baseline.write_text(json.dumps(document))
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*worse: gate at scale 1*simulated bulk*makespan_s*"])
    project.makefile(".toml", job=SCENARIO.format(cost="2ms", width="2KB"))
    result = project.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*worse: gate at scale 1*bytes_network*", "*changed*operators.work.row_bytes_out: 1KB → 2KB"])
    project.runpytest_subprocess("--windtunnel-update").assert_outcomes(passed=1)


def test_a_simulation_can_be_timed_with_pytest_benchmark(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # else it times nothing: several processes would disturb each other
    project.makepyfile(
        test_job="""
        def test_speed(benchmark, windtunnel_simulate):
            records = benchmark.pedantic(windtunnel_simulate, args=("job.toml",), rounds=2, iterations=1)
            assert {r.status for r in records} == {"ok"}
        """
    )
    project.runpytest_subprocess("--benchmark-json=b.json").assert_outcomes(passed=1)
    assert len(json.loads((project.path / "b.json").read_text())["benchmarks"][0]["stats"]["data"]) == 2
