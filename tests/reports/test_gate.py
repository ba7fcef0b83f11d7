"""Gates: exact numbers without mercy, timed ones with their error, missing data never passes; and the formats of CI systems."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.cli import main
from windtunnel.engines.models.streaming import Streaming
from windtunnel.errors import ExitCode, InputError
from windtunnel.reports.gate import exports, files, series
from windtunnel.reports.gate.history import change_points
from windtunnel.reports.gate.judge import Finding, Rules, exit_code, judge
from windtunnel.reports.gate.series import Series

EXACT = Series(
    subject="job · simulated bulk",
    clock="virtual",
    values={"makespan_s": (10.0, 11.0), "tasks": (80.0, 80.0)},
    facts={"workload": "a"},
)
GATE = Rules(wall="gate")


def timed(*seconds: float, **more: object) -> Series:
    """A real series."""
    return Series(subject="job · bulk", clock="wall", values={"makespan_s": seconds}, facts={"host": "h"}, **more)  # type: ignore[arg-type]


def one(base: Series, new: Series, rules: Rules = GATE) -> Finding:
    """The only finding about the makespan, or about the whole."""
    (found,) = [f for f in judge([base], [new], rules) if f.quantity in ("makespan_s", "")]
    return found


# -- exact ------------------------------------------------------------------------------------------------------------


def test_equal_simulations_are_the_same() -> None:
    findings = judge([EXACT], [EXACT], Rules())
    assert {f.verdict for f in findings} == {"same"}
    assert exit_code(findings) == ExitCode.OK


@pytest.mark.parametrize(("quantity", "values"), [("makespan_s", (10.0, 11.001)), ("tasks", (80.0, 81.0))])
def test_one_seed_that_grew_is_a_regression(quantity: str, values: tuple[float, ...]) -> None:
    worse = replace(EXACT, values={**EXACT.values, quantity: values})
    findings = judge([EXACT], [worse], Rules())
    assert [(f.quantity, f.verdict) for f in findings if f.verdict != "same"] == [(quantity, "worse")]
    assert exit_code(findings) == ExitCode.REGRESSION
    assert exit_code(judge([worse], [EXACT], Rules())) == ExitCode.OK, "better passes"
    assert exit_code(judge([EXACT], [worse], Rules(tolerance=0.02))) == ExitCode.OK


def test_something_of_nothing_is_worse() -> None:
    spilled = replace(EXACT, values={"spilled_bytes": (5.0,)})
    assert judge([replace(EXACT, values={"spilled_bytes": (0.0,)})], [spilled], Rules())[0].verdict == "worse"


def test_counts_of_real_runs_are_exact_where_they_never_vary() -> None:
    base = timed(1.0, 1.0, 1.0)
    stable, moving = replace(base, values={"tasks": (8.0, 8.0, 8.0)}), replace(base, values={"tasks": (8.0, 9.0, 8.0)})
    more = replace(base, values={"tasks": (9.0, 9.0, 9.0)})
    assert judge([stable], [more], Rules())[0].verdict == "worse"
    assert judge([stable], [more], Rules())[0].exact
    assert not judge([moving], [more], Rules())[0].exact


# -- timed ------------------------------------------------------------------------------------------------------------


def test_a_tenth_slower_without_noise() -> None:
    assert one(timed(1, 1.01, 0.99, 1), timed(1.1, 1.11, 1.09, 1.1)).verdict == "worse"
    assert one(timed(1.1, 1.11, 1.09, 1.1), timed(1, 1.01, 0.99, 1)).verdict == "better"
    assert one(timed(1, 1.01, 0.99, 1), timed(1.02, 1.03, 1.01, 1.02)).verdict == "same", "2 % do not matter at a limit of 10 %"


def test_pairs_share_their_surroundings() -> None:
    """A machine that doubles its speed in the middle: ratios of pairs do not see it."""
    assert one(timed(2, 2, 2, 1, 1, 1), timed(2.3, 2.3, 2.3, 1.15, 1.15, 1.15)).verdict == "worse"


def test_noise_is_told_and_never_passes_a_gate() -> None:
    found = one(timed(1, 2, 1, 2, 1, 2), timed(2, 1, 2, 1, 1, 2))
    assert (found.verdict, found.code) == ("incomplete", ExitCode.INVALID_MEASUREMENT)
    assert "nobody can tell" in found.reason
    assert found.shows is not None and found.shows > 0.1


def test_two_runs_are_too_few() -> None:
    assert one(timed(1, 1), timed(3, 3)).code == ExitCode.INVALID_MEASUREMENT


def test_an_aa_arm_that_differs_widens_the_interval() -> None:
    calm = timed(1, 1, 1, 1)
    shaky = replace(calm, again={"makespan_s": (1.2, 1.2, 1.2, 1.2)})
    slower = timed(1.1, 1.1, 1.1, 1.1)
    assert one(calm, slower).verdict == "worse"
    assert one(shaky, slower).verdict == "incomplete"


def test_durations_are_advisory_unless_asked() -> None:
    slower = [timed(1, 1, 1, 1)], [timed(2, 2, 2, 2)]
    assert exit_code(judge(*slower, Rules())) == ExitCode.OK
    assert exit_code(judge(*slower, GATE)) == ExitCode.REGRESSION
    assert not [f for f in judge(*slower, Rules(wall="off")) if f.quantity == "makespan_s"]


@pytest.mark.parametrize(("effect", "least", "most"), [(1.0, 0.0, 0.05), (1.1, 0.95, 1.0)])
def test_how_often_a_slowdown_is_caught(effect: float, least: float, most: float) -> None:
    """200 gates of 15 pairs with 4 % of noise each: false alarms at most 5 %, a tenth caught in 95 % or more."""
    dice = np.random.default_rng(11)
    verdicts = []
    for _ in range(200):
        drift = np.exp(dice.normal(0, 0.3, 15))  # of the machine, shared by a pair
        a, b = (drift * np.exp(dice.normal(0, 0.04, 15)) for _ in range(2))
        verdicts.append(one(timed(*a), timed(*(b * effect))).verdict)
    assert least <= verdicts.count("worse") / 200 <= most


# -- what is missing ----------------------------------------------------------------------------------------------------


def test_missing_data_never_passes() -> None:
    for base, new in (([EXACT], []), ([], [EXACT]), ([], [])):
        assert exit_code(judge(base, new, Rules())) == ExitCode.INCOMPLETE
    lost = replace(EXACT, values={"makespan_s": (10.0, 11.0)})
    assert exit_code(judge([EXACT], [lost], Rules())) == ExitCode.INCOMPLETE
    fewer = replace(EXACT, values={"makespan_s": (10.0,), "tasks": (80.0,)})
    assert exit_code(judge([EXACT], [fewer], Rules())) == ExitCode.INCOMPLETE


def test_a_failed_run_is_no_verdict_and_a_wrong_one_is_the_gravest() -> None:
    failed = replace(EXACT, bad=(("failed", "no space left"),))
    wrong = replace(EXACT, subject="other", bad=(("failed", "x"), ("wrong_result", "rows differ")))
    assert one(EXACT, failed).code == ExitCode.INCOMPLETE
    assert "no space left" in one(EXACT, failed).reason
    findings = judge([EXACT, replace(EXACT, subject="other")], [failed, wrong], Rules())
    assert exit_code(findings) == ExitCode.WRONG_RESULT


def test_other_facts_are_not_comparable_unless_allowed() -> None:
    other = replace(EXACT, facts={"workload": "b"})
    assert one(EXACT, other).verdict == "not comparable"
    assert "workload" in one(EXACT, other).reason
    assert exit_code(judge([EXACT], [other], Rules(allow=("workload",)))) == ExitCode.OK


numbers = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=8).map(tuple)


@given(a=numbers, b=numbers, clock=st.sampled_from(["wall", "virtual"]))
def test_every_pair_gets_a_verdict_and_a_series_is_never_worse_than_itself(
    a: tuple[float, ...], b: tuple[float, ...], clock: str
) -> None:
    base, new = (Series(subject="s", clock=clock, values={"makespan_s": v}) for v in (a, b))
    (found,) = judge([base], [new], GATE)
    assert found.verdict in ("better", "same", "worse", "incomplete")
    assert judge([base], [base], GATE)[0].verdict in ("same", "incomplete")


# -- files --------------------------------------------------------------------------------------------------------------


NASTY = replace(EXACT, subject='<script>|`"]]>\x00&', values={"makespan_s": (1.0,)})


def test_junit_is_xml_whatever_the_names_hold() -> None:
    worse = replace(NASTY, values={"makespan_s": (2.0,)})
    tree = ElementTree.fromstring(exports.junit(judge([NASTY, EXACT], [worse], Rules())).partition("\n")[2])
    assert (tree.get("tests"), tree.get("failures"), tree.get("errors")) == ("2", "1", "1")
    assert "<script>" in (tree.find(".//testcase[failure]").get("classname") or "")  # type: ignore[union-attr]
    advisory = judge([timed(1, 1, 1)], [timed(2, 2, 2)], Rules())
    assert ElementTree.fromstring(exports.junit(advisory).partition("\n")[2]).get("failures") == "0"


def test_the_summary_stays_below_its_limit_and_keeps_the_worst() -> None:
    many = [replace(EXACT, subject=f"job {i}") for i in range(500)]
    worse = [*many[:-1], replace(many[-1], values={"makespan_s": (20.0, 22.0), "tasks": (80.0, 80.0)})]
    text = exports.markdown(judge(many, worse, Rules()), limit=5000)
    assert len(text.encode()) <= 5000
    assert "| worse | job 499 |" in text
    assert "more rows are left out" in text
    assert "<script>" not in exports.markdown(judge([NASTY], [NASTY], Rules()))


def test_formats_of_trackers() -> None:
    assert exports.bencher([EXACT])[EXACT.subject]["makespan_s"] == {"value": 10.5, "lower_value": 10.0, "upper_value": 11.0}
    first = exports.smaller_is_better([EXACT])[0]
    assert (first["name"], first["unit"], first["value"]) == ("job · simulated bulk: makespan_s", "s", 10.5)


def test_pytest_benchmarks_file_goes_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(exports.pytest_benchmark([timed(1, 2, 3)])))
    (back,) = files.read(path)
    assert back.values == {"duration_s": (1.0, 2.0, 3.0)}


def test_a_baseline_goes_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(files.to_json([EXACT])))
    assert files.read(path) == (files.short(EXACT),)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"benchmarks": [{}]}', '{"benchmarks": 3}', '{"windtunnel": "baseline", "schema": 1, "series": {"a": 1}}',
             '{"windtunnel": "baseline", "schema": 9}', '{"benchmarks": [{"name": "x", "stats": {"data": [NaN]}}]}', "[" * 100_000]
)  # fmt: skip
def test_other_files_are_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        files.read(path)


# -- history ------------------------------------------------------------------------------------------------------------


def test_a_step_is_found_where_it_is() -> None:
    dice = np.random.default_rng(3)
    values = [*dice.normal(10, 0.2, 20), *dice.normal(11, 0.2, 15), *dice.normal(9, 0.2, 12)]
    found = change_points(values)
    assert [abs(c.at - true) <= 1 for c, true in zip(found, (20, 35), strict=True)] == [True, True]
    assert found[0].change == pytest.approx(0.1, abs=0.02)


def test_noise_has_few_change_points() -> None:
    dice = np.random.default_rng(5)
    alarms = sum(bool(change_points(dice.normal(10, 1, 30).tolist())) for _ in range(60))
    assert alarms <= 8, "5 % of them on average"
    assert change_points([3.0] * 20) == ()
    assert change_points([1.0, 2.0]) == ()


# -- the commands ---------------------------------------------------------------------------------------------------------


SCENARIO = """
schema = 1
name = "gate"
repetitions = 2
[dataset]
rows = 400
row_bytes = "1KB"
partitions = 8
[[operators]]
name = "work"
kind = "map"
batch_rows = 10
cost = {{ per_row = "{cost}", cv = 0.1 }}
row_bytes_out = "{width}"
[[operators]]
name = "sum"
kind = "aggregate"
cost = {{ per_row = "1us" }}
[cluster]
[[cluster.nodes]]
count = 2
cpus = 2
memory = "8GiB"
[[engines]]
name = "bulk"
[[engines]]
name = "streaming"
"""


def simulated(folder: Path, name: str, cost: str = "2ms", width: str = "1KB") -> str:
    """A results folder of the scenario."""
    file = folder / f"{name}.toml"
    file.write_text(SCENARIO.format(cost=cost, width=width))
    assert main(["simulate", str(file), "--results", str(folder / name), "--jobs", "1"]) == 0
    return str(folder / name)


def test_the_command_gates_time_and_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = simulated(tmp_path, "base")
    assert main(["compare", base, simulated(tmp_path, "again")]) == 0
    for name, changed in (("kernel", {"cost": "2.06ms"}), ("bytes", {"width": "1030B"})):
        other = simulated(tmp_path, name, **changed)
        capsys.readouterr()
        assert main(["compare", base, other, "--json"]) == ExitCode.REGRESSION, "two versions of one scenario are the comparison"
        findings = json.loads(capsys.readouterr().out)["findings"]
        worse = {f["quantity"] for f in findings if f["verdict"] == "worse"}
        assert ("makespan_s" if name == "kernel" else "bytes_network") in worse
        (told,) = {f["reason"] for f in findings if f["verdict"] == "changed"}
        edit = "cost.per_row: 2ms → 2.06ms" if name == "kernel" else "row_bytes_out: 1KB → 1030B"
        assert told == f"operators.work.{edit}"
    files = {o: tmp_path / f"{o}.out" for o in ("junit", "summary", "bencher", "smaller-is-better", "pytest-benchmark")}
    assert main(["compare", base, base, *(x for o, f in files.items() for x in (f"--{o}", str(f)))]) == 0
    assert all(f.stat().st_size > 50 for f in files.values())
    assert main(["compare", base, str(tmp_path / "nothing")]) == ExitCode.BAD_INPUT
    assert main(["compare", base, base, "--limit", "much"]) == ExitCode.BAD_INPUT


def test_the_command_tells_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for number in range(10):
        values = {"makespan_s": (10.0 + (2.0 if number >= 6 else 0.0) + 0.01 * number,)}
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(files.to_json([replace(EXACT, values=values)])))
        folders.append(str(path))
    assert main(["history", *folders, "--json"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["first_after"] == folders[6]
    assert main(["history", *folders]) == 0
    assert "6.json on" in capsys.readouterr().out
    assert main(["history", folders[0]]) == ExitCode.BAD_INPUT


# -- the power of simulated gates ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fifty_equal_pairs_raise_no_alarm_and_every_injected_change_is_caught(
    tmp_path: Path, windtunnel_simulate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel, in bytes moved and in a model's rule; seeds are compared one by one, so each is a gate of its own."""

    def numbers(cost: str = "2ms", width: str = "1KB") -> tuple[Series, ...]:
        file = tmp_path / "job.toml"
        file.write_text(SCENARIO.format(cost=cost, width=width).replace("repetitions = 2", "repetitions = 50"))
        return series.of_records(windtunnel_simulate(file))

    def caught(new: tuple[Series, ...], quantity: str, subject: str = "") -> list[int]:
        """How many of the 50 pairs each configuration flags."""
        counts = []
        for before, after in zip(base, new, strict=True):
            if subject in before.subject:
                flagged = [
                    judge([_seed(before, i, quantity)], [_seed(after, i, quantity)], Rules(allow=("workload",)))[0]
                    for i in range(50)
                ]
                counts.append(sum(f.code == ExitCode.REGRESSION for f in flagged))
        return counts

    base = numbers()
    assert caught(numbers(), "makespan_s") == [0, 0]
    for percent in (3, 5, 10):
        assert caught(numbers(cost=f"{2 + 0.02 * percent}ms"), "makespan_s") == [50, 50]
        assert caught(numbers(width=f"{1000 + 10 * percent}B"), "bytes_network") == [50, 50]
    admits = Streaming._admits
    monkeypatch.setattr(Streaming, "_admits", lambda self, index: self._running[index] < 3 and admits(self, index))
    assert caught(numbers(), "makespan_s", "streaming") == [50]


def _seed(whole: Series, number: int, quantity: str) -> Series:
    return replace(whole, values={quantity: (whole.values[quantity][number],)})
