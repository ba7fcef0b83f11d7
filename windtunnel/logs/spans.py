"""Traces of a pipeline that nobody here knows (OpenTelemetry, Chrome) with a small mapping file that says which spans are tasks.

A mapping is TOML, every key optional::

    include = ["transform*", "load*"]   # names of spans that are tasks; default those that hold no other span
    node = "host.name"                  # attribute that names the machine; default the process (Chrome), service.instance.id (OTel)
    lane = "thread.id"                  # attribute of the thread or process in it; default the thread (Chrome), none (OTel)
    id = "task_id"                      # attribute that names a task for others; default the span's own id
    parents = "depends_on"              # attribute with the ids that a task waited for; default the span's links, else concluded from times
    cpus = "cpu.request"                # CPUs that a task occupies; default 1
    bytes_read = "input.bytes"          # and bytes_out, memory_bytes: attributes with these figures
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from windtunnel.errors import InputError
from windtunnel.logs.opening import Ending, document, lines
from windtunnel.logs.traced import Traced, traced_graph
from windtunnel.spec.jobgraph import JobGraph, Status
from windtunnel.spec.strict import Place, Table, one_line

NANO = 1e-9
MICRO = 1e-6
_FIGURES = ("bytes_read", "bytes_out", "memory_bytes")
_ATTRIBUTES = ("node", "lane", "id", "parents", "cpus", *_FIGURES)
_LONGEST_MAPPING = 1 << 20


@dataclass(frozen=True, slots=True)
class TaskMapping:
    """Which spans are tasks, and which attributes tell what. ``names``: machines keep their names."""

    include: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    names: bool = False


@dataclass(slots=True)
class Span:
    """A span of either format: seconds; ``holder`` is the span around it."""

    name: str
    id: str
    start_s: float
    end_s: float
    node: str
    lane: str
    holder: str = ""
    links: Sequence[str] = ()
    failed: bool = False
    attributes: Mapping[str, object] = field(default_factory=dict)


def read_mapping(path: Path | None, names: bool = False) -> TaskMapping:
    """The mapping of a TOML file; without one, spans that hold no other are tasks."""
    if path is None:
        return TaskMapping(names=names)
    try:
        if path.stat().st_size > _LONGEST_MAPPING:
            raise InputError(f"{path}: a mapping is a small file, this one has more than 1 MiB")
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a mapping: {one_line(str(error))}") from error
    table = Table(plain, Place(path.name), ("include", *_ATTRIBUTES))
    include = table.get("include", [])
    if not isinstance(include, list) or not all(isinstance(i, str) for i in include):
        table.fail("include", "must be a list of names, which may hold *")
    return TaskMapping(tuple(include), {name: table.text(name) for name in _ATTRIBUTES if name in table}, names)


def spans_graph(path: Path, spans: Sequence[Span], mapping: TaskMapping, system: str, notes: Sequence[str]) -> JobGraph:
    """The job graph of those spans that the mapping makes tasks. Raises InputError where it makes none."""
    holders = {s.holder for s in spans}
    chosen = [s for s in spans if _is_task(s, mapping, holders)]
    if not chosen:
        known = ", ".join(sorted({s.name for s in spans})[:12])
        raise InputError(f"{path}: no span is a task by the mapping; names of spans: {known or 'none'}")
    ids = {str(_attribute(s, mapping, "id") or s.id): i for i, s in enumerate(chosen)}
    told = [_parents(s, mapping) for s in chosen]
    known_parents = any(told)
    tasks = [
        Traced(
            s.name[:120], s.start_s, s.end_s, str(_attribute(s, mapping, "node") or s.node), str(_attribute(s, mapping, "lane") or s.lane),
            [ids[p] for p in given if p in ids and ids[p] != i] if known_parents else None, cpus=_cpus(s, mapping),
            status=Status.FAILED if s.failed else Status.OK, split=_figures(s, mapping),
        )
        for i, (s, given) in enumerate(zip(chosen, told, strict=True))
    ]  # fmt: skip
    if left := len(spans) - len(chosen):
        notes = [*notes, f"{left} span(s) are no tasks by the mapping; they are left out"]
    return traced_graph(tasks, name=path.name, system=system, language="unknown", notes=notes, names=mapping.names)


def _is_task(span: Span, mapping: TaskMapping, holders: set[str]) -> bool:
    if mapping.include:
        return any(fnmatch.fnmatchcase(span.name, pattern) for pattern in mapping.include)
    return span.id not in holders


def _attribute(span: Span, mapping: TaskMapping, name: str) -> object:
    key = mapping.attributes.get(name)
    return span.attributes.get(key) if key is not None else None


def _parents(span: Span, mapping: TaskMapping) -> list[str]:
    if "parents" not in mapping.attributes:
        return list(span.links)
    given = _attribute(span, mapping, "parents")
    if isinstance(given, str):
        return [p.strip() for p in given.split(",") if p.strip()]
    return [str(p) for p in given] if isinstance(given, list) else []


def _cpus(span: Span, mapping: TaskMapping) -> float:
    value = number(_attribute(span, mapping, "cpus"))
    return value if value is not None and 0 < value <= 1e6 else 1.0


def _figures(span: Span, mapping: TaskMapping) -> dict[str, float]:
    found = {name: number(_attribute(span, mapping, name)) for name in _FIGURES}
    return {name: value for name, value in found.items() if value is not None and 0 <= value < 1e18}


def number(value: object) -> float | None:
    """A number, or the number in a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


