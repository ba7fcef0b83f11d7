"""Whatever is wrong with a scenario file: exit code 2 and one sentence, before anything runs. Never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.front.scenarios import FULL, full
from windtunnel.cli import main
from windtunnel.errors import InputError
from windtunnel.scenario.reading import from_document, parse_scenario

Path_ = tuple[str | int, ...]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=12),
    st.sampled_from(["-1GB", "1e400GB", "5 parsecs", "GiB", "1GiBs", "", "\x00", "worker[9]", "0", "nan", "⟦"]),
)  # fmt: skip
JUNK = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=6), SCALARS, max_size=3))


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every place in a document."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


ALL = list(places(FULL))


def parent(document: Any, at: Path_) -> Any:
    """What holds the last step."""
    for step in at[:-1]:
        document = document[step]
    return document


def accepted_or_one_sentence(document: dict[str, Any]) -> None:
    """The only two things that may happen."""
    try:
        from_document(document, "fuzz.toml")
        return
    except InputError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert "fuzz.toml" in sentence


@settings(max_examples=400, deadline=None)
@given(at=st.sampled_from(ALL), junk=JUNK)
def test_any_value_anywhere(at: Path_, junk: Any) -> None:
    document = full()
    parent(document, at)[at[-1]] = junk
    accepted_or_one_sentence(document)


@settings(max_examples=200, deadline=None)
@given(at=st.sampled_from(ALL))
def test_any_key_may_be_missing(at: Path_) -> None:
    document = full()
    del parent(document, at)[at[-1]]
    accepted_or_one_sentence(document)


@settings(max_examples=200, deadline=None)
@given(at=st.sampled_from([p for p in ALL if isinstance(p[-1], str)]), name=st.text(min_size=1, max_size=8), junk=JUNK)
def test_an_unknown_key_is_refused_and_named(at: Path_, name: str, junk: Any) -> None:
    document = full()
    holder = parent(document, at)
    if name in holder or "options" in at or "sweep" in at:
        return
    holder[name] = junk
    if any(name in (k, str(k)) for k in _optional(at)):
        accepted_or_one_sentence(document)
        return
    with pytest.raises(InputError) as error:
        from_document(document, "fuzz.toml")
    assert "\n" not in str(error.value)


def _optional(at: Path_) -> tuple[str, ...]:
    """Keys that the format knows and the full document leaves out."""
    return ("type", "faults", "scale", "workload", "arrivals", "deployments", "objective", "inputs", "remote", "at", "custom")


@settings(max_examples=150, deadline=None)
@given(key=st.text(max_size=30), values=JUNK)
def test_any_sweep(key: str, values: Any) -> None:
    document = full()
    document["sweep"] = {key: values}
    accepted_or_one_sentence(document)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_scenario(text, "fuzz.toml")
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(first=st.sampled_from(ALL), second=st.sampled_from(ALL), junk=JUNK)
def test_two_places_at_once(first: Path_, second: Path_, junk: Any) -> None:
    document = full()
    try:
        value = parent(document, second)[second[-1]]
        parent(document, first)[first[-1]] = value
        parent(document, second)[second[-1]] = junk
    except (KeyError, IndexError, TypeError):
        return
    accepted_or_one_sentence(document)


BAD = {
    'schema = 2\nname = "x"': "schema",
    'schema = 1\nname = "x"\nclutser = 3': "did you mean 'cluster'",
    'schema = 1\nname = "x"\n[cluster]\n[[cluster.nodes]]\ncpus = 2\nmemory = "32 parsecs"': "parsecs",
    "schema = 1\nname = [": "not valid TOML",
    "": "schema",
}


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("command", ["simulate", "run"])
def test_the_command_line_exits_with_2_and_one_sentence(
    text: str, command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    assert main([command, str(file), "--results", str(tmp_path / "results")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("windtunnel: ")
    assert err.count("\n") == 1
    assert "bad.toml" in err
    assert BAD[text] in err
    assert not (tmp_path / "results").exists()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.sampled_from(ALL), junk=st.sampled_from(["-1", -1, 10**30, "x", [], {}, None, 1.5, True]))
def test_the_command_line_never_shows_a_traceback(
    at: Path_, junk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    document = full()
    parent(document, at)[at[-1]] = junk
    monkeypatch.setattr("windtunnel.spec.documents.tomllib.loads", lambda text: document)
    file = tmp_path / "fuzz.toml"
    file.write_text("")
    try:
        from_document(document, "fuzz.toml")
    except InputError:
        assert main(["simulate", str(file), "--results", str(tmp_path / "r")]) == 2
        assert "Traceback" not in capfd.readouterr().err


def test_help_of_every_command_is_there() -> None:
    from windtunnel.cli import cli

    for name, command in cli.commands.items():
        result = CliRunner().invoke(command, ["--help"], prog_name=name)
        assert result.exit_code == 0
        assert "--help" in result.output
