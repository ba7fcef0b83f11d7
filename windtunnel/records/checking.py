"""Records are checked here, once, where they are read: bytes → the JSON object of a run that `schema` declares, or one sentence.

What the types cannot say is said by `_RULES`: how status, clock and numbers go together. Nothing is imported, resolved or
executed that a record names.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from windtunnel.errors import BadRecord
from windtunnel.records import schema
from windtunnel.spec.strict import one_line, shorten

#: no JSON of a run is larger, and none nests deeper
MOST_BYTES, MOST_DEPTH = 64 * 2**20, 60

_typed = msgspec.json.Decoder(schema.Run)
_plain = msgspec.json.Decoder()


def open_file(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """A regular file, open; pipes and devices, which might never end, are refused. Raises OSError, and ValueError with a sentence."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    regular = stat.S_ISREG(status.st_mode)
    if regular and (most_bytes is None or status.st_size <= most_bytes):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError(f"it is larger than {most_bytes} bytes" if regular else "it is no regular file")


def read_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError, and ValueError with a sentence."""
    with open_file(path, most_bytes) as file:
        return file.read()


def json_object(data: bytes) -> dict[str, Any]:
    """Any JSON object with finite numbers. Raises ValueError with a sentence."""
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no JSON object: {_no_number(data) or error}") from error
    except RecursionError as error:
        raise ValueError(f"it nests deeper than {MOST_DEPTH} levels") from error
    if (told := _overgrown(found, data)) is not None:
        raise ValueError(told)
    return found


def run_object(data: bytes, path: Path) -> dict[str, Any]:
    """The checked JSON object of the run in ``path``. Raises BadRecord, with the file, the value and the rule."""
    try:
        typed = _typed.decode(data)
        document: dict[str, Any] = _plain.decode(data)
    except msgspec.ValidationError as error:
        _refuse(path, _said(str(error), data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(path, f"it is not JSON: {_no_number(data) or error}")
    except RecursionError:
        _refuse(path, f"it nests deeper than {MOST_DEPTH} levels")
    if typed.run_id != path.stem:
        _refuse(path, f"its run_id is {shorten(typed.run_id)}, which is not the name of the file")
    for told in broken_rules(typed):
        _refuse(path, told)
    if (grown := _overgrown(document, data)) is not None:
        _refuse(path, grown)
    return {"sweep": {}, "scenario": None, **document}


def _refuse(path: Path, why: str) -> NoReturn:
    raise BadRecord(one_line(f"{path} is no run record: {why}"))


# -- how fields go together ---------------------------------------------------------------------------------------------


def broken_rules(run: schema.Run) -> Iterable[str]:
    """What is wrong with a run whose types are right, a sentence each."""
    return (told for wrong, told in _RULES if wrong(run))


def _requests(counters: Mapping[str, float]) -> bool:
    sent = counters.get("requests_sent")
    return sent is not None and sent != sum(counters.get(f"requests_{n}", 0) for n in ("ok", "rejected", "timed_out", "failed"))


def _falls(counters: Mapping[str, float]) -> bool:
    for names in schema.RISING:
        values = [counters[n] for n in names if n in counters]
        if any(a > b for a, b in zip(values, values[1:], strict=False)):
            return True
    return False


_RULES: tuple[tuple[Callable[[schema.Run], bool], str], ...] = (
    (lambda r: r.status == "ok" and r.makespan_s is None, "its status is ok, and its makespan_s is null"),
    (lambda r: r.status == "ok" and r.reason is not None, "its status is ok, and it has a reason for a failure"),
    (lambda r: r.status != "ok" and r.makespan_s is not None, "its status is not ok, and it has a makespan_s; failures have no numbers"),
    (lambda r: r.status != "ok" and r.reason is None, "its status is not ok, and it has no reason"),
    (lambda r: r.status != "ok" and r.verified, "its status is not ok, and its output is verified"),
    (lambda r: r.engine.startswith("sim:") != (r.clock == "virtual"), "its engine and its clock are of different worlds"),
    (lambda r: r.clock == "virtual" and r.verified, "it was simulated, and its output is verified"),
    (lambda r: r.clock == "virtual" and (r.open_s or r.prepare_s) is not None, "it was simulated, and it has times of a real start"),
    (lambda r: r.warmup != (r.repetition < 0), "its repetition and warmup say different things; warm-ups are -1, -2, …"),
    (lambda r: any(v % 1 for n, v in r.counters.items() if n in schema.WHOLE), "a counter of things is not whole"),
    (lambda r: r.status == "ok" and _requests(r.counters), "its requests_sent are not the sum of those that ended one way or other"),
    (lambda r: any(isinstance(v, str) and not re.match(schema.LINE, v) for v in r.sweep.values()), "its sweep has control characters"),
    (lambda r: _falls(r.counters), "a higher percentile of its latencies, or the upper end of its interval, is below the lower one"),
)  # fmt: skip


# -- telling what is wrong ----------------------------------------------------------------------------------------------

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_CONSTANT = re.compile(rb'"([^"\\]{1,80})"\s*:\s*(-?(?:NaN|Infinity)|-?[0-9.eE+]{0,30}[eE]\+?[0-9]{3,})')

_HELD = re.compile(rb"[\[,:\s](-?(?:NaN|Infinity))\s*[\],}]")


def _no_number(data: bytes) -> str | None:
    """NaN and infinities, which Python writes and JSON does not have."""
    if (found := _CONSTANT.search(data)) is not None:
        return f"{found[1].decode(errors='replace')} is {found[2].decode()}, which is no finite number"
    held = _HELD.search(data)
    return None if held is None else f"it holds {held[1].decode()}, which is no finite number"


def _said(error: str, data: bytes) -> str:
    """The decoder's sentence with the value that broke the rule."""
    match = _AT.match(error)
    assert match is not None
    rule, path = match["what"].replace("`", ""), match["path"]
    if path is None:
        return rule[:1].lower() + rule[1:]
    try:
        place, value = _find(json.loads(data), path, rule)
    except (LookupError, TypeError, ValueError, RecursionError):
        return f"{path}: {rule[:1].lower()}{rule[1:]}"
    if place == "schema":
        return f"it is of record schema {shorten(value)}; this version reads schema 1"
    return f"{place} is {shorten(value)}; {rule[:1].lower()}{rule[1:]}"


