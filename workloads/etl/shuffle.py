"""Jobs dominated by moving rows: a group-by with hot keys, a global sort, sessions with keyed state."""

from __future__ import annotations

from windtunnel.plan import Aggregate, GroupMap, Measure, Operator, Pipeline, Scan, Sink, Sort, SortKey
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload
from windtunnel.workloads.kernels.sessions import SCHEMA

ROWS_AT_SCALE_1 = 5_000_000


def skewed_groupby(
    scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet", skew: float = 1.1
) -> Workload:
    """Group by Zipf-distributed keys: one key has a tenth of all rows, most have few."""
    measures = (
        Measure(name="events", function="count"),
        Measure(name="amount", function="sum", column="amount"),
        Measure(name="value_mean", function="mean", column="value"),
        Measure(name="value_max", function="max", column="value"),
    )
    pipeline = Pipeline(
        (
            _scan("events", ("key", "amount", "value")),
            Operator(name="aggregate", kind="aggregate", kernel=Aggregate(keys=("key",), measures=measures), inputs=("scan",)),
        )
    )
    description = "group 5 M events a scale unit by 500,000 Zipf-distributed keys"
    return _workload("skewed_groupby", pipeline, _dataset("events", scale, partitions, seed, format, skew), "sql", description)


def distributed_sort(scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet") -> Workload:
    """Sort rows of about 80 bytes by a random key and write them."""
    pipeline = Pipeline(
        (
            _scan("records", ("key", "id", "payload")),
            Operator(name="sort", kind="sort", kernel=Sort(keys=(SortKey(column="key"),)), inputs=("scan",)),
            Operator(name="write", kind="sink", kernel=Sink(), inputs=("sort",)),
        )
    )
    description = "sort 5 M records of 80 bytes a scale unit by a random key, and write them in order"
    return _workload("distributed_sort", pipeline, _dataset("records", scale, partitions, seed, format), "sort", description)


def sessionization(
    scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet", skew: float = 0.8, gap_s: float = 1800.0
) -> Workload:
    """Sessions of users from clicks in order of arrival: complete groups to a Python kernel."""
    function = "windtunnel.workloads.kernels.sessions:sessionize"
    kernel = GroupMap(keys=("user_id",), order_by=("ts_ms",), function=function, params=(("gap_s", gap_s),), schema=SCHEMA)
    pipeline = Pipeline(
        (
            _scan("clicks", ("user_id", "ts_ms", "bytes")),
            Operator(name="sessions", kind="group_map", kernel=kernel, inputs=("scan",), language="python"),
            Operator(name="write", kind="sink", kernel=Sink(), inputs=("sessions",)),
        )
    )
    description = "find the sessions in 5 M clicks a scale unit, users interleaved and some of them hot"
    return _workload("sessionization", pipeline, _dataset("clicks", scale, partitions, seed, format, skew), "sql", description)


def _scan(table: str, columns: tuple[str, ...]) -> Operator:
    return Operator(name="scan", kind="scan", kernel=Scan(table=table, columns=columns))


def _dataset(name: str, scale: float, partitions: int, seed: int, format: Format, skew: float = 0.0) -> DatasetSpec:
    return DatasetSpec(
        name=name, generator=f"windtunnel.workloads.datasets:{name}", scale=scale, seed=seed, format=format,
        partitions=partitions, skew=skew, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
    )  # fmt: skip


def _workload(name: str, pipeline: Pipeline, dataset: DatasetSpec, judge: str, description: str) -> Workload:
    oracle = Oracle(check=f"windtunnel.workloads.oracles:check_{judge}", ordered=judge == "sort")
    return Workload(name=name, kind="etl", pipeline=pipeline, dataset=dataset, oracle=oracle, description=description)
