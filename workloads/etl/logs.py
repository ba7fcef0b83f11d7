"""Jobs that cannot be pushed down: a Python kernel cleans records, then a shuffle aggregates. Here the JVM bridge shows."""

from __future__ import annotations

from windtunnel.plan import Aggregate, Fields, MapBatches, Measure, Operator, Pipeline, Scan
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload
from windtunnel.workloads.kernels.records import FLIGHTS_SCHEMA, LOGS_SCHEMA

ROWS_AT_SCALE_1 = 5_000_000
BATCH_ROWS = 32_768  # rows a kernel call, the same for all engines
_KERNELS = "windtunnel.workloads.kernels.records"


def flights_udf(scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet") -> Workload:
    """Clean flight records in Python, then delays by carrier, month and category."""
    pipeline = Pipeline(
        (
            _scan("flights", ("flight", "day", "planned", "departure", "distance", "passengers")),
            _kernel("clean", "clean_flights", FLIGHTS_SCHEMA),
            _aggregate(
                ("carrier", "month", "category"),
                Measure(name="flights", function="count"),
                Measure(name="delay_mean", function="mean", column="delay_min"),
                Measure(name="delay_max", function="max", column="delay_min"),
                Measure(name="distance", function="sum", column="distance"),
                Measure(name="seat_miles", function="sum", column="seat_miles"),
            ),
        )
    )
    description = "clean 5 M flight records a scale unit in Python, then aggregate delays by carrier, month and category"
    return _workload("flights_udf", pipeline, _dataset("flights", scale, partitions, seed, format), description)


def logs_udf(
    scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet", slow_ms: float = 1000.0
) -> Workload:
    """Parse JSON and legacy log lines in Python, then traffic by service, endpoint and outcome."""
    pipeline = Pipeline(
        (
            _scan("logs", ("line",)),
            _kernel("parse", "parse_logs", LOGS_SCHEMA, slow_ms=slow_ms),
            _aggregate(
                ("service", "endpoint", "outcome"),
                Measure(name="requests", function="count"),
                Measure(name="ms_mean", function="mean", column="ms"),
                Measure(name="ms_max", function="max", column="ms"),
                Measure(name="bytes", function="sum", column="bytes"),
                Measure(name="slow", function="sum", column="slow"),
            ),
        )
    )
    description = "parse 5 M JSON and legacy log lines a scale unit in Python, then aggregate by service, endpoint and outcome"
    return _workload("logs_udf", pipeline, _dataset("logs", scale, partitions, seed, format), description)


def _scan(table: str, columns: tuple[str, ...]) -> Operator:
    return Operator(name="scan", kind="scan", kernel=Scan(table=table, columns=columns))


def _kernel(name: str, function: str, schema: Fields, **params: float) -> Operator:
    kernel = MapBatches(function=f"{_KERNELS}:{function}", params=tuple(sorted(params.items())), schema=schema)
    return Operator(name=name, kind="map", kernel=kernel, inputs=("scan",), batch_rows=BATCH_ROWS, language="python")


def _aggregate(keys: tuple[str, ...], *measures: Measure) -> Operator:
    inner = "clean" if keys[0] == "carrier" else "parse"
    return Operator(name="aggregate", kind="aggregate", kernel=Aggregate(keys=keys, measures=measures), inputs=(inner,))


def _dataset(name: str, scale: float, partitions: int, seed: int, format: Format) -> DatasetSpec:
    return DatasetSpec(
        name=name, generator=f"windtunnel.workloads.datasets:{name}", scale=scale, seed=seed, format=format,
        partitions=partitions, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
    )  # fmt: skip


def _workload(name: str, pipeline: Pipeline, dataset: DatasetSpec, description: str) -> Workload:
    oracle = Oracle(check="windtunnel.workloads.oracles:check_sql")
    return Workload(name=name, kind="etl", pipeline=pipeline, dataset=dataset, oracle=oracle, description=description)