def _find(document: Any, path: str, rule: str) -> tuple[str, Any]:
    """The value at a path of the decoder; it calls keys of open objects "[...]", so the first value that no number may have is told."""
    value, place = document, ""
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        if step == "[...]":
            name, value = next((k, v) for k, v in value.items() if _is_wrong(v, rule))
            place = f"{place}.{name}" if place else name
        elif step.startswith("["):
            value, place = value[int(step[1:-1])], f"{place}{step}"
        else:
            value, place = value[step], f"{place}.{step}" if place else step
    return place, value


def _is_wrong(value: Any, rule: str) -> bool:
    """Whether a value of an open object breaks the rule that the decoder names."""
    if rule.startswith("Expected str"):
        return not isinstance(value, str) or not re.match(schema.LINE, value)
    return isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= schema.MOST


# -- what decoders let pass ---------------------------------------------------------------------------------------------

_SPACE = b" \t\r\n"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _overgrown(document: dict[str, Any], data: bytes) -> str | None:
    """Nesting that functions of ours could not follow, and keys that occur twice, of which decoders keep the last.

    Nearly every record is cleared by counting its brackets and the colons after its keys; the rest is walked.
    """
    if not _shallow(data) and _deeper_than(document, MOST_DEPTH):
        return f"it nests deeper than {MOST_DEPTH} levels"
    if data.translate(None, _SPACE).count(b'":') != msgspec.json.encode(document).translate(None, _SPACE).count(b'":'):
        return _twice(data)
    return None


def _shallow(data: bytes) -> bool:
    """Whether its brackets, those in texts too, vanish by taking pairs away `MOST_DEPTH` times."""
    brackets = data.translate(None, _NO_BRACKETS)
    for _ in range(MOST_DEPTH):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets


def _deeper_than(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [inner for v in level if isinstance(v, (dict, list)) for inner in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return True


def _twice(data: bytes) -> str | None:
    names: list[str] = []

    def each(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            (names.append if name in seen else seen.add)(name)

    json.loads(data, object_pairs_hook=each)
    return f"its key {shorten(names[0])} occurs twice" if names else None
