"""What is published about records and scenarios is what the readers do: neither says more, neither less."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.front.scenarios import FULL, full
from tests.front.test_scenario_fuzz import ALL, JUNK, Path_, parent, places
from tests.hostile import templates
from windtunnel.errors import BadRecord, InputError
from windtunnel.records import schema as record_schema
from windtunnel.records.checking import run_object
from windtunnel.records.record import RunRecord
from windtunnel.records.store import run_json
from windtunnel.scenario.reading import from_document
from windtunnel.scenario.schema import json_schema
from windtunnel.spec.strict import Table

ROOT = Path(__file__).parents[2]
RECORD = jsonschema.Draft202012Validator(record_schema.json_schema())
SCENARIO = jsonschema.Draft202012Validator(json_schema())
RUN = json.loads(run_json(templates.record("sim:bulk", 0, 0.5)))
PLACES = list(places(RUN))


def test_the_published_files_are_current() -> None:
    for name, schema in (("record", record_schema.json_schema()), ("scenario", json_schema())):
        jsonschema.Draft202012Validator.check_schema(schema)
        published = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        assert published == schema, f"windtunnel schema {name} > docs/schemas/{name}.json"


# -- records --------------------------------------------------------------------------------------------------------------


def test_the_schema_declares_every_field_of_a_record() -> None:
    fields = [name for name in RunRecord.__dataclass_fields__ if name not in ("spans", "samples")]
    assert sorted(record_schema.Run.__struct_fields__) == sorted(fields)


def accepted(document: dict[str, Any]) -> bool:
    """By the reader, in the only two ways there are."""
    try:
        run_object(json.dumps(document).encode(), Path(f"{RUN['run_id']}.json"))
    except BadRecord:
        return False
    return True


#: what only the reader can say: names of files, sums, sweeps and depth; and that 3.0 is not the whole number that a run writes
BEYOND = ("not the name of the file", "requests_sent", "percentile", "control characters", "nests deeper", "got float")


@settings(max_examples=300, deadline=None)
@given(at=st.sampled_from(PLACES), junk=JUNK)
def test_what_the_reader_accepts_the_published_schema_accepts_and_the_other_way_round(at: Path_, junk: Any) -> None:
    document = json.loads(json.dumps(RUN))
    try:
        parent(document, at)[at[-1]] = junk
        text = json.dumps(document, allow_nan=False)
    except ValueError:
        return
    valid = RECORD.is_valid(json.loads(text))
    if accepted(document) != valid:
        with pytest.raises(BadRecord, match="|".join(BEYOND)):
            run_object(text.encode(), Path(f"{RUN['run_id']}.json"))
        assert valid


@settings(max_examples=100, deadline=None)
@given(at=st.sampled_from([p for p in PLACES if isinstance(p[-1], str)]))
def test_a_missing_key_is_told_by_both(at: Path_) -> None:
    document = json.loads(json.dumps(RUN))
    del parent(document, at)[at[-1]]
    assert accepted(document) == RECORD.is_valid(document)


# -- scenarios ------------------------------------------------------------------------------------------------------------

MORE = {
    "schema": 1, "name": "service", "cluster": {"nodes": [{"cpus": 4, "memory": "8GiB", "disk": {"kind": "hdd", "drives": 2}}]},
    "arrivals": {"kind": "poisson", "rate_per_s": 5, "duration": "10s", "tokens": {"prompt": 10, "output": 5}},
    "deployments": [{"name": "llm", "replicas": {"min": 1, "max": 2, "target_ongoing": 2}, "tokens": {"decode": "1ms"}},
                    {"name": "front", "cost": {"per_call": "1ms"}, "calls": ["llm"], "batch": {"max_size": 4, "wait": "1ms"}}],
    "engines": [{"name": "serving"}], "objective": {"p99": "1s"},
}  # fmt: skip
TRAINED = {**FULL, "trainer": {"batch_rows": 4, "step": "1ms", "resources": {"cpus": 0}}, "sweep": {},
           "faults": [{"at": "1s", "kind": "straggler", "target": "worker[0]", "factor": 2.0, "until": "2s"}]}  # fmt: skip


def _resolved(schema: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
    for step in path:
        options = [schema, *schema.get("anyOf", ())]
        schema = next(
            (o["items"] if isinstance(step, int) else o["properties"][step])
            for o in options
            if ("items" in o if isinstance(step, int) else step in o.get("properties", {}))
        )
    return next((o for o in schema.get("anyOf", ()) if o.get("type") == "object"), schema)


def _path(place: str) -> tuple[str | int, ...]:
    return tuple(int(p) if p.isdigit() else p for p in place.replace("[", ".").replace("]", "").split(".") if p)


def test_keys_and_choices_are_those_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader itself is watched while it reads scenarios in which every table stands."""
    keys: dict[str, set[str]] = {}
    choices: dict[str, set[str]] = {}
    build, choose = Table.__init__, Table.choice

    def built(self: Table, data: object, place: Any, known: Any) -> None:
        names = tuple(known)
        keys.setdefault(place.path, set()).update(names)
        build(self, data, place, names)

    def chosen(self: Table, name: str, allowed: Any, default: str | None = None) -> Any:
        names = tuple(allowed)
        choices[self.place.key(name).path] = set(names)
        return choose(self, name, names, default)

    monkeypatch.setattr(Table, "__init__", built)
    monkeypatch.setattr(Table, "choice", chosen)
    for document in (TRAINED, MORE):
        from_document(json.loads(json.dumps(document)), "scenario.toml")
    tables = {place: names for place, names in keys.items() if not place.startswith(("types", "sweep", "arrivals.steps"))}
    assert len(tables) > 20
    for place, names in tables.items():
        assert set(_resolved(json_schema(), _path(place))["properties"]) | {"schema"} == names | {"schema"}, place
    for place, allowed in choices.items():
        told = _resolved(json_schema(), _path(place)).get("enum")
        assert told is None or set(told) == allowed, place


def _has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(_has_null(v) for v in inner)


@settings(max_examples=300, deadline=None)
@given(at=st.sampled_from(ALL), junk=JUNK)
def test_the_schema_refuses_nothing_that_the_reader_accepts(at: Path_, junk: Any) -> None:
    document = full()
    parent(document, at)[at[-1]] = junk
    document.pop("sweep", None)  # may give what the rest lacks
    if _has_null(document):  # TOML has none
        return
    try:
        from_document(document, "fuzz.toml")
    except InputError:
        return
    assert not list(SCENARIO.iter_errors(document))


def scenario_files() -> Iterator[Path]:
    """Every scenario that ships or is tested."""
    for folder in ("examples", "tests/gates", "tests/bench"):
        yield from sorted((ROOT / folder).glob("*.toml"))


@pytest.mark.parametrize("path", list(scenario_files()), ids=lambda p: p.name)
def test_scenarios_that_ship_are_valid(path: Path) -> None:
    assert not list(SCENARIO.iter_errors(tomllib.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("change", [
    {"clutser": {}}, {"seed": -1}, {"repetitions": "2"}, {"engines": "bulk"}, {"dataset": {"rows": "many"}}, {"name": ""},
    {"operators": [{"name": "a", "kind": "mapp"}]}, {"cluster": {"nodes": [{"memory": "5 parsecs"}]}},
])  # fmt: skip
def test_an_editor_is_told_what_is_wrong(change: dict[str, Any]) -> None:
    assert list(SCENARIO.iter_errors({**full(), **change}))
