"""Jobs dominated by moving rows: a group-by with hot keys, a global sort, sessions with keyed state."""

from __future__ import annotations

from windtunnel.spec.plan import Aggregate, GroupMap, Measure, Operator, Pipeline, Sink, Sort, SortKey
from windtunnel.spec.workload import Format, Workload
from windtunnel.workloads.etl.build import dataset, scan, workload
from windtunnel.workloads.kernels.sessions import SCHEMA


def skewed_groupby(
    *, scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet", skew: float = 1.1
) -> Workload:
    """Group by Zipf-distributed keys: one key has a tenth of all rows, most have few."""
    measures = (
        Measure(name="events", function="count"),
        Measure(name="amount", function="sum", column="amount"),
        Measure(name="value_mean", function="mean", column="value"),
        Measure(name="value_max", function="max", column="value"),
    )
    kernel = Aggregate(keys=("key",), measures=measures)
    group = Operator(name="aggregate", kind="aggregate", kernel=kernel, inputs=("scan",))
    data = dataset("events", scale=scale, partitions=partitions, seed=seed, format=format, skew=skew)
    text = "group 5 M events a scale unit by 500,000 Zipf-distributed keys"
    return workload("skewed_groupby", text, Pipeline((scan("events", "key amount value"), group)), data)


def distributed_sort(
    *, scale: float = 0.1, partitions: int = 4, seed: int = 7, format: Format = "parquet"
) -> Workload:  # fmt: skip
    """Sort rows of about 80 bytes by a random key and write them."""
    sort = Operator(name="sort", kind="sort", kernel=Sort(keys=(SortKey(column="key"),)), inputs=("scan",))
    pipeline = Pipeline((scan("records", "key id payload"), sort, _write("sort")))
    data = dataset("records", scale=scale, partitions=partitions, seed=seed, format=format)
    text = "sort 5 M records of 80 bytes a scale unit by a random key, and write them in order"
    return workload("distributed_sort", text, pipeline, data, judge="sort")


def sessionization(
    *,
    scale: float = 0.1,
    partitions: int = 4,
    seed: int = 7,
    format: Format = "parquet",
    skew: float = 0.8,
    gap_s: float = 1800.0,
) -> Workload:
    """Sessions of users from clicks in order of arrival: complete groups to a Python kernel."""
    function, params = "windtunnel.workloads.kernels.sessions:sessionize", (("gap_s", float(gap_s)),)
    kernel = GroupMap(keys=("user_id",), order_by=("ts_ms",), function=function, params=params, schema=SCHEMA)
    sessions = Operator(name="sessions", kind="group_map", kernel=kernel, inputs=("scan",), language="python")
    pipeline = Pipeline((scan("clicks", "user_id ts_ms bytes"), sessions, _write("sessions")))
    data = dataset("clicks", scale=scale, partitions=partitions, seed=seed, format=format, skew=skew)
    text = "find the sessions in 5 M clicks a scale unit, users interleaved and some of them hot"
    return workload("sessionization", text, pipeline, data)


def _write(source: str) -> Operator:
    return Operator(name="write", kind="sink", kernel=Sink(), inputs=(source,))
