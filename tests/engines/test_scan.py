"""Scans of the embedded engines: what they hold, and what they leave out."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from windtunnel.engines.local import kernels
from windtunnel.engines.physical import Step
from windtunnel.spec.expr import col
from windtunnel.spec.plan import Scan
from windtunnel.spec.workload import TableData

ROWS, WIDE, GROUP = 64, 2**20, 4


@pytest.fixture
def wide(tmp_path: Path) -> TableData:
    """64 rows of 1 MiB in 16 row groups."""
    path = tmp_path / "t.parquet"
    schema = pa.schema([("k", pa.int64()), ("bytes", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for k in range(0, ROWS, GROUP):
            rows = {"k": range(k, k + GROUP), "bytes": [bytes([i]) * WIDE for i in range(k, k + GROUP)]}
            writer.write_table(pa.table(rows, schema=schema))
    columns = (("k", "int64"), ("bytes", "binary"))
    return TableData(name="t", format="parquet", paths=(str(path),), rows=ROWS, bytes=path.stat().st_size, schema=columns)


def _scan(table: TableData, columns: tuple[str, ...], least: int | None = None) -> Step:
    predicate = None if least is None else col("k") >= least
    return Step(operator="scan", phase=Scan(table="t", columns=columns, predicate=predicate), batch_rows=2, table=table)


def test_a_scan_holds_a_row_group_and_not_the_file(wide: TableData) -> None:
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in kernels.scan(_scan(wide, ("k", "bytes")), 0):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == ROWS
    assert most < 4 * GROUP * WIDE  # of 64 MiB


def test_a_predicate_filters_rows_also_by_a_column_that_is_not_asked_for(wide: TableData) -> None:
    found = pa.Table.from_batches(list(kernels.scan(_scan(wide, ("bytes",), ROWS - 5), 0)))
    assert found.column_names == ["bytes"]
    assert [value[0] for value in found["bytes"].to_pylist()] == list(range(ROWS - 5, ROWS))


def test_a_scan_without_rows_tells_its_columns(wide: TableData) -> None:
    (batch,) = kernels.scan(_scan(wide, ("k",), ROWS), 0)
    assert batch.num_rows == 0
    assert batch.schema == pa.schema([("k", pa.int64())])
