"""Evidence → verdicts. Pure: it runs nothing, and the same runs give the same verdict.

Evidence is a run's JSON document (`run_document`) with its counters: what ships with the project in ``landscape/evidence`` is that
alone, so a fresh clone derives the verdicts that the full records gave. A rule is judged at every point of its test's sweep.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from windtunnel.errors import InputError, WindtunnelError, nearest
from windtunnel.records.document import run_document
from windtunnel.records.record import RunRecord
from windtunnel.reports import stats
from windtunnel.reports.claims import Claim, Rule, Side, Test, World
from windtunnel.running.environment import host_key
from windtunnel.spec.documents import parse_json, read_text
from windtunnel.spec.strict import Place
from windtunnel.spec.units import parse_bytes, parse_seconds

MOST_BYTES = 256 * 2**20  # of a file of evidence
Run = Mapping[str, Any]
State = Literal["holds", "fails", "open"]
Outcome = Literal["reproduced", "not reproduced", "depends", "inconclusive", "not testable here"]
#: what a run's document need not carry as evidence: it follows from the rest, or no rule may ask for it
_LEFT_OUT = ("run_id", "bounds_s", "bottlenecks", "prediction", "replicas", "bound_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A rule at one point of a sweep. ``found``: the ratio or value with its interval; None where a side has no good run."""

    at: tuple[tuple[str, Any], ...]
    found: stats.Estimate | None
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A rule of a test with what was found."""

    test: Test
    rule: Rule
    points: tuple[Point, ...]

    @property
    def outcome(self) -> Outcome:
        """Of this rule alone."""
        return outcome_of(p.state for p in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A claim's outcome. ``missing``: tests without records."""

    claim: Claim
    outcome: Outcome
    judged: tuple[Judged, ...]
    missing: tuple[str, ...]

    def of(self, world: World) -> Outcome | None:
        """The outcome in one world; None without evidence from it."""
        states = [p.state for j in self.judged if j.test.world == world for p in j.points]
        return outcome_of(states) if states else None

    @property
    def places(self) -> tuple[int, int]:
        """(places where both worlds say the same, places where both say something): a rule of the same words at the same point."""
        told: dict[tuple[str, str], dict[World, State]] = {}
        for judged in self.judged:
            for point in judged.points:
                if point.state != "open":
                    told.setdefault((judged.rule.say, str(point.at)), {})[judged.test.world] = point.state
        both = [t for t in told.values() if len(t) > 1]
        return sum(len(set(t.values())) == 1 for t in both), len(both)


# -- evidence ------------------------------------------------------------------------------------------------------------


def evidence_of(record: RunRecord) -> dict[str, Any]:
    """What a verdict needs of a run."""
    document = {k: v for k, v in run_document(record).items() if k not in _LEFT_OUT and v is not None}
    counters = {k: v for k, v in record.counters.items() if not k.startswith(("bound_s:", "interval_"))}
    return {**document, "counters": counters}


def shipped(claim: Claim) -> dict[str, tuple[Run, ...]]:
    """The evidence in the package, by test; that of a test which is defined otherwise now is left out."""
    file = resources.files("windtunnel.reports").joinpath("landscape", "evidence", f"{claim.id}.json")
    if not file.is_file():
        return {}
    wanted = {t.name: t.digest() for t in claim.tests}
    return {name: tuple(t["runs"]) for name, t in evidence(file).items() if wanted.get(name) == t["digest"]}


def evidence(file: Any) -> dict[str, dict[str, Any]]:
    """The tests in a file of evidence, by name: the ``digest`` of each and its ``runs``. Raises InputError for what is none."""
    place = Place(str(file))
    document = parse_json(read_text(Path(str(file)), place, MOST_BYTES), place)
    tests = document.get("tests") if isinstance(document, dict) else None
    if not isinstance(tests, dict) or not all(_is_evidence(t) for t in tests.values()):
        place.fail("is no file of evidence: it needs tests, each with a digest and a list of runs")
    return tests


def _is_evidence(test: Any) -> bool:
    return (
        isinstance(test, dict) and isinstance(test.get("digest"), str) and isinstance(test.get("runs"), list)
        and all(isinstance(run, dict) for run in test["runs"])
    )  # fmt: skip


def packed(claim: Claim, records: Mapping[str, Sequence[RunRecord]]) -> dict[str, Any]:
    """The document of an evidence file, with where each test ran."""
    tests = {}
    for test in claim.tests:
        measured = [r for r in records.get(test.name, ()) if not r.warmup]
        if measured:
            hosts = list(dict.fromkeys(str(host_key(r.environment)) for r in measured if r.clock == "wall"))
            tests[test.name] = {"digest": test.digest(), "hosts": hosts, "runs": [evidence_of(r) for r in measured]}
    return {"schema": 1, "claim": claim.id, "tests": tests}


# -- judging -------------------------------------------------------------------------------------------------------------


