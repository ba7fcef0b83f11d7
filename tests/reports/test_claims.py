"""Claims: every file is sound, verdicts follow from records by arithmetic, and stored evidence gives the same verdict again."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reports.records import record
from windtunnel.cli import main
from windtunnel.commands.claims import experiment_of
from windtunnel.errors import ExitCode, InputError
from windtunnel.records.record import RunRecord
from windtunnel.reports.claims import Claim, Test, load_all, read
from windtunnel.reports.judging import evidence_of, judge, packed, shipped
from windtunnel.reports.render.claims_page import page

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
        (('table = "x"', ""), "names one of scenario, table, catalogue, probe"),
        (('table = "x"', "probe = {}"), "a probe runs for real"),
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
    labels = {t.name: _labels(claim, t) for t in claim.tests}
    for test in claim.tests:
        if test.probe is not None:
            assert all(side.engine in test.probe["programs"] for rule in test.rules for side in (rule.of, rule.over) if side)
            continue
        experiment = experiment_of(claim, test)
        there = {(e.label, json.dumps(w.sweep, sort_keys=True)) for w in experiment.workloads for e in w.engines or ()}
        points = [w.sweep for w in experiment.workloads]
        for rule in test.rules:
            for side in (rule.of, rule.over):
                if side is not None and side.test:
                    assert side.engine in labels[side.test], rule.say
                elif side is not None:
                    assert side.engine in {label for label, _ in there}, rule.say
                    assert any(dict(side.at).items() <= p.items() for p in points), rule.say
        if test.scenario is not None:
            tomllib.loads(test.scenario)


def _labels(claim: Claim, test: Test) -> set[str]:
    if test.probe is not None:
        return set(test.probe["programs"])
    return {e.label for w in experiment_of(claim, test).workloads for e in w.engines or ()}


def test_a_test_in_both_worlds_is_written_once() -> None:
    claim = read(TEXT.replace('world = "simulated"\ntable = "x"', 'worlds = ["simulated", "real"]\nscenario = "s"'), "t.toml")
    assert [(t.name, t.world) for t in claim.tests] == [("t", "simulated"), ("t, real", "real")]
    made, real = runs({"cpus": 2}, a=(4.0,), b=(2.0,)), runs({"cpus": 2}, a=(3.0,), b=(2.0,))
    same = judge(claim, {"t": made, "t, real": made})
    assert (same.of("real"), same.places) == ("reproduced", (1, 1))
    other = judge(claim, {"t": made, "t, real": real})
    assert (other.outcome, other.of("real"), other.places) == ("depends", "not reproduced", (0, 1))
    assert "differ at 0 of 1 places that both tell: no reason is known" in page([other])


def test_a_side_may_be_of_another_test_and_another_quantity() -> None:
    text = TEXT.replace('over = "b"', 'over = { engine = "b", test = "u" }\nover_quantity = "rows_out"')
    text += """
[[tests]]
name = "u"
world = "simulated"
table = "y"
[[tests.rules]]
say = "u"
quantity = "makespan_s"
of = "b"
most = 9
"""
    evidence = {"t": runs({}, a=(8.0,)), "u": runs({}, b=(2.0,))}  # 4 rows out
    assert [p.found.value for j in judge(read(text, "t.toml"), evidence).judged for p in j.points if p.found] == [2.0, 2.0]


def test_evidence_of_another_definition_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = next(c for c in CLAIMS if shipped(c))
    name = next(iter(shipped(claim)))
    changed = tuple(
        replace(t, scenario="other", table=None, catalogue=None, probe=None) if t.name == name else t for t in claim.tests
    )
    assert name not in shipped(replace(claim, tests=changed))


def test_packed_evidence_gives_the_verdict_of_the_records() -> None:
    claim = read(TEXT, "t.toml")
    records = runs({"cpus": 2}, a=(4.0, 4.1, 4.2), b=(2.0, 2.0, 2.0)) + runs({"cpus": 4}, a=(3.0,), b=(2.0,))
    document = json.loads(json.dumps(packed(claim, {"t": records})))
    assert judge(claim, {"t": document["tests"]["t"]["runs"]}) == judge(claim, {"t": records})
    assert document["tests"]["t"]["digest"] == claim.tests[0].digest() and len(document["tests"]["t"]["hosts"]) == 1


def test_the_page_leads_with_verdicts_and_escapes_what_it_shows() -> None:
    claim = replace(read(TEXT, "t.toml"), claim="<script>alert(1)</script>", caveats=("<b>",))
    html = page([judge(claim, {"t": runs({"cpus": 2}, a=(4.0, 4.1, 4.2), b=(2.0, 2.0, 2.0))})])
    assert "<script>" not in html and "<b>" not in html.replace("<b class", "")
    assert html.index("Verdicts") < html.index('id="twice"') and "<svg" in html and "bound 2" in html
    assert evidence_of(record("a", 1.0))["counters"]["blocks"] == 3.0


def test_what_ships_says_why_worlds_differ_and_is_small() -> None:
    """Every verdict that differs between the worlds has its reason in the claim's file."""
    size = 0
    for claim in CLAIMS:
        evidence = shipped(claim)
        size += len(json.dumps(evidence))
        verdict = judge(claim, evidence)
        real, simulated = verdict.of("real"), verdict.of("simulated")
        if real and simulated and real != simulated and "inconclusive" not in (real, simulated):
            assert claim.differs, f"{claim.id}: real {real}, simulated {simulated}"
    assert 10_000 < size < 2_000_000


def test_stored_evidence_gives_the_same_verdict_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--results", str(tmp_path)]
    assert main(["claims", "run", "resources", *folder]) == ExitCode.OK
    ran = capsys.readouterr().out
    assert "6  resources" in ran and "reproduced" in ran
    assert main(["claims", "report", "6", *folder]) == ExitCode.OK
    assert capsys.readouterr().out == ran
    assert main(["claims", "report", "6", *folder, "--json"]) == ExitCode.OK
    [verdict] = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["verdict"] == verdict["simulated"] == "reproduced" and verdict["real"] is None
    assert main(["claims", "run", "6", *folder]) == ExitCode.OK, "what has evidence is not run again"
    assert main(["claims", "report", "6", *folder, "--markdown"]) == ExitCode.OK
    assert "## 6 resources" in capsys.readouterr().out


def test_an_unknown_claim_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "run", "map-reduse"]) == ExitCode.BAD_INPUT
    assert "map-reduce" in capsys.readouterr().err
