"""Traces of requests: columns of a CSV, JSON-lines or Parquet file, read and checked before anything runs.

The module owns what a column of times may hold and what a trace is refused for. Its sentences name the file, the column and the row,
and tell nothing that stands in the file: a scenario of somebody else may name any file of this machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from windtunnel.errors import InputError

T = TypeVar("T")
#: from these on a number is seconds, milliseconds, microseconds or nanoseconds since 1970: as the first, it would be three years
EPOCHS = ((1e8, 1.0), (1e11, 1e-3), (1e14, 1e-6), (1e17, 1e-9))
JSON_LINES = (".jsonl", ".ndjson")
FORMS = "CSV, JSON lines (.jsonl) or Parquet"


def times(path: Path, column: str) -> list[float]:
    """Seconds of each row, in the order of the file: since the start of the run as they stand, of dates and of Unix time since the
    first. Raises InputError."""
    return _kept(_times, path, column)


def lengths(path: Path, column: str) -> list[float]:
    """Tokens of each row: whole numbers of at least one. Raises InputError."""
    return _kept(_lengths, path, column)


def check(path: Path, column: str, token_columns: Sequence[str] = ()) -> None:
    """Read all that a run would. Raises InputError."""
    if not times(path, column):
        raise InputError(f"{path} has no rows: a trace needs at least one request")
    for name in token_columns:
        lengths(path, name)


def _kept(read: Callable[[Path, str, tuple[int, int]], tuple[float, ...]], path: Path, column: str) -> list[float]:
    """What a column holds; a file that did not change is read once, however many points a sweep has."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no file can have that name'}") from error
    if not path.is_file():
        raise InputError(f"{path} is no regular file")
    return list(read(path, column, (found.st_mtime_ns, found.st_size)))


@functools.lru_cache(maxsize=32)
def _times(path: Path, column: str, version: tuple[int, int]) -> tuple[float, ...]:
    import pyarrow as pa

    values = _column(path, column, version)
    kind = values.type
    if pa.types.is_date(kind):
        values = values.cast(pa.timestamp("s"))
        kind = values.type
    if pa.types.is_timestamp(kind):
        a_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        moments = [_there(v, row, path, column) for row, v in enumerate(values.cast(pa.int64()).to_pylist())]
        first = min(moments, default=0)
        return tuple((m - first) / a_second for m in moments)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _dates(values.to_pylist(), path, column)
    numbers = _numbers(values, path, column)
    earliest = min(numbers, default=0.0)
    unit = next((unit for least, unit in reversed(EPOCHS) if earliest >= least), None)
    return numbers if unit is None else tuple((n - earliest) * unit for n in numbers)


def _dates(texts: Sequence[str | None], path: Path, column: str) -> tuple[float, ...]:
    """Seconds since the first of dates in ISO 8601, all with a zone or all without."""
    moments: list[datetime] = []
    for row, text in enumerate(texts):
        try:
            moments.append(datetime.fromisoformat(_there(text, row, path, column).strip()))
        except ValueError as error:
            raise _wrong(
                path, column, row, "is neither a number of seconds nor a date and time such as 2024-05-01T12:00:00.25"
            ) from error
    if len({m.tzinfo is None for m in moments}) > 1:
        raise InputError(
            f"column {column!r} of {path} holds dates with a time zone and dates without: nobody knows what lies between"
        )
    first = min(moments, default=None)
    return tuple((m - first).total_seconds() for m in moments) if first is not None else ()


@functools.lru_cache(maxsize=32)
def _lengths(path: Path, column: str, version: tuple[int, int]) -> tuple[float, ...]:
    numbers = _numbers(_column(path, column, version), path, column)
    bad = [row for row, n in enumerate(numbers) if n < 1 or n != int(n)]
    if bad:
        raise InputError(
            f"column {column!r} of {path} holds {len(bad)} numbers that are no count of tokens, the first in row {bad[0] + 1}: a request "
            f"has one token or more; leave out those rows"
        )
    return numbers


def _numbers(values: Any, path: Path, column: str) -> tuple[float, ...]:
    import pyarrow as pa

    if not len(values):
        return ()
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)):
        raise InputError(f"column {column!r} of {path} holds no numbers")
    plain: list[float] = [_there(n, row, path, column) for row, n in enumerate(values.cast(pa.float64(), safe=False).to_pylist())]
    for row, number in enumerate(plain):
        if not 0 <= number < math.inf:
            raise _wrong(path, column, row, "is below 0" if number < 0 else "is no finite number")
    return tuple(plain)


def _there(value: T | None, row: int, path: Path, column: str) -> T:
    if value is None:
        raise _wrong(path, column, row, "is empty")
    return value


def _wrong(path: Path, column: str, row: int, what: str) -> InputError:
    return InputError(f"column {column!r} of {path}: row {row + 1} {what}")


# -- files ----------------------------------------------------------------------------------------------------------------


def _column(path: Path, name: str, version: tuple[int, int]) -> Any:
    table, names = _table(path, version)
    found = names.count(name)
    if found > 1:
        raise InputError(f"{path} has {found} columns named {name!r}: one of them needs another name")
    if not found:
        raise InputError(f"{path} has no column {name!r}, whose name must be as it is written there; it has {len(names)}")
    return table[name]


@functools.lru_cache(maxsize=4)
def _table(path: Path, version: tuple[int, int]) -> tuple[Any, list[str]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.ParquetFile(path).read()
        else:
            table = (pyarrow.json.read_json if path.suffix in JSON_LINES else pyarrow.csv.read_csv)(path)
        return table, table.column_names  # which raises for names that are no text
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # whose texts quote the file
        raise InputError(f"{path} cannot be read as a trace: it is no table in {FORMS}, as its name says") from error
