"""The data of scenarios that name none: sizes without files, cut into partitions, and the oracle that counts their rows.

Specs name these functions by `GENERATED`, `NO_TABLES` and `CHECK_ROWS`. The names are part of a workload's digest, so they stay as they
are wherever the code lies; `windtunnel.scenario` gives them.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from windtunnel.errors import WrongResult
from windtunnel.spec.plan import Pipeline, Synthetic
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, TableData

GENERATED = "windtunnel.scenario:generated_table"
NO_TABLES = "windtunnel.scenario:no_tables"
CHECK_ROWS = "windtunnel.scenario:check_rows"
INPUT = "input"  # the table behind declared operators


def no_tables(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """The data of a serving workload: requests are made while it runs."""
    return ()


def generated_table(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """The table behind declared operators: no files, only sizes; partition i holds a share ∝ (i + 1) ** -skew."""
    rows, width = spec.rows or 0, spec.row_bytes or 0
    sizes = zipf_sizes(rows, spec.partitions, spec.skew)
    schema = (("payload", "binary"),)
    table = TableData(
        name=INPUT, format="generated", paths=(), rows=rows, bytes=rows * width, schema=schema, partition_rows=sizes
    )
    return (table,)


def zipf_sizes(rows: int, partitions: int, skew: float) -> tuple[int, ...]:
    """``rows`` cut by Zipf weights, exactly: largest remainders first, ties to the earlier partition."""
    if skew == 0:
        return tuple(rows // partitions + (i < rows % partitions) for i in range(partitions))
    weights = [(i + 1) ** -skew for i in range(partitions)]
    total = math.fsum(weights)
    shares = [rows * w / total for w in weights]
    sizes = [math.floor(s) for s in shares]
    order = sorted(range(partitions), key=lambda i: (sizes[i] - shares[i], i))
    missing = rows - sum(sizes)
    for step in range(abs(missing)):
        sizes[order[step % partitions]] += 1 if missing > 0 else -1
    return tuple(sizes)


def expected_rows(pipeline: Pipeline, dataset: DatasetSpec) -> int | None:
    """Rows of the result where the declaration fixes them: a chain of operators with whole numbers of rows out."""
    rows = dataset.rows or 0
    for op in pipeline.operators[1:]:
        kernel = op.kernel
        if not isinstance(kernel, Synthetic) or op.kind == "join" or kernel.rows_out != int(kernel.rows_out):
            return None
        rows *= int(kernel.rows_out)
    chain = all(op.inputs == (before.name,) for before, op in itertools.pairwise(pipeline.operators))
    return rows if chain else None


def check_rows(bound: BoundWorkload, table: Any) -> None:
    """Oracle of declared operators: the number of rows follows from the declaration."""
    expected = expected_rows(bound.pipeline, bound.workload.dataset)
    if expected is not None and table.num_rows != expected:
        raise WrongResult(f"{bound.workload.name!r} made {table.num_rows} rows; its declaration gives {expected}")