class KeyValue(Struct):
    """An attribute."""

    key: str
    value: dict[str, Any] = msgspec.field(default_factory=dict)


class Link(Struct):
    """A span that this one follows."""

    span: str = msgspec.field(name="spanId", default="")


class OtelStatus(Struct):
    """How a span ended: 2 is an error."""

    code: int | str = 0


class OtelSpan(Struct):
    """A span of OTLP in JSON; times are nanoseconds, as text or number."""

    name: str = ""
    id: str = msgspec.field(name="spanId", default="")
    parent: str = msgspec.field(name="parentSpanId", default="")
    start: str | int = msgspec.field(name="startTimeUnixNano", default=0)
    end: str | int = msgspec.field(name="endTimeUnixNano", default=0)
    attributes: list[KeyValue] = msgspec.field(default_factory=list)
    links: list[Link] = msgspec.field(default_factory=list)
    status: OtelStatus = msgspec.field(default_factory=OtelStatus)


class ScopeSpans(Struct):
    """Spans of a library."""

    spans: list[OtelSpan] = msgspec.field(default_factory=list)


class Resource(Struct):
    """What made them."""

    attributes: list[KeyValue] = msgspec.field(default_factory=list)


class ResourceSpans(Struct):
    """Spans of a process."""

    resource: Resource = msgspec.field(default_factory=Resource)
    scopes: list[ScopeSpans] = msgspec.field(name="scopeSpans", default_factory=list)


class Otlp(Struct):
    """A message of OTLP."""

    resources: list[ResourceSpans] = msgspec.field(name="resourceSpans", default_factory=list)


_OTLP: Any = msgspec.json.Decoder(Otlp)


def is_otel(head: bytes) -> bool:
    """Whether a document that begins so is OTLP in JSON."""
    return b'"resourceSpans"' in head


def read_otel(path: Path, mapping: TaskMapping) -> JobGraph:
    """The job graph of a trace in OTLP's JSON: one document, or one a line."""
    notes: list[str] = []
    spans = [_otel_span(s, names) for message in _messages(path, notes) for s, names in _flat(message)]
    sane = [s for s in spans if s.end_s >= s.start_s > 0]
    if odd := len(spans) - len(sane):
        notes.append(f"{odd} span(s) have no possible time; they are left aside")
    return spans_graph(path, sane, mapping, "otel", notes)


def _messages(path: Path, notes: list[str]) -> Iterator[Otlp]:
    ending = Ending()
    whole: list[bytes] = []
    for count, line in lines(path, ending):
        if not line.strip():
            continue
        try:
            yield _OTLP.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            if count == 1:  # a document over several lines
                whole.append(line)
                break
            notes.append(f"{path.name}, line {count}: it cannot be read: {one_line(str(error))[:160]}; it is left aside")
    if whole:
        try:
            yield _OTLP.decode(document(path))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(f"{path} is no OTLP in JSON: {one_line(str(error))}") from error
    if ending.cut:
        notes.append(f"{path.name}: {ending.cut}; what came before is read")


