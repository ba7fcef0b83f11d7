"""What Dask writes about its tasks: a task stream (JSON), a performance report (HTML), or a dump of the scheduler (msgpack).

A stream and a report tell when each task ran where; only a dump (and a stream kept by windtunnel) tells, in part, what it waited for.
Keys are reduced to the names of their functions. Pickled types inside a stream are never read.
"""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from windtunnel.errors import InputError
from windtunnel.logs.opening import document
from windtunnel.logs.traced import Traced, traced_graph
from windtunnel.spec.jobgraph import JobGraph, Machine, Status
from windtunnel.spec.strict import one_line

_TOKEN = re.compile(r"[-_]?[0-9a-f]{8,}(-[0-9a-f]{4,})*$")
_KEY_NAME = re.compile(r"""^[(\[]?['"]?([A-Za-z_][A-Za-z0-9_.\-<>]*)""")
_REPORT_JSON = re.compile(rb"<script type=\"application/json\"[^>]*>(.*?)</script>", re.DOTALL)
_VERSION = re.compile(r"Dask\.Distributed Version: ([0-9][0-9A-Za-z.+]{0,30})")
_COLUMNS = ("start", "duration", "key", "name", "worker_thread")
_DEPTH = 60


class Startstop(Struct):
    """A stretch of a task."""

    action: str
    start: float
    stop: float


class StreamTask(Struct):
    """A task of a task stream; ``dependencies`` only where windtunnel kept it."""

    key: str | list[Any]
    startstops: list[Startstop] = field(default_factory=list)
    worker: str = ""
    thread: int = 0
    status: str = "OK"
    nbytes: float | None = None
    dependencies: list[str] | None = None


class Stream(Struct):
    """A task stream kept by windtunnel: the tasks, and the version that ran them."""

    task_stream: list[StreamTask]
    version: str = ""


_LIST: Any = msgspec.json.Decoder(list[StreamTask])
_KEPT: Any = msgspec.json.Decoder(Stream)


def is_stream(head: bytes) -> bool:
    """Whether a document that begins so is a task stream."""
    return b'"startstops"' in head and b'"key"' in head


def is_report(head: bytes) -> bool:
    """Whether a page that begins so is a performance report of Dask."""
    return b"<html" in head[:4096].lower() and (b"Dask Performance Report" in head or b"bokeh" in head.lower())


def key_name(key: object) -> str:
    """The function's name in a key: ``slow`` of ``slow-f0cbd718…``, ``read`` of ``('read-2f…', 3)``."""
    text = key if isinstance(key, str) else str(key[0]) if isinstance(key, Sequence) and key else str(key)
    match = _KEY_NAME.match(text)
    name = match.group(1) if match else "task"
    return _TOKEN.sub("", name) or "task"


def read_stream(path: Path, names: bool = False) -> JobGraph:
    """The job graph of a task stream; ``names``: machines keep the addresses of their workers."""
    data = document(path)
    try:
        stream = _KEPT.decode(data) if data.lstrip()[:1] == b"{" else Stream(task_stream=_LIST.decode(data))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is no task stream of Dask: {one_line(str(error))}") from error
    tasks, notes = _stream_tasks(stream.task_stream)
    return traced_graph(tasks, name=path.name, system="dask", version=stream.version, notes=notes, names=names)


def _stream_tasks(found: Sequence[StreamTask]) -> tuple[list[Traced], list[str]]:
    kept = [t for t in found if any(s.action == "compute" for s in t.startstops)]
    notes = [f"{len(found) - len(kept)} task(s) never computed; they are left out"] if len(kept) < len(found) else []
    number = {str(t.key): i for i, t in enumerate(kept)}
    known = any(t.dependencies is not None for t in kept)
    tasks = []
    for task in kept:
        parents = [number[d] for d in task.dependencies or () if d in number] if known else None
        tasks.append(_traced(key_name(task.key), task.startstops, task, parents))
    return tasks, notes


