"""Spans and samples are checked here, once, where they are read: the declared columns, no nulls, finite times that end after they begin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from windtunnel.records.checking import open_file
from windtunnel.records.columns import numbers
from windtunnel.records.record import SpanKind
from windtunnel.records.schema import LINE, MOST

#: rows that a table may have: ten times those that a recorder keeps
MOST_ROWS = 20_000_000
_KINDS = frozenset(get_args(SpanKind))


def checked_table(path: Path, schema: pa.Schema) -> pa.Table:
    """The table of a Parquet file, cast to ``schema``. Raises OSError, and ValueError or ArrowException with a sentence."""
    with open_file(path) as file:
        parquet = pq.ParquetFile(file)
        if (rows := parquet.metadata.num_rows) > MOST_ROWS:
            raise ValueError(f"it has {rows} rows; the most are {MOST_ROWS}")
        table: pa.Table = parquet.read()
    if not table.schema.equals(schema):
        table = table.cast(schema)
    for name in schema.names if table.num_rows else ():
        if (why := _broken(table, name)) is not None:
            raise ValueError(f"column {name!r} {why}")
    if "end_s" in schema.names and (numbers(table, "end_s") < numbers(table, "start_s")).any():
        raise ValueError("a span ends before it begins")
    return table


def _broken(table: pa.Table, name: str) -> str | None:
    column = table[name]
    if column.null_count:
        return "has nulls"
    if pa.types.is_dictionary(column.type):
        return _broken_names(column, name)
    values = numbers(table, name)
    if pa.types.is_floating(column.type) and not (np.abs(values) <= MOST).all():  # nor is what is no number
        return "has a value that is no finite number"
    return "has a value below 0" if name in ("rows", "bytes") and (values < 0).any() else None


def _broken_names(column: pa.ChunkedArray, name: str) -> str | None:
    values: set[Any] = {v for chunk in column.chunks for v in chunk.dictionary.to_pylist()}
    if name == "kind" and (unknown := sorted(str(v) for v in values - _KINDS)):
        return f"has the unknown kind {unknown[0]!r}"
    return "has a name with control characters" if any(v is None or not re.match(LINE, v) for v in values) else None
