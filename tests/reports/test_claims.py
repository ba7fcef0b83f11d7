"""Claims: every file is sound, verdicts follow from records by arithmetic, and stored evidence gives the same verdict again."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from windtunnel.reports.claims import Claim, judge, load_all, read

from tests.reports.records import record
from windtunnel.cli import main
from windtunnel.commands.claims import experiment_of
from windtunnel.errors import ExitCode, InputError
from windtunnel.record import RunRecord

CLAIMS = load_all()
TEXT = """
id = "twice"
number = 1
claim = "A takes twice as long as B."
source = "Somebody"
[[tests]]
name = "t"
world = "simulated"
table = "x"
[[tests.rules]]
say = "twice"
quantity = "makespan_s"
of = "a"
over = "b"
least = 2.0
"""


def runs(at: dict[str, Any], **seconds: tuple[float, ...]) -> list[RunRecord]:
    return [record(label, s, i, sweep=at) for label, values in seconds.items() for i, s in enumerate(values)]


def outcome(records: list[RunRecord], text: str = TEXT) -> str:
    return judge(read(text, "t.toml"), {"t": records}).outcome


def test_a_ratio_above_its_bound_everywhere_is_reproduced() -> None:
    assert outcome(runs({}, a=(4.0,), b=(2.0,))) == "reproduced"
    assert outcome(runs({}, a=(3.9,), b=(2.0,))) == "not reproduced"


def test_an_interval_across_the_bound_cannot_be_told() -> None:
    assert outcome(runs({}, a=(3.0, 4.0, 5.0), b=(2.0, 2.0, 2.0))) == "inconclusive"
    assert outcome(runs({}, a=(4.1, 4.2, 4.3), b=(2.0, 2.0, 2.0))) == "reproduced"


def test_a_verdict_says_where_it_flips() -> None:
    records = runs({"cpus": 2}, a=(4.0,), b=(2.0,)) + runs({"cpus": 10}, a=(2.0,), b=(2.0,))
    verdict = judge(read(TEXT, "t.toml"), {"t": records})
    assert verdict.outcome == "depends"
    assert [(dict(p.at), p.state) for p in verdict.judged[0].points] == [({"cpus": 2}, "holds"), ({"cpus": 10}, "fails")]


def test_a_rule_may_compare_two_points_of_a_sweep() -> None:
    text = TEXT.replace('of = "a"', 'of = { engine = "a", at = { cpus = 2 } }').replace(
        'over = "b"', 'over = { engine = "a", at = { cpus = 4 } }'
    )
    records = runs({"cpus": 2}, a=(4.0,)) + runs({"cpus": 4}, a=(2.0,))
    assert outcome(records, text) == "reproduced"


def test_a_bound_may_be_on_one_engine_and_from_above() -> None:
    text = TEXT.replace('over = "b"\nleast = 2.0', "most = 3.0")
    assert outcome(runs({}, a=(3.0,)), text) == "reproduced"
    assert outcome(runs({}, a=(3.1,)), text) == "not reproduced"


def test_without_a_good_run_of_each_side_there_is_no_verdict() -> None:
    assert outcome([]) == "inconclusive"
    assert outcome(runs({}, a=(4.0,))) == "inconclusive"
    failed = [*runs({}, a=(4.0,), b=(2.0,)), record("a", None, 1, status="out_of_memory", reason="no room")]
    verdict = judge(read(TEXT, "t.toml"), {"t": failed})
    assert verdict.outcome == "inconclusive" and verdict.judged[0].points[0].reason == "a: out_of_memory"
    assert judge(read(TEXT, "t.toml"), {}).missing == ("t",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("number = 1", ""), "needs the key 'number'"),
        (("least = 2.0", ""), "either a least or a most"),
        (('world = "simulated"', 'world = "dreamt"'), "neither real nor simulated"),
        (('table = "x"', ""), "either a scenario or a table"),
        (('source = "Somebody"', 'source = "Somebody"\nuntested = "why"'), "either tests or a reason"),
        (("[[tests]]", "[[tests]"), "is no claim"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(change: tuple[str, str], words: str) -> None:
    with pytest.raises(InputError, match=f"t.toml.*{words}"):
        read(TEXT.replace(*change), "t.toml")


def test_an_unknown_quantity_names_the_nearest() -> None:
    with pytest.raises(InputError, match="makespan_s"):
        outcome(runs({}, a=(4.0,), b=(2.0,)), TEXT.replace('"makespan_s"', '"makespam_s"'))


def test_all_claims_are_there() -> None:
    assert [c.number for c in CLAIMS] == list(range(1, 27))
    assert len({c.id for c in CLAIMS}) == 26


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.tests], ids=lambda c: c.id)
def test_rules_name_engines_and_points_that_their_scenario_has(claim: Claim) -> None:
    for test in claim.tests:
        experiment = experiment_of(claim, test)
        there = {(e.label, json.dumps(w.sweep, sort_keys=True)) for w in experiment.workloads for e in w.engines or ()}
        points = [w.sweep for w in experiment.workloads]
        for rule in test.rules:
            for side in (rule.of, rule.over):
                if side is not None:
                    assert side.engine in {label for label, _ in there}, rule.say
                    assert any(dict(side.at).items() <= p.items() for p in points), rule.say
        if test.scenario is not None:
            tomllib.loads(test.scenario)


def test_stored_evidence_gives_the_same_verdict_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--results", str(tmp_path)]
    assert main(["claims", "run", "map-reduce", *folder]) == ExitCode.OK
    ran = capsys.readouterr().out
    assert "14  map-reduce" in ran and "reproduced" in ran
    assert main(["claims", "report", "14", *folder]) == ExitCode.OK
    assert capsys.readouterr().out == ran
    assert main(["claims", "report", "14", *folder, "--json"]) == ExitCode.OK
    [verdict] = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["verdict"] == verdict["simulated"] == "reproduced" and verdict["real"] is None
    assert main(["claims", "run", "14", *folder]) == ExitCode.OK, "what has evidence is not run again"
    assert main(["claims", "report", "14", *folder, "--markdown"]) == ExitCode.OK
    assert "## 14 map-reduce" in capsys.readouterr().out


def test_an_unknown_claim_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "run", "map-reduse"]) == ExitCode.BAD_INPUT
    assert "map-reduce" in capsys.readouterr().err
