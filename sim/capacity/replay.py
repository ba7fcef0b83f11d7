"""A plan as scenario files: the plan itself, the smaller one whose simulation it rests on, and one small enough to run here."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from windtunnel.registry import ENGINES
from windtunnel.running.environment import usable_cpus
from windtunnel.sim.capacity.question import Question, candidate_document, resized

HERE_S = 20.0  # of work on this machine


def write_plan(question: Question, result: Mapping[str, Any], output: Path) -> list[tuple[Path, str]]:
    """Write ``output`` and files beside it; returns each with what it is."""
    chosen = result["recommended"]
    document = result.get("document") or candidate_document(question, question.candidates[chosen["number"]])
    document = _objective(document, question)
    written = [(output, "the plan; `windtunnel simulate` runs it")]
    _write(output, document, question.file)
    if result["kind"] == "job" and chosen["simulated_partitions"] < chosen["partitions"]:
        beside = output.with_name(f"{output.stem}-part.toml")
        _write(beside, resized(document, chosen["simulated_partitions"]), question.file)
        written.append((beside, f"the part of it that was simulated ({chosen['simulated_s']:.6g} s)"))
    if result["kind"] == "job" and "operators" in document:
        small = output.with_name(f"{output.stem}-here.toml")
        _write(small, here(document), question.file)
        written.append((small, "scaled down to this machine; `windtunnel run` and `windtunnel simulate` run it"))
    return written


def _objective(document: dict[str, Any], question: Question) -> dict[str, Any]:
    asked = {
        "deadline": question.objective.deadline_s, "budget_usd": question.objective.budget_usd, "p99": question.objective.p99_s
    }  # fmt: skip
    kept = {k: v for k, v in asked.items() if v is not None}
    return {**document, **({"objective": kept} if kept else {})}


def here(document: dict[str, Any]) -> dict[str, Any]:
    """The same operators on this machine: as many equal partitions as its CPUs work through in `HERE_S` seconds, costs as declared.

    Devices become slots, data are made in memory, and engines that run nowhere but in the simulator become ``streaming``.
    """
    small = copy.deepcopy(document)
    cpus = usable_cpus()
    devices = max((math.ceil(op.get("resources", {}).get("gpus", 0)) for op in small["operators"]), default=0)
    node: dict[str, Any] = {"name": "here", "cpus": cpus, "memory": psutil.virtual_memory().total // 2}
    if devices:
        node["gpus"] = {"kind": "slot", "count": devices}
    small["cluster"] = {"nodes": [node]}
    small["name"] = f"{small['name']}, scaled down"
    for op in small["operators"]:
        resources = op.get("resources", {})
        if resources.get("cpus", 1) > cpus:
            op["resources"] = {**resources, "cpus": cpus}
        if "concurrency" in op:
            op["concurrency"] = 1
    for engine in small["engines"]:
        if engine["name"] not in ENGINES:
            engine["name"] = "streaming"
            engine.pop("options", None)
    data = small["dataset"]
    for key in ("location", "remote"):
        data.pop(key, None)
    a_row = _seconds_a_row(document)
    rows = max(1, round(HERE_S * cpus / a_row)) if a_row > 0 else data["rows"]
    each = max(1, data["rows"] // data.get("partitions", 1))
    data["partitions"] = max(1, min(data.get("partitions", 1), max(2 * cpus, rows // each)))
    data["rows"] = min(data["rows"], max(data["partitions"], rows))
    return small


def _seconds_a_row(document: dict[str, Any]) -> float:
    """CPU seconds that a row of input costs through all operators in a chain, calls shared by their batches."""
    from windtunnel.scenario.reading import from_document

    scenario = from_document(document)
    rows, total = 1.0, 0.0
    for op in scenario.workload.pipeline.operators[1:]:
        kernel: Any = op.kernel
        total += rows * (kernel.cost.per_row_s + kernel.cost.per_batch_s / max(1, op.batch_rows or 1))
        rows *= kernel.rows_out
    return total


# -- TOML ---------------------------------------------------------------------------------------------------------------


def _write(path: Path, document: dict[str, Any], file: str) -> None:
    """Paths inside are relative to the new file."""
    moved = copy.deepcopy(document)
    for table, key in ((moved.get("cluster", {}), "catalogue"), (moved.get("arrivals", {}), "file")):
        if key in table:
            table[key] = os.path.relpath(Path(file).parent / table[key], path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# Made by `windtunnel plan`.\n" + toml(moved), encoding="utf-8")


def toml(document: Mapping[str, Any]) -> str:
    """A parsed scenario as TOML again: plain keys first, then tables, lists of tables as such, all else inline."""
    plain = {k: v for k, v in document.items() if not isinstance(v, dict) and not _tables(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for name, value in document.items():
        if isinstance(value, dict):
            inner = {k: v for k, v in value.items() if not _tables(v)}
            lines += ["", f"[{_key(name)}]", *(f"{_key(k)} = {_value(v)}" for k, v in inner.items())]
            for key, group in value.items():
                if _tables(group):
                    lines += _list(f"{_key(name)}.{_key(key)}", group)
        elif _tables(value):
            lines += _list(_key(name), value)
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _list(name: str, tables: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        lines += ["", f"[[{name}]]", *(f"{_key(k)} = {_value(v)}" for k, v in table.items())]
    return lines


def _key(name: str) -> str:
    return name if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
