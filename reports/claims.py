"""Claims about engines, as data: what is said, the experiments that test it, and the rule that turns their records into a verdict.

A claim is a TOML file in ``landscape/``. A test is a scenario that runs for real or simulated; a rule compares one quantity of two
engines (or bounds that of one) at every point of the scenario's sweep, so that a verdict says where it flips. Judging is a pure
function of records: it runs nothing, and the same records give the same verdict.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from windtunnel.reports import stats

from windtunnel.document import run_document
from windtunnel.errors import InputError, WindtunnelError, nearest
from windtunnel.record import RunRecord
from windtunnel.units import parse_bytes, parse_seconds

World = Literal["real", "simulated"]
State = Literal["holds", "fails", "open"]
Outcome = Literal["reproduced", "not reproduced", "depends", "inconclusive", "not testable here"]
WORLDS: tuple[World, ...] = ("simulated", "real")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An engine by its label, at one point of the sweep or, with an empty ``at``, at every one."""

    engine: str
    at: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``quantity`` of ``of``, over that of ``over`` where there is one, is ``least`` or more, or ``most`` or less.

    Quantities are keys of a run's JSON document, dotted where they are nested; ``optimum`` is the lower bound over the makespan.
    """

    say: str
    quantity: str
    of: Side
    over: Side | None
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A scenario (TOML text) or a published ``table``, the world that it runs in, and the rules that its records must pass."""

    __test__ = False  # no test of pytest's
    name: str
    world: World
    scenario: str | None
    table: str | None
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``untested``: why there is no test. ``refuted_by``: what would show that the claim is wrong."""

    id: str
    number: int
    claim: str
    source: str
    refuted_by: str
    untested: str
    caveats: tuple[str, ...]
    tests: tuple[Test, ...]


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
        return _outcome(p.state for p in self.points)


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
        return _outcome(states) if states else None


# -- reading -------------------------------------------------------------------------------------------------------------


def load_all() -> tuple[Claim, ...]:
    """The claims that ship with the project, by number."""
    folder = resources.files("windtunnel.reports").joinpath("landscape")
    found = [read(p.read_text(encoding="utf-8"), p.name) for p in folder.iterdir() if p.name.endswith(".toml")]
    return tuple(sorted(found, key=lambda c: c.number))


def select(ids: Sequence[str]) -> tuple[Claim, ...]:
    """Claims by id or number; all without any. Raises InputError."""
    known = load_all()
    by_name = {name: c for c in known for name in (c.id, str(c.number))}
    for name in ids:
        if name not in by_name:
            raise InputError(f"there is no claim {name!r}{nearest(name, [c.id for c in known])}")
    return tuple(c for c in known if not ids or {c.id, str(c.number)} & set(ids))


def read(text: str, file: str) -> Claim:
    """A claim from TOML. Raises InputError with the file's name."""
    try:
        data = tomllib.loads(text)
        claim = _claim(data)
    except KeyError as error:
        raise InputError(f"{file}: a claim needs the key {error.args[0]!r}") from error
    except (tomllib.TOMLDecodeError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} is no claim: {error}") from error
    if bool(claim.tests) == bool(claim.untested):
        raise InputError(f"{file}: a claim has either tests or a reason why it is untested")
    return claim


def _claim(data: dict[str, Any]) -> Claim:
    return Claim(
        id=data["id"], number=int(data["number"]), claim=data["claim"], source=data["source"], refuted_by=data.get("refuted_by", ""),
        untested=data.get("untested", ""), caveats=tuple(data.get("caveats", ())), tests=tuple(_test(t) for t in data.get("tests", ())),
    )  # fmt: skip


def _test(data: dict[str, Any]) -> Test:
    if data["world"] not in WORLDS:
        raise ValueError(f"world {data['world']!r} is neither real nor simulated")
    if ("scenario" in data) == ("table" in data):
        raise ValueError(f"test {data['name']!r} names either a scenario or a table")
    rules = tuple(_rule(r) for r in data["rules"])
    return Test(name=data["name"], world=data["world"], scenario=data.get("scenario"), table=data.get("table"), rules=rules)


