"""Instance types: those shipped are whole and sourced, a user's own are read strictly, and groups take over their figures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windtunnel.cli import main
from windtunnel.errors import InputError
from windtunnel.scenario.reading import from_document, load_scenario
from windtunnel.spec.catalogue import parse_catalogue, read_catalogue, shipped
from windtunnel.spec.cluster import NodeSpec
from windtunnel.spec.strict import Place

GROUPS = {"AWS": 30, "Google": 6, "Azure": 5}


def document(*nodes: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """A scenario of one operator on these node groups."""
    return {
        "schema": 1,
        "name": "types",
        "cluster": {"nodes": list(nodes), **cluster},
        "dataset": {"rows": 8, "row_bytes": "8B"},
        "operators": [{"name": "work", "kind": "map", "cost": {"per_row": "1ms"}}],
        "engines": [{"name": "bulk"}],
    }


def nodes_of(*nodes: dict[str, Any], file: str = "scenario.toml", **cluster: Any) -> tuple[NodeSpec, ...]:
    """The node groups as a scenario reads them."""
    return from_document(document(*nodes, **cluster), file).cluster.nodes


# -- the shipped catalogue --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_every_type_is_whole(name: str) -> None:
    kind = shipped()[name]
    node = kind.node
    assert node.type == name
    assert kind.source.split()[0] in GROUPS
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", kind.date)
    assert {"cpus", "memory", "nic", "disk", "price_per_hour"} <= set(kind.keys)
    assert set(kind.keys["disk"]) - {"kind", "drives"} == {"read", "write", "capacity"}
    assert 0.5 <= node.memory_bytes / 2**30 / node.cpus <= 32
    assert node.disk.read_bytes_per_s >= node.disk.write_bytes_per_s
    assert 0.02 < node.price_per_hour_usd / node.cpus < 2
    if "gpus" in kind.keys:
        assert set(kind.keys["gpus"]) == {"kind", "count", "memory", "pcie"}
        assert node.gpus.count in (1, 4, 8)
        assert node.gpus.memory_bytes >= 16 * 2**30


@pytest.mark.parametrize("name", shipped())
def test_a_scenario_may_name_every_type(name: str) -> None:
    (node,) = nodes_of({"name": "worker", "type": name, "count": 3})
    assert node.count == 3
    assert (node.type, node.cpus, node.gpus, node.disk) == (name, *_figures(shipped()[name].node))


def _figures(node: NodeSpec) -> tuple[Any, ...]:
    return node.cpus, node.gpus, node.disk


def test_three_vendors_are_there() -> None:
    counts = {vendor: sum(t.source.startswith(vendor) for t in shipped().values()) for vendor in GROUPS}
    assert all(counts[vendor] >= least for vendor, least in GROUPS.items()), counts
    assert sum(counts.values()) == len(shipped())


def test_sizes_of_a_family_grow_in_proportion() -> None:
    for family in ("m6i", "m7i", "m8i"):
        small, large = (shipped()[f"{family}.{size}xlarge"].node for size in (2, 8))
        assert large.cpus == 4 * small.cpus
        assert large.memory_bytes == 4 * small.memory_bytes
        assert large.nic_bytes_per_s == 4 * small.nic_bytes_per_s
        assert large.price_per_hour_usd == pytest.approx(4 * small.price_per_hour_usd)


def test_a_group_goes_before_its_type_key_by_key() -> None:
    (node,) = nodes_of({"type": "g5.2xlarge", "cpus": 4, "gpus": {"speed": 2.0}, "disk": {"read": "2GB/s"}})
    usual = shipped()["g5.2xlarge"].node
    assert (node.cpus, node.memory_bytes) == (4, usual.memory_bytes)
    assert (node.gpus.kind, node.gpus.count, node.gpus.speed) == ("A10G", 1, 2.0)
    assert (node.disk.read_bytes_per_s, node.disk.write_bytes_per_s) == (2e9, usual.disk.write_bytes_per_s)


def test_an_unknown_type_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"cluster\.nodes\[0\]\.type = 'm6i\.2xlarg': .*did you mean 'm6i\.2xlarge'\?"):
        nodes_of({"type": "m6i.2xlarg"})


# -- catalogues of users ----------------------------------------------------------------------------------------------

OWN = """
schema = 1
source = "our price sheet"
date = "2026-02"

[types."lab.big"]
cpus = 64
memory = "512GiB"
startup = "30s"

[types."m6i.2xlarge"]
cpus = 9
memory = "33GiB"
source = "a dream"
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., tuple[NodeSpec, ...]]:
    """Node groups of a scenario in a folder with the catalogue ``own.toml``."""

    def read(*nodes: dict[str, Any], text: str = OWN) -> tuple[NodeSpec, ...]:
        (tmp_path / "own.toml").write_text(text, encoding="utf-8")
        return nodes_of(*nodes, catalogue="own.toml", file=str(tmp_path / "scenario.toml"))

    return read


def test_a_user_adds_types_and_overrides_shipped_ones(own: Callable[..., tuple[NodeSpec, ...]]) -> None:
    groups = ("lab.big", "m6i.2xlarge", "m7i.2xlarge")
    big, changed, usual = own(*({"name": t, "type": t} for t in groups))
    assert (big.cpus, big.memory_bytes, big.startup_s, big.type) == (64, 512 * 2**30, 30.0, "lab.big")
    assert (changed.cpus, changed.price_per_hour_usd) == (9, 0.0)
    assert usual == NodeSpec(**{**_fields(shipped()["m7i.2xlarge"].node), "name": "m7i.2xlarge"})
    (again,) = nodes_of({"type": "m6i.2xlarge"})
    assert again.cpus == 8