def _flat(message: Otlp) -> Iterator[tuple[OtelSpan, dict[str, object]]]:
    for resource in message.resources:
        names = _values(resource.resource.attributes)
        for scope in resource.scopes:
            for span in scope.spans:
                yield span, names


def _otel_span(span: OtelSpan, names: Mapping[str, object]) -> Span:
    attributes = {**names, **_values(span.attributes)}
    start, end = (number(t) or 0.0 for t in (span.start, span.end))
    node = str(attributes.get("service.instance.id") or attributes.get("host.name") or "")
    failed = str(span.status.code) in ("2", "STATUS_CODE_ERROR")
    links = [link.span for link in span.links]
    return Span(span.name, span.id, start * NANO, end * NANO, node, "", span.parent, links, failed, attributes)


def _values(attributes: Sequence[KeyValue]) -> dict[str, object]:
    return {a.key: _value(a.value) for a in attributes}


def _value(value: Mapping[str, Any]) -> object:
    if "arrayValue" in value:
        inner = value["arrayValue"]
        items = inner.get("values", []) if isinstance(inner, dict) else []
        return [_value(v) for v in items if isinstance(v, dict)] if isinstance(items, list) else []
    return next((v for k, v in value.items() if k in ("stringValue", "intValue", "doubleValue", "boolValue")), None)


# -- Chrome traces ----------------------------------------------------------------------------------------------------


class ChromeEvent(Struct):
    """An event; microseconds. X is a whole span, B and E its two ends."""

    phase: str = msgspec.field(name="ph", default="")
    name: str = ""
    at: float = msgspec.field(name="ts", default=-1.0)
    length: float = msgspec.field(name="dur", default=0.0)
    process: str | int = msgspec.field(name="pid", default=0)
    thread: str | int = msgspec.field(name="tid", default=0)
    arguments: dict[str, Any] | None = msgspec.field(name="args", default=None)


class ChromeTrace(Struct):
    """A trace as an object."""

    events: list[ChromeEvent] = msgspec.field(name="traceEvents")


_CHROME: Any = msgspec.json.Decoder(ChromeTrace)
_CHROME_LIST: Any = msgspec.json.Decoder(list[ChromeEvent])


def is_chrome(head: bytes) -> bool:
    """Whether a document that begins so is a Chrome trace."""
    return b'"ph"' in head and b'"ts"' in head


def read_chrome(path: Path, mapping: TaskMapping) -> JobGraph:
    """The job graph of a Chrome trace."""
    data = document(path)
    try:
        events = _CHROME_LIST.decode(data) if data.lstrip()[:1] == b"[" else _CHROME.decode(data).events
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no Chrome trace: {one_line(str(error))}") from error
    notes: list[str] = []
    return spans_graph(path, _chrome_spans(events, notes), mapping, "chrome", notes)


def _chrome_spans(events: Sequence[ChromeEvent], notes: list[str]) -> list[Span]:
    open_spans: dict[tuple[str, str], list[Span]] = {}
    spans: list[Span] = []
    ordered = sorted((e for e in events if 0 <= e.at < 1e18 and 0 <= e.length < 1e18), key=lambda e: (e.at, -e.length))
    for i, event in enumerate(ordered):
        place = (str(event.process), str(event.thread))
        stack = open_spans.setdefault(place, [])
        while stack and 0 <= stack[-1].end_s <= event.at * MICRO:
            stack.pop()
        if event.phase == "E" and stack:
            stack.pop().end_s = event.at * MICRO
        elif event.phase in ("X", "B"):
            end = (event.at + event.length) * MICRO if event.phase == "X" else -1.0
            holder = stack[-1].id if stack else ""
            span = Span(event.name, str(i), event.at * MICRO, end, *place, holder, attributes=event.arguments or {})
            spans.append(span)
            stack.append(span)
    whole = [s for s in spans if s.end_s >= s.start_s]
    if cut := len(spans) - len(whole):
        notes.append(f"{cut} span(s) begin and never end; they are left aside")
    return whole
