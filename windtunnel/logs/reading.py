"""Which log is it? The door to all readers: files in, job graphs (or records of a service) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError
from windtunnel.logs import dask, flink, ray, requests, saved, spans, spark, wfformat
from windtunnel.logs.opening import head_of
from windtunnel.logs.requests import ServiceLog
from windtunnel.logs.spark_graph import spark_graph
from windtunnel.spec.jobgraph import JobGraph

Log = JobGraph | ServiceLog


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of log: what it is called, how it is recognised by its first bytes, and how it is read."""

    name: str
    fits: Callable[[bytes], bool]
    read: Callable[[Path, spans.TaskMapping], Log]


def _spark(path: Path, asked: spans.TaskMapping) -> JobGraph:
    try:
        return spark_graph(spark.read_spark(path, asked.names), path.name)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _named(read: Callable[[Path, bool], Log]) -> Callable[[Path, spans.TaskMapping], Log]:
    return lambda path, asked: read(path, asked.names)


def _plain(read: Callable[[Path], Log]) -> Callable[[Path, spans.TaskMapping], Log]:
    return lambda path, _: read(path)


#: in the order in which they are tried: the first that fits is taken
FORMATS = (
    Format("saved job graph", saved.is_saved, _plain(saved.load_graph)),
    Format("Spark event log", spark.is_spark, _spark),
    Format("Dask dump of the scheduler", dask.is_dump, _plain(dask.read_dump)),
    Format("Dask performance report", dask.is_report, _named(dask.read_report)),
    Format("Dask task stream", dask.is_stream, _named(dask.read_stream)),
    Format("WfFormat execution", wfformat.is_wfformat, _plain(wfformat.read_wfformat)),
    Format("Flink job", flink.is_job, _plain(flink.read_flink)),
    Format("vLLM request records", requests.is_vllm, _plain(requests.read_vllm)),
    Format("guidellm report", requests.is_guidellm, _plain(requests.read_guidellm)),
    Format("OpenTelemetry trace", spans.is_otel, spans.read_otel),
    Format("Ray timeline", ray.is_timeline, _named(ray.read_timeline)),
    Format("Chrome trace", spans.is_chrome, spans.read_chrome),
    Format("Ray Data statistics", ray.is_stats, _plain(ray.read_stats)),
)


def format_of(path: Path) -> Format:
    """The format of a file or folder. Raises InputError where none fits, and names those that are known."""
    if path.is_dir():
        if spark.is_rolling(path):
            return FORMATS[1]
        raise InputError(f"{path} is a folder without parts of a rolling Spark event log (events_1_…); name its files")
    head = head_of(path)
    for kind in FORMATS:
        if kind.fits(head):
            return kind
    if not head.strip():
        raise InputError(f"{path} is empty, or breaks off before anything could be read")
    raise InputError(f"{path} is no log that is known here; known: {', '.join(f.name for f in FORMATS)}")


def read_log(path: Path, mapping: Path | None = None, names: bool = False) -> Log:
    """The log in a file or folder. Raises InputError, a sentence, for anything that is not one or cannot be gone on with."""
    return format_of(path).read(path, spans.read_mapping(mapping, names))


def read_logs(paths: Sequence[Path], mapping: Path | None = None, names: bool = False) -> list[Log]:
    """Logs of several files; vertices of a Flink job, given beside it, belong to it. ``names``: of hosts and call sites are kept."""
    asked = spans.read_mapping(mapping, names)
    beside = [p for p in paths if p.is_file() and flink.is_vertex(head_of(p))]
    found: list[Log] = []
    for path in paths:
        if path in beside:
            continue
        kind = format_of(path)
        found.append(flink.read_flink(path, beside) if kind.name == "Flink job" else kind.read(path, asked))
    if not found and beside:
        raise InputError(f"{beside[0]} is a vertex of a Flink job; name the job (/jobs/ID) beside it")
    return found


def read_graph(path: Path, mapping: Path | None = None) -> JobGraph:
    """A log that must hold a job. Raises InputError for records of a service."""
    log: Any = read_log(path, mapping)
    if not isinstance(log, JobGraph):
        raise InputError(f"{path} holds requests to a service, not a job; `windtunnel import {path}` makes a scenario of it")
    return log
