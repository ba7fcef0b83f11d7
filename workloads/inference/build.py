"""The shapes that inference workloads are built of: a scan, kernels in Python, models that ask for devices, a sink, and a judge."""

from __future__ import annotations

from windtunnel.spec.plan import Fields, Kind, MapBatches, Operator, Pipeline, Resources, Scan, Sink, State
from windtunnel.spec.workload import DatasetSpec, Format, Oracle, Workload

ROOM = "windtunnel.workloads.inference"


def scan(table: str, *columns: str) -> Operator:
    """Read a table."""
    return Operator(name="scan", kind="scan", kernel=Scan(table=table, columns=columns))


def mapped(name: str, function: str, schema: Fields, source: str, rows: int, kind: Kind = "map") -> Operator:
    """A stateless kernel, ``function`` of this room, on ``rows`` rows a call."""
    kernel = MapBatches(function=f"{ROOM}.{function}", schema=schema)
    return Operator(name=name, kind=kind, kernel=kernel, inputs=(source,), batch_rows=rows, language="python")


def model(name: str, function: str, schema: Fields, source: str, rows: int, gpus: float = 0.0, gmacs: float = 0.0) -> Operator:
    """A model that is loaded once a worker, on the CPU or on ``gpus`` devices, where it is one of ``gmacs`` · 1e9 multiply-adds a row."""
    kernel = MapBatches(function=f"{ROOM}.{function}", schema=schema, params=(("gmacs", gmacs),) if gpus else ())
    return Operator(
        name=name, kind="map", kernel=kernel, inputs=(source,), batch_rows=rows, state=State(kind="actor"), language="python",
        resources=Resources(cpus=0, gpus=gpus) if gpus else Resources(),
    )  # fmt: skip


def sink(source: str) -> Operator:
    """Parquet files."""
    return Operator(name="write", kind="sink", kernel=Sink(), inputs=(source,))


def dataset(
    name: str, generator: str, rows_at_scale_1: int, scale: float, partitions: int, seed: int, format: Format
) -> DatasetSpec:
    """``generator`` is a function of this room."""
    return DatasetSpec(
        name=name, generator=f"{ROOM}.{generator}", scale=scale, seed=seed, format=format, partitions=partitions,
        rows=max(1, round(scale * rows_at_scale_1)),
    )  # fmt: skip


def workload(
    name: str, operators: tuple[Operator, ...], data: DatasetSpec, check: str, rtol: float, description: str
) -> Workload:
    """Rows that cannot be processed say why in the column ``status``; ``check`` is a function of this room."""
    return Workload(
        name=name, kind="inference", pipeline=Pipeline(operators), dataset=data, oracle=Oracle(check=f"{ROOM}.{check}", rtol=rtol),
        status_column="status", description=description,
    )  # fmt: skip
