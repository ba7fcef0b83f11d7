"""Plans, workloads and clusters as JSON and back, for a process that must not be sent pickles. It knows no process.

A dataclass carries its class name under ``"$"``; only the classes of the modules named here are built again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

from windtunnel.spec import clients, cluster, expr, plan, serving, workload

_KIND = "$"
_CLASSES = {
    kind.__name__: kind
    for module in (clients, cluster, expr, plan, serving, workload)
    for kind in vars(module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
}


def encode(value: Any) -> Any:
    """JSON types of a specification."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {_KIND: type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {_KIND: "dict", "items": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, Path):
        return {_KIND: "path", "value": str(value)}
    if isinstance(value, dt.datetime | dt.date):
        return {_KIND: "date", "value": value.isoformat()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} cannot be sent to another process as data")


def decode(value: Any) -> Any:
    """The specification again; sequences are tuples, as all of ours are."""
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind == "dict":
        return {decode(k): decode(v) for k, v in value["items"]}
    if kind == "path":
        return Path(value["value"])
    if kind == "date":
        return dt.date.fromisoformat(value["value"])
    return _CLASSES[kind](**{name: decode(field) for name, field in value.items() if name != _KIND})
