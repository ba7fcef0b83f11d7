"""What the synthetic ETL jobs share: their size, their data set and how a pipeline becomes a workload."""

from __future__ import annotations

from typing import Literal

from windtunnel.spec.plan import Operator, Pipeline, Scan
from windtunnel.spec.workload import DatasetSpec, Format, Oracle, Workload

ROWS_AT_SCALE_1 = 5_000_000


def scan(table: str, columns: str) -> Operator:
    """The operator ``scan`` of a table's ``columns`` (names with spaces between)."""
    return Operator(name="scan", kind="scan", kernel=Scan(table=table, columns=tuple(columns.split())))


def dataset(
    name: str, *, scale: float, partitions: int, seed: int, format: Format, skew: float = 0.0
) -> DatasetSpec:  # fmt: skip
    """``scale`` × `ROWS_AT_SCALE_1` rows from the generator of that name."""
    return DatasetSpec(
        name=name, generator=f"windtunnel.workloads.datasets:{name}", scale=scale, seed=seed, format=format,
        partitions=partitions, skew=skew, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
    )  # fmt: skip


def workload(
    name: str, description: str, pipeline: Pipeline, data: DatasetSpec, judge: Literal["sql", "sort"] = "sql"
) -> Workload:
    """An ETL workload judged by its reference SQL, or as a sort of its source."""
    oracle = Oracle(check=f"windtunnel.workloads.oracles:check_{judge}", ordered=judge == "sort")
    return Workload(name=name, kind="etl", pipeline=pipeline, dataset=data, oracle=oracle, description=description)
