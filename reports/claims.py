"""Claims about engines, as data: what is said, the experiments that test it, and the rules that judge their records.

A claim is a TOML file in ``landscape/``. A test is a scenario, a published table, a workload of the catalogue or a probe, run for
real or simulated. The module reads and checks the files; `judging` turns evidence into verdicts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from windtunnel.errors import InputError, nearest
from windtunnel.spec.canonical import digest

World = Literal["real", "simulated"]
WORLDS: tuple[World, ...] = ("simulated", "real")
#: what a test may run, each under its own key
KINDS = ("scenario", "table", "catalogue", "probe")
_REAL_ONLY = ("probe",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An engine by its label, at one point of the sweep or, with an empty ``at``, at every one; ``test``: of another test."""

    engine: str
    at: tuple[tuple[str, Any], ...] = ()
    test: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``quantity`` of ``of``, over that of ``over`` where there is one, is ``least`` or more, or ``most`` or less.

    Quantities are keys of a run's JSON document, dotted where they are nested; ``optimum`` is the lower bound over the makespan.
    ``over_quantity``: of the other side, where it is another one.
    """

    say: str
    quantity: str
    over_quantity: str
    of: Side
    over: Side | None
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """What runs: a ``scenario`` (TOML text), a published ``table``, a workload of the ``catalogue`` with its parameters, or a ``probe``."""

    __test__ = False  # no test of pytest's
    name: str
    world: World
    rules: tuple[Rule, ...]
    scenario: str | None = None
    table: str | None = None
    catalogue: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] | None = None

    def digest(self) -> str:
        """Of what runs: evidence of another definition is none. Rules may change."""
        return digest([self.scenario, self.table, self.catalogue, self.probe])


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``untested``: why there is no test. ``refuted_by``: what would show that the claim is wrong. ``differs``: why worlds disagree."""

    id: str
    number: int
    claim: str
    source: str
    refuted_by: str
    untested: str
    differs: str
    caveats: tuple[str, ...]
    tests: tuple[Test, ...] = field(default=())


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
        untested=data.get("untested", ""), differs=data.get("differs", ""), caveats=tuple(data.get("caveats", ())),
        tests=tuple(t for entry in data.get("tests", ()) for t in _tests(entry)),
    )  # fmt: skip


def _tests(data: dict[str, Any]) -> Iterator[Test]:
    """One a world: what runs in both is written once, and its real half carries the world in its name."""
    kinds = [k for k in KINDS if k in data]
    if len(kinds) != 1:
        raise ValueError(f"test {data['name']!r} names one of {', '.join(KINDS)}")
    worlds = data["worlds"] if "worlds" in data else [data["world"]]
    for world in worlds:
        if world not in WORLDS:
            raise ValueError(f"world {world!r} is neither real nor simulated")
        if world == "simulated" and kinds[0] in _REAL_ONLY:
            raise ValueError(f"test {data['name']!r}: a {kinds[0]} runs for real")
        real = world == "real" and len(worlds) > 1
        rules = tuple(_rule(r) for r in data["rules"] if world in r.get("worlds", WORLDS))
        name = f"{data['name']}, real" if real else data["name"]
        yield Test(name=name, world=world, rules=rules, **{kinds[0]: data[kinds[0]]})


def _rule(data: dict[str, Any]) -> Rule:
    least, most = data.get("least"), data.get("most")
    if (least is None) == (most is None):
        raise ValueError(f"rule {data['say']!r} has either a least or a most")
    over = _side(data["over"]) if "over" in data else None
    other = data.get("over_quantity", data["quantity"])
    return Rule(
        say=data["say"], quantity=data["quantity"], over_quantity=other, of=_side(data["of"]), over=over, least=least, most=most
    )


def _side(data: str | dict[str, Any]) -> Side:
    if isinstance(data, str):
        return Side(engine=data)
    return Side(engine=data["engine"], at=tuple(sorted(data.get("at", {}).items())), test=data.get("test", ""))