def judge(claim: Claim, evidence: Mapping[str, Sequence[RunRecord | Run]]) -> Verdict:
    """The verdict that follows from the runs of each test, by its name."""
    if claim.untested:
        return Verdict(claim=claim, outcome="not testable here", judged=(), missing=())
    known = {name: _plain(runs) for name, runs in evidence.items() if runs}
    judged = tuple(
        Judged(test=t, rule=r, points=_points(r, known[t.name], known)) for t in claim.tests if t.name in known for r in t.rules
    )
    missing = tuple(t.name for t in claim.tests if t.name not in known)
    return Verdict(claim=claim, outcome=outcome_of(p.state for j in judged for p in j.points), judged=judged, missing=missing)


def _plain(runs: Sequence[RunRecord | Run]) -> list[Run]:
    return [evidence_of(r) if isinstance(r, RunRecord) else r for r in runs if not isinstance(r, RunRecord) or not r.warmup]


def outcome_of(states: Iterable[State]) -> Outcome:
    """Holds everywhere, nowhere, or here and there; points that cannot be told alone decide nothing."""
    found = set(states)
    if found >= {"holds", "fails"}:
        return "depends"
    if found == {"holds"}:
        return "reproduced"
    return "not reproduced" if found == {"fails"} else "inconclusive"


def _points(rule: Rule, runs: Sequence[Run], known: Mapping[str, Sequence[Run]]) -> tuple[Point, ...]:
    """At every point of the sweep, by its values; once where a side names its own point or test."""
    if rule.of.at or (rule.over is not None and (rule.over.at or rule.over.test)):
        return (_point(rule, (), runs, known),)
    labels = {rule.of.engine, *([rule.over.engine] if rule.over else [])}
    places = {json.dumps(r["sweep"], sort_keys=True): tuple(sorted(r["sweep"].items())) for r in runs if r["label"] in labels}
    return tuple(_point(rule, at, runs, known) for at in sorted(places.values(), key=_by_value))


def _by_value(at: tuple[tuple[str, Any], ...]) -> list[tuple[str, float, str]]:
    return [(k, _magnitude(v), str(v)) for k, v in at]


def _magnitude(value: Any) -> float:
    """Of a number or a quantity with a unit; 0 for anything else."""
    if isinstance(value, (int, float)):
        return float(value)
    for parse in (parse_seconds, parse_bytes):
        with contextlib.suppress(WindtunnelError):
            return float(parse(value))
    return 0.0


def _point(rule: Rule, at: tuple[tuple[str, Any], ...], runs: Sequence[Run], known: Mapping[str, Sequence[Run]]) -> Point:
    sides = []
    for side, name in ((rule.of, rule.quantity), (rule.over, rule.over_quantity)):
        if side is None:
            continue
        mine = [r for r in (known.get(side.test, ()) if side.test else runs) if _is_of(r, side, at)]
        values = [v for r in mine if _counts(r, name) and (v := quantity(r, name)) is not None]
        if not values or len(values) < len(mine):
            why = next((f"{side.engine}: {r['status']}" for r in mine if r["status"] != "ok"), f"{side.engine}: no value")
            return Point(at=at, found=None, state="open", reason=why)
        sides.append(values)
    found = stats.median(sides[0]) if len(sides) == 1 else stats.ratio_of(*sides)
    if found is None:
        return Point(at=at, found=None, state="open", reason="a quantity of 0 has no ratio")
    return Point(at=at, found=found, state=_state(rule, found))


def _counts(run: Run, name: str) -> bool:
    """Whether a run's quantity is evidence: of a wrong result only what was counted is, such as how much of it is wrong, and no time."""
    counted = name.startswith("counters.") and not name.endswith("_s")
    return bool(run["status"] == "ok" or (run["status"] == "wrong_result" and counted))


def _is_of(run: Run, side: Side, at: tuple[tuple[str, Any], ...]) -> bool:
    return run["label"] == side.engine and all(run["sweep"].get(k) == v for k, v in (side.at or (() if side.test else at)))


def _state(rule: Rule, found: stats.Estimate) -> State:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if rule.least is not None:
        return "holds" if low >= rule.least else "fails" if high < rule.least else "open"
    assert rule.most is not None
    return "holds" if high <= rule.most else "fails" if low > rule.most else "open"


def quantity(run: Run, name: str) -> float | None:
    """A number of a run by its dotted name; None where the run has none. Raises InputError for a name it never has."""
    if name == "optimum":
        bound, makespan = run.get("lower_bound_s"), run.get("makespan_s")
        return bound / makespan if bound and makespan else None
    value: Any = run
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            if part in _MAY_LACK or value is not run:
                return None
            raise InputError(f"a run has no quantity {name!r}{nearest(part, value if isinstance(value, Mapping) else ())}")
        value = value[part]
    return None if value is None else float(value)


#: keys that evidence leaves out where they are null
_MAY_LACK = (
    "first_output_s", "rows_out", "utilization", "peak_memory_bytes", "spilled_bytes", "bytes_moved", "cost_usd", "lower_bound_s",
    "latency_s", "throughput_per_s", "offered_per_s", "interval_s", "of_optimum", "counters",
)  # fmt: skip
