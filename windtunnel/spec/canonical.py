"""Canonical JSON and digests of specs: equal specs have equal bytes in every process and on every platform."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum


def to_plain(value: object) -> object:
    """Dataclasses, tuples, mappings and enums as JSON types; a dataclass carries its class name under ``"type"``.

    A value that is too large for that says itself what stands for it (``__plain__``).
    """
    if hasattr(value, "__plain__"):
        return to_plain(value.__plain__())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "isoformat"):  # dates in literals
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be written as canonical JSON")


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
