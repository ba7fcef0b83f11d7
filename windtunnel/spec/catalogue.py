"""Node groups and the instance types they may name: the figures of a kind of machine, with their source and date.

The module owns the keys of a node group, the format of catalogues (the one shipped, ``catalogue.toml``, and those of users) and
how a group takes over the figures of its type. It knows no scenario.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from windtunnel.errors import closest
from windtunnel.spec.cluster import HDD_BYTES_PER_S, DeviceSpec, DiskSpec, NodeSpec
from windtunnel.spec.devices import device_spec, is_emulated
from windtunnel.spec.documents import parse_toml, read_text
from windtunnel.spec.strict import Place, Table

SCHEMA = 1
MOST_NODES = 100_000  # of a cluster
MOST_SLOTS = 1_000_000  # CPUs of a cluster, and devices: each is a worker
#: what a type says of a machine
TYPE_KEYS = ("cpus", "memory", "gpus", "disk", "nic", "price_per_hour", "startup", "mtbf")
NODE_KEYS = ("name", "count", "type", "memory_limit", *TYPE_KEYS)
#: where its figures come from, for one type or at the top of a file for all
_ORIGIN = ("source", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """A kind of machine: one as a spec, and the ``keys`` that a node group of it starts from."""

    name: str
    node: NodeSpec
    source: str
    date: str
    keys: dict[str, Any]


# -- catalogues -------------------------------------------------------------------------------------------------------


@functools.cache
def shipped() -> Mapping[str, InstanceType]:
    """The instance types that come with windtunnel, by name, in the order of the file."""
    file = resources.files("windtunnel.spec").joinpath("catalogue.toml")
    return parse_catalogue(file.read_text(encoding="utf-8"), Place(file.name))


def read_catalogue(path: Path, *, quotes: bool = True) -> dict[str, InstanceType]:
    """The instance types of a user's file. Raises InputError with one sentence, which ``quotes`` values of the file or does not."""
    place = Place(str(path), quotes=quotes)
    return parse_catalogue(read_text(path, place), place)


@functools.lru_cache(maxsize=8)  # a sweep reads its catalogue once a point
def parse_catalogue(text: str, place: Place) -> dict[str, InstanceType]:
    """Like `read_catalogue`, from the text."""
    top = Table(parse_toml(text, place), place, ("schema", *_ORIGIN, "types"))
    if top.integer("schema") != SCHEMA:
        top.fail("schema", f"this version reads catalogues of schema {SCHEMA}")
    types = top.raw("types")
    names = Table(types, place.key("types"), types if isinstance(types, dict) else ())
    return {name: _type(name, names, top) for name in types}


def _type(name: str, types: Table, top: Table) -> InstanceType:
    table = types.table(name, (*TYPE_KEYS, *_ORIGIN))
    source, date = (table.text(k, top.text(k, "unknown")) for k in _ORIGIN)
    keys = {k: table.get(k) for k in TYPE_KEYS if k in table}
    return InstanceType(name=name, node=replace(read_node(table), type=name), source=source, date=date, keys=keys)


def with_type(group: Any, own: Mapping[str, InstanceType], place: Place) -> Any:
    """A node group with the figures of its type below its own keys; ``own`` types go before those shipped."""
    if not isinstance(group, dict) or "type" not in group:
        return group
    name = Table(group, place, NODE_KEYS).text("type")
    known = {**shipped(), **own}
    if name not in known:
        hint = closest(name, known) or ";"
        place.key("type").fail(f"there is no instance type of that name{hint} `windtunnel instances` lists those shipped", name)
    keys = known[name].keys
    merged = {**keys, **group}
    for key in ("gpus", "disk"):  # inner keys override one by one
        if isinstance(group.get(key), dict) and key in keys:
            merged[key] = {**keys[key], **group[key]}
    return merged


# -- one node group ---------------------------------------------------------------------------------------------------


def read_node(table: Table) -> NodeSpec:
    """A node group, or a type as a group of one node."""
    memory = table.bytes("memory", least=1)
    limit = table.bytes("memory_limit", least=1) if "memory_limit" in table else None
    if limit is not None and limit > memory:
        table.fail("memory_limit", f"must not be above memory = {memory} bytes")
    return NodeSpec(
        name=table.text("name", "worker"),
        count=table.integer("count", 1, least=1, most=MOST_NODES),
        type=table.text("type") if "type" in table else None,
        cpus=table.integer("cpus", least=1, most=100_000),
        memory_bytes=memory,
        memory_limit_bytes=limit,
        gpus=_device(table),
        disk=_disk(table),
        nic_bytes_per_s=table.rate("nic", 1.25e9),
        price_per_hour_usd=table.number("price_per_hour", 0.0),
        startup_s=table.seconds("startup", 0.0),
        mtbf_s=table.seconds("mtbf", 0.0),
    )


def _device(table: Table) -> DeviceSpec:
    if "gpus" not in table:
        return DeviceSpec()
    inner = table.table("gpus", ("kind", "count", "memory", "pcie", "speed"))
    kind = inner.text("kind", "slot")
    usual = inner.place.key("kind").rule(device_spec, kind) if is_emulated(kind) else DeviceSpec()
    return DeviceSpec(
        kind=kind,
        count=inner.integer("count", most=10_000),
        memory_bytes=inner.bytes("memory", usual.memory_bytes),
        pcie_bytes_per_s=inner.rate("pcie", usual.pcie_bytes_per_s),
        speed=inner.number("speed", 1.0, above=0),
    )


def _disk(table: Table) -> DiskSpec:
    keys = ("read", "write", "capacity", "total", "kind", "drives", "seek", "chunk")
    inner, usual = table.table("disk", keys), DiskSpec()
    kind = inner.choice("kind", ("ssd", "hdd"), "ssd")
    for key in ("drives", "seek", "chunk"):
        if key in inner and kind != "hdd":
            inner.fail(key, 'is of spinning disks; write kind = "hdd"')
    drives = inner.integer("drives", 1, least=1, most=1000)
    rates = (drives * HDD_BYTES_PER_S,) * 2 if kind == "hdd" else (usual.read_bytes_per_s, usual.write_bytes_per_s)
    return DiskSpec(
        read_bytes_per_s=inner.rate("read", rates[0]),
        write_bytes_per_s=inner.rate("write", rates[1]),
        capacity_bytes=inner.bytes("capacity", usual.capacity_bytes),
        total_bytes_per_s=inner.rate("total", usual.total_bytes_per_s),
        kind=kind,
        drives=drives,
        seek_s=inner.seconds("seek", usual.seek_s),
        chunk_bytes=max(inner.bytes("chunk", usual.chunk_bytes), 1),
    )
