"""Job graphs on disk: JSON, columns of tasks as lists, gzip where the name ends in ``.gz``. Checked when read, as anything from outside."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import document
from windtunnel.spec.jobgraph import COLUMNS, LANGUAGES, MODES, WHOLE, Group, GroupInput, JobGraph, Machine, task_table
from windtunnel.spec.strict import one_line

SCHEMA = 1
KIND = "windtunnel job graph"


class InputForm(Struct, forbid_unknown_fields=True):
    """An input of a group."""

    group: int
    mode: str


class GroupForm(Struct, forbid_unknown_fields=True):
    """A group."""

    name: str
    inputs: list[InputForm] = field(default_factory=list)
    gap_s: float = 0.0
    part: int = 0
    language: str = "unknown"
    cpus: float = 1.0
    gpus: float = 0.0
    submitted_s: float = 0.0
    retry: bool = False


class MachineForm(Struct, forbid_unknown_fields=True):
    """A machine."""

    name: str
    host: int = 0
    slots: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    joined_s: float = 0.0
    left_s: float | None = None
    speed: float = 1.0


class GraphForm(Struct, forbid_unknown_fields=True):
    """A file."""

    schema: int
    kind: str
    name: str
    system: str
    groups: list[GroupForm]
    machines: list[MachineForm]
    tasks: dict[str, list[float | None]]
    end_s: float
    version: str = ""
    before_s: float = 0.0
    edges: list[tuple[int, int]] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)
    inferred: bool = False
    timed: bool = True
    notes: list[str] = field(default_factory=list)


_DECODER: Any = msgspec.json.Decoder(GraphForm)


def is_saved(head: bytes) -> bool:
    """Whether a document that begins so is a saved job graph."""
    return f'"kind": "{KIND}"'.encode() in head or f'"kind":"{KIND}"'.encode() in head


def save_graph(graph: JobGraph, path: Path) -> None:
    """Write a graph; an existing file is replaced at once."""
    data = json.dumps(_plain(graph), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _plain(graph: JobGraph) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "kind": KIND, "name": graph.name, "system": graph.system, "version": graph.version,
        "groups": [{**_fields(g), "inputs": [_fields(i) for i in g.inputs]} for g in graph.groups],
        "machines": [_fields(m) for m in graph.machines],
        "tasks": {name: _numbers(name, graph.tasks) for name in COLUMNS},
        "edges": graph.edges.tolist(), "end_s": graph.end_s, "before_s": graph.before_s, "settings": [list(s) for s in graph.settings],
        "inferred": graph.inferred, "timed": graph.timed, "notes": list(graph.notes),
    }  # fmt: skip


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _numbers(name: str, tasks: Mapping[str, Any]) -> list[float | None]:
    """A column; numbers that the log does not tell are null, whole ones are written so, seconds to the microsecond."""
    values = tasks[name].tolist()
    if name in WHOLE:
        return list(values)
    return [None if math.isnan(v) else (int(v) if v == int(v) else round(v, 6)) for v in values]


def load_graph(path: Path) -> JobGraph:
    """Read a graph. Raises InputError for a missing, broken or impossible file."""
    try:
        form: GraphForm = _DECODER.decode(document(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no saved job graph: {one_line(str(error))}") from error
    if form.kind != KIND or form.schema != SCHEMA:
        raise InputError(f"{path} is not of kind {KIND!r} with schema {SCHEMA}; import the log again")
    if unknown := sorted(form.tasks.keys() - set(COLUMNS)):
        raise InputError(f"{path}: the task table has no column {unknown[0]!r}; known: {', '.join(COLUMNS)}")
    try:
        return _graph(form)
    except (InputError, OverflowError, ValueError) as error:
        raise InputError(f"{path}: {one_line(str(error))}") from error


def _graph(form: GraphForm) -> JobGraph:
    columns: dict[str, Any] = {}
    for name, values in form.tasks.items():
        if name in WHOLE and any(v is None or v != int(v) for v in values):
            raise InputError(f"column {name} of the task table must hold whole numbers")
        columns[name] = [math.nan if v is None else v for v in values]
    if "start_s" not in columns or len({len(c) for c in columns.values()}) != 1:
        raise InputError("the task table needs start_s, and columns of one length")
    groups = tuple(_group(g) for g in form.groups)
    machines = tuple(Machine(**_fields_of(m)) for m in form.machines)
    edges = np.array(form.edges, dtype=np.int64).reshape(-1, 2)
    return JobGraph(
        name=form.name, system=form.system, version=form.version, groups=groups, machines=machines, tasks=task_table(columns),
        edges=edges, end_s=form.end_s, before_s=form.before_s, settings=tuple(form.settings), inferred=form.inferred, timed=form.timed,
        notes=tuple(form.notes),
    )  # fmt: skip


def _group(form: GroupForm) -> Group:
    if form.language not in LANGUAGES:
        raise InputError(f"group {form.name!r}: language {form.language!r} is not one of {', '.join(LANGUAGES)}")
    if wrong := next((i.mode for i in form.inputs if i.mode not in MODES), None):
        raise InputError(f"group {form.name!r}: {wrong!r} is no way to wait; known: {', '.join(MODES)}")
    inputs = tuple(GroupInput(group=i.group, mode=i.mode) for i in form.inputs)  # type: ignore[arg-type]
    return Group(**{**_fields_of(form), "inputs": inputs})


def _fields_of(form: Any) -> dict[str, Any]:
    return {name: getattr(form, name) for name in form.__struct_fields__}