def _traced(name: str, spans: Sequence[Startstop], task: StreamTask, parents: list[int] | None) -> Traced:
    """A task in its thread: from its first computing to its last. Transfers before that hold no thread, and are not its time."""
    computed = [s for s in spans if s.action == "compute"]
    start = min(s.start for s in computed)
    end = max(start, *(s.stop for s in computed))
    busy = min(sum(max(0.0, s.stop - s.start) for s in computed), end - start)
    split = {"python_s": busy, "wait_s": 0.0, "cpu_s": 0.0, "engine_s": end - start - busy}
    if task.nbytes is not None and task.nbytes >= 0:
        split["bytes_out"] = task.nbytes
    status = Status.OK if task.status == "OK" else Status.FAILED
    return Traced(name, start, end, task.worker, f"{task.worker}-{task.thread}", parents, status=status, split=split)


# -- performance reports ----------------------------------------------------------------------------------------------


def read_report(path: Path, names: bool = False) -> JobGraph:
    """The job graph of a performance report: the task stream in the page that Bokeh made; ``names`` as for a stream."""
    page = document(path)
    for match in _REPORT_JSON.finditer(page):
        try:
            content = msgspec.json.decode(match.group(1))
        except (msgspec.DecodeError, RecursionError):
            continue
        for columns in _sources(content, 0):
            rows = {name: _column(columns[name]) for name in _COLUMNS}
            if len({len(r) for r in rows.values()}) == 1 and rows["start"]:
                version = _VERSION.search(html.unescape(page[: 1 << 22].decode("utf-8", "replace")))
                return traced_graph(
                    _report_tasks(rows), name=path.name, system="dask", version=version.group(1) if version else "", names=names
                )  # fmt: skip
    raise InputError(f"{path} holds no task stream: it is no performance report of Dask, or no task ran while it was made")


