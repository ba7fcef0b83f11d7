"""Jobs that cannot be pushed down: a Python kernel cleans records, a shuffle aggregates. Here the JVM bridge shows."""

from __future__ import annotations

from windtunnel.spec.plan import Aggregate, Fields, MapBatches, Measure, Operator, Pipeline
from windtunnel.spec.workload import Format, Workload
from windtunnel.workloads.etl.build import dataset, scan, workload
from windtunnel.workloads.kernels.records import FLIGHTS_SCHEMA, LOGS_SCHEMA

BATCH_ROWS = 32_768  # rows a kernel call, the same for all engines


def flights_udf(
    *, scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet"
) -> Workload:  # fmt: skip
    """Clean flight records in Python, then delays by carrier, month and category."""
    measures = (
        Measure(name="flights", function="count"),
        Measure(name="delay_mean", function="mean", column="delay_min"),
        Measure(name="delay_max", function="max", column="delay_min"),
        Measure(name="distance", function="sum", column="distance"),
        Measure(name="seat_miles", function="sum", column="seat_miles"),
    )
    pipeline = Pipeline(
        (
            scan("flights", "flight day planned departure distance passengers"),
            _kernel("clean", "clean_flights", FLIGHTS_SCHEMA),
            _aggregate("clean", "carrier month category", measures),
        )
    )
    data = dataset("flights", scale=scale, partitions=partitions, seed=seed, format=format)
    text = "clean 5 M flight records a scale unit in Python, then aggregate delays by carrier, month and category"
    return workload("flights_udf", text, pipeline, data)


def logs_udf(
    *, scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet", slow_ms: float = 1000.0
) -> Workload:
    """Parse JSON and legacy log lines in Python, then traffic by service, endpoint and outcome."""
    measures = (
        Measure(name="requests", function="count"),
        Measure(name="ms_mean", function="mean", column="ms"),
        Measure(name="ms_max", function="max", column="ms"),
        Measure(name="bytes", function="sum", column="bytes"),
        Measure(name="slow", function="sum", column="slow"),
    )
    pipeline = Pipeline(
        (
            scan("logs", "line"),
            _kernel("parse", "parse_logs", LOGS_SCHEMA, ("slow_ms", float(slow_ms))),
            _aggregate("parse", "service endpoint outcome", measures),
        )
    )
    data = dataset("logs", scale=scale, partitions=partitions, seed=seed, format=format)
    text = "parse 5 M JSON and legacy log lines a scale unit in Python, then aggregate by service, endpoint and outcome"
    return workload("logs_udf", text, pipeline, data)


def _kernel(name: str, function: str, schema: Fields, *params: tuple[str, float]) -> Operator:
    dotted = f"windtunnel.workloads.kernels.records:{function}"
    kernel = MapBatches(function=dotted, params=params, schema=schema)
    return Operator(name=name, kind="map", kernel=kernel, inputs=("scan",), batch_rows=BATCH_ROWS, language="python")


def _aggregate(source: str, keys: str, measures: tuple[Measure, ...]) -> Operator:
    kernel = Aggregate(keys=tuple(keys.split()), measures=measures)
    return Operator(name="aggregate", kind="aggregate", kernel=kernel, inputs=(source,))
