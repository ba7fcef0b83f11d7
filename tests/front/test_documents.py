"""Files of strangers: they are small, shallow and regular, or there is a sentence within a second."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from windtunnel.errors import InputError
from windtunnel.scenario.reading import load_scenario, parse_scenario
from windtunnel.spec.catalogue import parse_catalogue, read_catalogue
from windtunnel.spec.documents import MOST_BYTES, MOST_STEPS, parse_json, parse_toml, read_text
from windtunnel.spec.strict import Place

PLACE = Place("file.toml")
STEPS = "a." * 50_000
DEEP = {
    "a table": f"[{STEPS}a]",
    "a list of tables": f"[[{STEPS}a]]",
    "a key": f"{STEPS}a = 1",
    "with blanks": "a . " * 50_000 + "a = 1",
    "quoted": '"a".' * 50_000 + "a = 1",
    "in single quotes": "'a'." * 50_000 + "a = 1",
    "inside a table": "x = { " + STEPS + "a = 1 }",
    "lists": "a = " + "[" * 50_000,
    "inline tables": "a = " + "{ a = " * 50_000,
    "lists that end": "a = " + "[" * 300 + "]" * 300,
    "tables in tables": "[" + ".".join("a" * 60) + "]\n" + ".".join("b" * 60) + " = 1",
}


@pytest.mark.parametrize("what", DEEP)
@pytest.mark.parametrize("read", [parse_scenario, lambda text: parse_catalogue(text, PLACE)], ids=["scenario", "catalogue"])
def test_depth_is_refused_within_a_second(what: str, read: object) -> None:
    begin = time.process_time()
    with pytest.raises(InputError, match=r"nested too deeply|dotted key of more than") as error:
        read(DEEP[what])  # type: ignore[operator]
    assert time.process_time() - begin < 1.0
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "text", ["a" * 10**6 + " = 1", "a-" * 10**6, "'." * 10**5, '"a' * 10**5, 'a = "' + "word " * 10**5 + '"']
)
def test_looking_for_long_keys_takes_no_longer_than_reading(text: str) -> None:
    begin = time.process_time()
    try:
        parse_toml(text, PLACE)
    except InputError:
        pass
    assert time.process_time() - begin < 5.0


def test_what_is_deep_enough_for_everybody_is_read() -> None:
    steps = MOST_STEPS - 1
    found: object = parse_toml(".".join("a" * steps) + " = 1", PLACE)
    for _ in range(steps):
        found = found["a"]  # type: ignore[index]
    assert found == 1
    assert parse_toml('a = "1.2.3.4. And so on."', PLACE) == {"a": "1.2.3.4. And so on."}
    assert parse_json("[" * MOST_STEPS + "]" * MOST_STEPS, PLACE)
    with pytest.raises(InputError, match="nested"):
        parse_json("[" * (MOST_STEPS + 1) + "]" * (MOST_STEPS + 1), PLACE)


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, "NaN", "[1, Infinity]", "", "{", "[1" + "0" * 5000 + "]"])
def test_json_is_told_the_same_way(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_json(text, Place("file.json"))
    assert str(error.value).startswith("file.json: ")
    assert "\n" not in str(error.value)


def test_only_regular_files_of_some_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.toml").write_bytes(b"#" * (MOST_BYTES + 1))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name, says in {
        "pipe": "no regular file", "large.toml": "at most", "bytes.toml": "byte 0", "none": "No such file", ".": "a folder",
        "a\0b": "no file can have that name",
    }.items():  # fmt: skip
        for read in (load_scenario, read_catalogue, lambda path: read_text(path, Place(str(path)))):
            with pytest.raises(InputError, match=says):
                read(tmp_path / name)
    (tmp_path / "exact.toml").write_bytes(b"#" * MOST_BYTES)
    assert len(read_text(tmp_path / "exact.toml", PLACE)) == MOST_BYTES


NAMES_ANOTHER = """
schema = 1
name = "x"
[cluster]
catalogue = "{}"
[[cluster.nodes]]
cpus = 1
memory = "1GB"
[dataset]
rows = 1
row_bytes = "1B"
[[operators]]
name = "a"
kind = "map"
cost = {{ per_row = "1s" }}
[[engines]]
name = "bulk"
"""


def test_a_scenario_never_quotes_the_file_that_it_names(tmp_path: Path) -> None:
    """Somebody else's scenario may name any file of this machine as its catalogue."""
    secret = "hunter2-passphrase"
    for number, text in enumerate((f"password = '{secret}'", f"schema = '{secret}'", secret, f"schema = 1\ntypes = '{secret}'",
                 f"schema = 1\n[types.x]\ncpus = 1\nmemory = '{secret}'", f"schema = 1\n[types.x]\ncpus = '{secret}'\nmemory = '1GB'",
                 f"schema = 1\n[types.x]\ncpus = 1\nmemory = '1GB'\ngpus = {{ kind = 'emulated:{secret}', count = 1 }}")):  # fmt: skip
        own = tmp_path / f"{number}.toml"
        own.write_text(text)
        scenario = tmp_path / "scenario.toml"
        scenario.write_text(NAMES_ANOTHER.format(own.name))
        with pytest.raises(InputError) as error:
            load_scenario(scenario)
        assert secret not in str(error.value), text
        assert own.name in str(error.value)
