"""The one record of a run, wall or virtual: raw spans and samples plus what ran, where, and how it ended.

Times are seconds since the start of the run (float64). The module owns the schema and its version; it computes no metric.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from windtunnel.records.columns import column

SCHEMA_VERSION = 1

SpanKind = Literal[
    "session", "queue", "launch", "fetch", "deserialize", "compute", "serialize", "emit", "spill", "barrier", "blocked",
    "load", "request", "query", "fault", "step",
]  # fmt: skip
Status = Literal["ok", "out_of_memory", "failed", "timeout", "unsupported", "wrong_result", "invalid"]

SPAN_SCHEMA = pa.schema(
    [
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("operator", pa.dictionary(pa.int32(), pa.string())),
        ("partition", pa.int32()),
        ("worker", pa.int32()),
        ("attempt", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
SAMPLE_SCHEMA = pa.schema([("name", pa.dictionary(pa.int32(), pa.string())), ("time_s", pa.float64()), ("value", pa.float64())])


@dataclass(slots=True)
class Span:
    """One interval of a run. ``worker`` -1 is the driver; ``partition`` -1 means all."""

    kind: SpanKind
    operator: str
    partition: int
    worker: int
    attempt: int
    start_s: float
    end_s: float
    rows: int = 0
    bytes: int = 0


class Recorder:
    """Collects raw spans, samples and counters of one run; appending is all that happens while time is measured.

    ``spans`` holds tuples in the order of `Span`'s fields. ``max_spans``: above it spans are dropped and counted in the
    counter ``spans_dropped``.
    """

    __slots__ = ("counters", "max_spans", "samples", "spans")

    def __init__(self, max_spans: int = 2_000_000) -> None:
        self.spans: list[tuple[str, str, int, int, int, float, float, int, int]] = []
        self.samples: list[tuple[str, float, float]] = []
        self.counters: dict[str, float] = {}
        self.max_spans = max_spans

    def span(
        self,
        kind: SpanKind,
        operator: str,
        start_s: float,
        end_s: float,
        *,
        partition: int = -1,
        worker: int = -1,
        attempt: int = 0,
        rows: int = 0,
        bytes: int = 0,
    ) -> None:
        """Append a span."""
        if len(self.spans) < self.max_spans:
            self.spans.append((kind, operator, partition, worker, attempt, start_s, end_s, rows, bytes))
        else:
            self.count("spans_dropped")

    def sample(self, name: str, time_s: float, value: float) -> None:
        """Append a sample, e.g. ``memory_bytes``, ``store_bytes``, ``cpu_cores``, ``queue_bytes:infer``."""
        self.samples.append((name, time_s, value))

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter, e.g. ``tasks``, ``retries``, ``spilled_bytes``, ``bytes_shm``, ``loads``, ``workers_lost``."""
        self.counters[name] = self.counters.get(name, 0) + by

    def span_table(self) -> pa.Table:
        """The spans with `SPAN_SCHEMA`."""
        return _table(self.spans, SPAN_SCHEMA)

    def sample_table(self) -> pa.Table:
        """The samples with `SAMPLE_SCHEMA`."""
        return _table(self.samples, SAMPLE_SCHEMA)


def _table(rows: list[Any], schema: pa.Schema) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [column(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What ran and how it ended; `spans` and `samples` are the raw tables.

    ``makespan_s`` is the measured duration of the run call; None unless ``status`` is ok. ``repetition`` counts from 0; -1, -2, …
    are warm-ups (stored with ``warmup`` true and left out of every statistic). ``label`` tells apart two configurations of an engine
    (and the A/A arm). ``cell`` identifies the experiment's cell, ``workload_spec`` and ``cluster_spec`` are canonical JSON objects;
    ``environment`` says where it ran. ``scenario`` is the document of the scenario of which the run is a point, as its file says it;
    None: a workload of the catalogue.
    """

    schema: int = SCHEMA_VERSION
    run_id: str
    cell: str
    experiment: str
    workload: str
    workload_digest: str
    workload_spec: dict[str, Any]
    scale: float
    engine: str
    engine_version: str
    label: str
    options: dict[str, Any]
    cluster: str
    cluster_spec: dict[str, Any]
    clock: Literal["wall", "virtual"]
    seed: int
    repetition: int
    warmup: bool
    status: Status
    reason: str | None
    makespan_s: float | None
    open_s: float | None
    prepare_s: float | None
    rows_out: int | None
    peak_memory_bytes: int | None
    verified: bool
    environment: dict[str, Any]
    counters: dict[str, float]
    sweep: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] | None = None
    spans: pa.Table = field(repr=False, compare=False, default_factory=lambda: _table([], SPAN_SCHEMA))
    samples: pa.Table = field(repr=False, compare=False, default_factory=lambda: _table([], SAMPLE_SCHEMA))