def _sources(content: object, depth: int) -> Iterator[Mapping[str, Any]]:
    """Tables inside Bokeh's document that have the columns of a task stream."""
    if depth > _DEPTH:
        return
    if isinstance(content, dict):
        entries = content.get("entries")
        if isinstance(entries, list) and all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in entries):
            table = {e[0]: e[1] for e in entries}
            if set(_COLUMNS) <= table.keys():
                yield table
        if set(_COLUMNS) <= content.keys():
            yield content
        for value in content.values():
            yield from _sources(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _sources(value, depth + 1)


def _column(value: object) -> list[Any]:
    """A column of Bokeh: a list, or numbers packed in base 64."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return []
    array = value.get("array", value)
    data = array.get("data") if isinstance(array, dict) else value.get("__ndarray__")
    kind = {"float64": "d", "float32": "f", "int64": "q", "int32": "i"}.get(str(value.get("dtype")))
    if isinstance(data, list):
        return data
    if not isinstance(data, str) or kind is None:
        return []
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError:
        return []
    size = struct.calcsize(kind)
    return list(struct.unpack(f"<{len(raw) // size}{kind}", raw[: len(raw) // size * size]))


def _report_tasks(rows: Mapping[str, Sequence[Any]]) -> list[Traced]:
    """Tasks of a report's rows; milliseconds. A row of a transfer belongs to the task with its key, in the same thread."""
    found: dict[tuple[str, str], list[Startstop]] = {}
    names: dict[tuple[str, str], str] = {}
    for start, length, key, name, lane in zip(*(rows[c] for c in _COLUMNS), strict=True):
        numbers = isinstance(start, (int, float)) and isinstance(length, (int, float))
        if not numbers or not abs(start) < 1e15 or not 0 <= length < 1e12:
            continue
        action, _, rest = str(name).partition("-")
        moved = action in ("transfer", "disk", "deserialize") and bool(rest)
        place = (str(key), str(lane))
        span = Startstop("transfer" if moved else "compute", start * 1e-3, (start + length) * 1e-3)
        found.setdefault(place, []).append(span)
        names[place] = key_name(key)
    tasks = []
    for place, spans in found.items():
        if any(s.action == "compute" for s in spans):
            worker, _, thread = place[1].rpartition("-")
            task = StreamTask(key=place[0], worker=worker, thread=int(thread) if thread.isdigit() else 0)
            tasks.append(_traced(names[place], sorted(spans, key=lambda s: s.start), task, None))
    return tasks


# -- dumps of the scheduler -------------------------------------------------------------------------------------------


def is_dump(head: bytes) -> bool:
    """Whether a document that begins so is a dump of Dask's scheduler: a map of msgpack with the key ``scheduler``."""
    return bool(head) and head[0] in (*range(0x80, 0x90), 0xDE, 0xDF) and b"\xa9scheduler" in head[:64]


def read_dump(path: Path) -> JobGraph:
    """The job graph of ``Client.dump_cluster_state``: what the workers' logs tell of each task that they ran."""
    try:
        content = msgspec.msgpack.decode(document(path))
        workers = content["workers"]
        if not isinstance(workers, dict):
            raise TypeError("workers is no map")
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no dump of Dask's scheduler: {one_line(str(error))}") from error
    found = _Dump()
    machines = tuple(found.worker(i, str(address), told) for i, (address, told) in enumerate(workers.items()))
    notes = [f"{found.odd} entries of the workers' logs have no known form; they are left aside"] if found.odd else []
    return traced_graph(
        found.tasks(), name=path.name, system="dask", version=_version(content.get("versions")), machines=machines, notes=notes
    )  # fmt: skip


def _version(versions: object) -> str:
    try:
        return str(versions["scheduler"]["packages"]["distributed"])[:30]  # type: ignore[index]
    except (KeyError, TypeError):
        return ""


class _Dump:
    """Tasks by the transitions in their workers' logs (distributed's worker_state_machine.py: ``WorkerState.log``)."""

    def __init__(self) -> None:
        self.odd = 0
        self._ran: dict[str, tuple[float, float, str, bool]] = {}  # task → start, end, machine, ended well
        self._asked: dict[str, str] = {}  # message that asked for a task → the task
        self._needs: dict[str, set[str]] = {}  # task → what that message said it needs

    def worker(self, number: int, address: str, told: object) -> Machine:
        """Take a worker's log; the worker as a machine, without its address."""
        state = told if isinstance(told, dict) else {}
        log, threads, limit = state.get("log"), state.get("nthreads"), state.get("memory_limit")
        begun: dict[str, float] = {}
        for entry in log if isinstance(log, list) else ():
            if not (isinstance(entry, list) and len(entry) >= 4 and isinstance(entry[-1], (int, float))):
                self.odd += 1
            elif entry[1] == "compute-task":
                self._asked[str(entry[3])] = str(entry[0])
            elif entry[1] == "ensure-task-exists" and (task := self._asked.get(str(entry[3]))) is not None:
                self._needs.setdefault(task, set()).add(str(entry[0]))
            elif len(entry) >= 7:
                self._moved(f"node{number}", str(entry[0]), entry[1], entry[3], float(entry[-1]), begun)
        slots = threads if isinstance(threads, int) and 0 < threads < 1 << 16 else 1
        memory = round(limit) if isinstance(limit, (int, float)) and 0 < limit < 1e18 else None
        return Machine(name=f"node{number}", host=number, slots=slots, cpus=float(slots), memory_bytes=memory)

    def _moved(self, machine: str, key: str, before: object, after: object, at: float, begun: dict[str, float]) -> None:
        if after == "executing":
            begun[key] = at
        elif before in ("executing", "long-running") and after != "long-running" and key in begun:
            start = begun.pop(key)
            self._ran[key] = (start, max(start, at), machine, after == "memory")

    def tasks(self) -> list[Traced]:
        """All of them, in the order of their starts."""
        ordered = sorted(self._ran, key=lambda k: self._ran[k][0])
        number = {key: i for i, key in enumerate(ordered)}
        found = []
        for key in ordered:
            start, end, machine, well = self._ran[key]
            parents = sorted(number[p] for p in self._needs.get(key, ()) if p in number and p != key)
            status = Status.OK if well else Status.FAILED
            found.append(Traced(key_name(key), start, end, machine, "", parents, status=status, split={"python_s": end - start}))
        return found
