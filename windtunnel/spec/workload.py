"""A workload: what to compute, on which data, how the answer is judged. Engine-neutral and immutable.

`Workload.bind` makes (or finds) the data and returns a `BoundWorkload` with real paths: what an engine's session receives.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from windtunnel.errors import InputError
from windtunnel.spec.canonical import digest
from windtunnel.spec.clients import ClientsSpec
from windtunnel.spec.jobgraph import JobGraph
from windtunnel.spec.plan import Operator, Pipeline
from windtunnel.spec.serving import ServingSpec

WorkloadKind = Literal["etl", "inference", "serving", "ingest", "data", "recorded"]
Format = Literal["parquet", "csv", "json", "orc", "generated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where declared input lies: made in memory, on local disks, or in a remote store with its limit a node and its latency."""

    kind: Literal["generated", "local", "remote"] = "generated"
    bandwidth_per_node: float | None = None
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Which data. ``generator`` is "module:function", called as ``f(spec, folder) -> tuple[TableData, ...]`` and idempotent."""

    name: str
    generator: str
    scale: float = 1.0
    seed: int = 7
    format: Format = "parquet"
    partitions: int = 4  # files a large table is cut into
    skew: float = 0.0  # Zipf exponent where the generator knows one
    rows: int | None = None
    row_bytes: int | None = None
    location: Location = Location()

    def digest(self) -> str:
        """Hash of the canonical JSON."""
        return digest(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """A table on disk: its files in order, format, total rows and bytes on disk, and columns with Arrow type names.

    ``arrow`` files are what one engine left in memory for another. ``generated`` tables have no files: ``partition_rows`` says how many
    rows each partition makes.
    """

    name: str
    format: Format | Literal["arrow"]
    paths: tuple[str, ...]
    rows: int
    bytes: int
    schema: tuple[tuple[str, str], ...]
    partition_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """How an output is judged: ``check`` is "module:function", called as ``f(bound, table)``; it raises WrongResult.

    ``ordered``: row order counts. Floats compare with ``rtol`` (sums in another order differ in the last bits).
    """

    check: str
    ordered: bool = False
    rtol: float = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a run is for: latency bound (s), deadline (s), budget (USD); None = not asked."""

    p99_s: float | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One definition for all engines and both worlds. ``description`` is one sentence for people.

    A ``serving`` workload has its work there; its pipeline is only the source of requests. A ``data`` workload has it in ``clients``; its
    pipeline names the table that they begin with. A ``recorded`` workload runs the tasks of its ``graph``, and an operator stands for a
    group of them. The last operator of an ``ingest`` workload is a training loop, which all others feed. ``status_column`` of the
    output says "ok", or why a row could not be processed: those are the dead letters, counted in the record.
    """

    name: str
    kind: WorkloadKind
    pipeline: Pipeline
    dataset: DatasetSpec
    oracle: Oracle | None = None
    objective: Objective | None = None
    description: str = ""
    serving: ServingSpec | None = None
    clients: ClientsSpec | None = None
    status_column: str | None = None
    graph: JobGraph | None = None

    @property
    def trainer(self) -> Operator | None:
        """The training loop that the other operators feed."""
        return self.pipeline.output if self.kind == "ingest" else None

    def scaled(self, factor: float) -> Workload:
        """The same workload on ``factor`` times the data."""
        if not factor > 0:
            raise InputError(f"a scale factor must be above 0, not {factor}")
        rows = None if self.dataset.rows is None else max(1, round(self.dataset.rows * factor))
        return replace(self, dataset=replace(self.dataset, scale=self.dataset.scale * factor, rows=rows))

    def digest(self) -> str:
        """Hash of name, pipeline and data set, and of what serves, what clients do, or what was recorded."""
        more = tuple(part for part in (self.serving, self.clients, self.graph) if part is not None)
        return digest((self.name, self.pipeline.operators, self.dataset, *more))

    def bind(self, data_root: Path) -> BoundWorkload:
        """Make the data below ``data_root`` if absent (outside any timing) and give their paths."""
        folder = data_root / f"{self.dataset.name}-{self.dataset.digest()}"
        tables = resolve(self.dataset.generator)(self.dataset, folder)
        return BoundWorkload(workload=self, tables=tables, folder=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundWorkload:
    """A workload whose tables exist. ``folder`` holds them (and whatever the oracle caches)."""

    workload: Workload
    tables: tuple[TableData, ...]
    folder: Path

    @property
    def pipeline(self) -> Pipeline:
        """The workload's pipeline."""
        return self.workload.pipeline

    def table(self, name: str) -> TableData:
        """The table of that name."""
        for table in self.tables:
            if table.name == name:
                return table
        raise InputError(f"no table {name!r} in {self.workload.dataset.name}; known: {', '.join(t.name for t in self.tables)}")

    def verify(self, output: Any) -> None:
        """Raise WrongResult when ``output`` (a `pyarrow.Table`) fails the oracle; workloads without one accept all."""
        if self.workload.oracle is not None:
            resolve(self.workload.oracle.check)(self, output)


def resolve(dotted: str) -> Callable[..., Any]:
    """Import "module:name"."""
    module, _, name = dotted.partition(":")
    try:
        target: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{dotted!r} cannot be imported: {error}") from error
    return target