def _fields(node: NodeSpec) -> dict[str, Any]:
    return {name: getattr(node, name) for name in NodeSpec.__dataclass_fields__}


def test_a_type_has_the_source_of_its_file_or_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    types = read_catalogue(tmp_path / "own.toml")
    assert [(t.source, t.date) for t in types.values()] == [("our price sheet", "2026-02"), ("a dream", "2026-02")]
    bare = parse_catalogue('schema = 1\n[types.x]\ncpus = 1\nmemory = "1GiB"', Place("x.toml"))["x"]
    assert (bare.source, bare.date) == ("unknown", "unknown")


BAD = {
    'schema = 1\n[types.x]\ncpus = 1\nmemroy = "1GiB"': "own.toml: types.x.memroy: unknown key; did you mean 'memory'?",
    'schema = 1\n[types.x]\ncpus = 0\nmemory = "1GiB"': "own.toml: types.x.cpus = 0: must be a whole number",
    'schema = 1\n[types.x]\ncpus = 1\nmemory = "1 parsec"': "own.toml: types.x.memory: is not a quantity",
    'schema = 1\n[types."a.b"]\ncpus = 1': "own.toml: types.\"a.b\": missing key 'memory'",
    'schema = 1\n[types.x]\ncpus = 1\nmemory = "1GiB"\ncount = 3': "own.toml: types.x.count: unknown key",
    'schema = 1\n[types.x]\ncpus = 1\nmemory = "1GiB"\ngpus = { cuont = 1 }': "own.toml: types.x.gpus.cuont: unknown key; did you",
    'schema = 1\n[types.x]\ncpus = 1\nmemory = "1GiB"\nsource = 3': "own.toml: types.x.source = 3: must be a string",
    "schema = 1\n[types]\nx = 3": "own.toml: types.x = 3: must be a table",
    "schema = 1\ntypes = 3": "own.toml: types = 3: must be a table",
    "schema = 1": "own.toml: missing key 'types'",
    "schema = 2\n[types]": "own.toml: schema = 2: this version reads catalogues of schema 1",
    "schema = 1\n[tpyes]": "own.toml: tpyes: unknown key; did you mean 'types'?",
    "schema = [": "own.toml: is not valid TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_catalogue_is_one_sentence(text: str, own: Callable[..., tuple[NodeSpec, ...]]) -> None:
    with pytest.raises(InputError) as error:
        own({"cpus": 1, "memory": "1GiB"}, text=text)
    assert BAD[text] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gone.toml", ".", "x" * 5000, "a/b.toml"])
def test_a_missing_catalogue_names_its_key(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scenario\.toml: cluster\.catalogue = .*: there is no such file next to the scenario"):
        nodes_of({"cpus": 1, "memory": "1GiB"}, catalogue=name, file=str(tmp_path / "scenario.toml"))


def test_a_catalogue_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(b"schema = 1 # \xff")
    with pytest.raises(InputError, match=r"own\.toml: is not UTF-8 text: byte 13 is invalid"):
        nodes_of({"cpus": 1, "memory": "1GiB"}, catalogue="own.toml", file=str(tmp_path / "scenario.toml"))


@pytest.mark.parametrize("value", [3, "", [], {}, True])
def test_a_catalogue_is_a_path(value: Any) -> None:
    with pytest.raises(InputError, match=r"scenario\.toml: cluster\.catalogue"):
        nodes_of({"cpus": 1, "memory": "1GiB"}, catalogue=value)


SCENARIO = """
schema = 1
name = "own"
[cluster]
catalogue = "own.toml"
[[cluster.nodes]]
type = "lab.big"
[dataset]
rows = 8
row_bytes = "8B"
[[operators]]
name = "work"
kind = "map"
cost = { per_row = "1ms" }
[[engines]]
name = "bulk"
[sweep]
"cluster.nodes[0].type" = ["lab.big", "m6i.2xlarge", "m7i.2xlarge"]
"""


def test_types_are_swept_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN, encoding="utf-8")
    (tmp_path / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    points = load_scenario(tmp_path / "scenario.toml").expand()
    assert [p.scenario.cluster.nodes[0].cpus for p in points] == [64, 9, 8]


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.toml").write_text(OWN.replace("cpus = 64", "cpu = 64"), encoding="utf-8")
    (tmp_path / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    assert main(["simulate", str(tmp_path / "scenario.toml"), "--results", str(tmp_path / "r")]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "own.toml: types.\"lab.big\".cpu: unknown key; did you mean 'cpus'?" in err


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_as_json_holds_every_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["instances", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["instances"]
    assert [r["name"] for r in rows] == list(shipped())
    h100 = next(r for r in rows if r["name"] == "p5.48xlarge")
    assert (h100["gpus"]["count"], h100["nic_bytes_per_s"], h100["date"]) == (8, 4e11, "2026-01")


def test_the_table_names_every_type_and_its_price(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["instances"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(shipped()) <= set(lines)
    assert "$0.048 a CPU" in lines["m6i.2xlarge"]
    assert "4 × T4 (16 GiB)" in lines["g4dn.12xlarge"]
    assert "$0.978 a GPU" in lines["g4dn.12xlarge"]