def _rule(data: dict[str, Any]) -> Rule:
    least, most = data.get("least"), data.get("most")
    if (least is None) == (most is None):
        raise ValueError(f"rule {data['say']!r} has either a least or a most")
    over = _side(data["over"]) if "over" in data else None
    return Rule(say=data["say"], quantity=data["quantity"], of=_side(data["of"]), over=over, least=least, most=most)


def _side(data: str | dict[str, Any]) -> Side:
    if isinstance(data, str):
        return Side(engine=data)
    return Side(engine=data["engine"], at=tuple(sorted(data.get("at", {}).items())))


# -- judging -------------------------------------------------------------------------------------------------------------


def judge(claim: Claim, evidence: Mapping[str, Sequence[RunRecord]]) -> Verdict:
    """The verdict that follows from the records of each test, by its name."""
    if claim.untested:
        return Verdict(claim=claim, outcome="not testable here", judged=(), missing=())
    judged = tuple(
        Judged(test=t, rule=r, points=_points(r, evidence[t.name])) for t in claim.tests if evidence.get(t.name) for r in t.rules
    )
    missing = tuple(t.name for t in claim.tests if not evidence.get(t.name))
    outcome = _outcome(p.state for j in judged for p in j.points)
    return Verdict(claim=claim, outcome=outcome, judged=judged, missing=missing)


def _outcome(states: Iterable[State]) -> Outcome:
    found = set(states)
    if found >= {"holds", "fails"}:
        return "depends"
    if found == {"holds"}:
        return "reproduced"
    return "not reproduced" if found == {"fails"} else "inconclusive"


def _points(rule: Rule, records: Sequence[RunRecord]) -> tuple[Point, ...]:
    """At every point of the sweep, in the order of the records; once where a side names its own point."""
    if rule.of.at or (rule.over is not None and rule.over.at):
        return (_point(rule, (), records),)
    labels = {rule.of.engine, *([rule.over.engine] if rule.over else [])}
    places = dict.fromkeys(tuple(sorted(r.sweep.items())) for r in records if r.label in labels)
    return tuple(_point(rule, at, records) for at in sorted(places, key=_by_value))


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


def _point(rule: Rule, at: tuple[tuple[str, Any], ...], records: Sequence[RunRecord]) -> Point:
    sides = []
    for side in (rule.of, rule.over):
        if side is None:
            continue
        runs = [r for r in records if r.label == side.engine and not r.warmup and _is_at(r, side.at or at)]
        values = [v for r in runs if r.status == "ok" and (v := quantity(r, rule.quantity)) is not None]
        if not values or len(values) < len(runs):
            why = next((f"{side.engine}: {r.status}" for r in runs if r.status != "ok"), f"{side.engine}: no value")
            return Point(at=at, found=None, state="open", reason=why)
        sides.append(values)
    found = stats.median(sides[0]) if len(sides) == 1 else stats.ratio_of(*sides)
    if found is None:
        return Point(at=at, found=None, state="open", reason="a quantity of 0 has no ratio")
    return Point(at=at, found=found, state=_state(rule, found))


def _is_at(record: RunRecord, at: tuple[tuple[str, Any], ...]) -> bool:
    return all(record.sweep.get(k) == v for k, v in at)


def _state(rule: Rule, found: stats.Estimate) -> State:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if rule.least is not None:
        return "holds" if low >= rule.least else "fails" if high < rule.least else "open"
    assert rule.most is not None
    return "holds" if high <= rule.most else "fails" if low > rule.most else "open"


def quantity(record: RunRecord, name: str) -> float | None:
    """A number of a run's document by its dotted name; None where the run has none. Raises InputError for a name it never has."""
    document: Any = run_document(record)
    if name == "optimum":
        bound, makespan = document["lower_bound_s"], document["makespan_s"]
        return bound / makespan if bound and makespan else None
    for part in name.split("."):
        if document is None:
            return None
        if not isinstance(document, Mapping) or part not in document:
            raise InputError(
                f"a run's document has no quantity {name!r}{nearest(part, document if isinstance(document, Mapping) else ())}"
            )
        document = document[part]
    return None if document is None else float(document)
