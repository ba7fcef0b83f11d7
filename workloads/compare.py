"""Whether two tables say the same: exact where values are exact, tolerant where only the last bits of a sum differ.

Both sides are brought to common types first (integers int64, floats float64, strings string, timestamps in µs), so that
an engine's widths do not matter. The module knows tables, not workloads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windtunnel.errors import WrongResult
from windtunnel.spec.plan import SortKey

_DIGITS = 9  # floats that agree to so many digits sort alike


def compare_tables(
    actual: pa.Table,
    expected: pa.Table,
    *,
    ordered: bool = False,
    rtol: float = 1e-9,
    keys: tuple[SortKey, ...] = (),
    limit: int | None = None,
) -> None:
    """Raise WrongResult naming the first difference. Column order does not matter, names do.

    ``ordered`` with ``keys``: rows follow the sort keys, and rows that tie on them may stand in any order; without
    ``keys`` every row has its place. ``limit``: only the first rows of ``expected`` count, and of rows that tie across
    that edge any may be there."""
    actual, expected = _aligned(actual, expected)
    whole, expected = expected, expected if limit is None else expected.slice(0, limit)
    if actual.num_rows != expected.num_rows:
        raise WrongResult(f"the output has {actual.num_rows} rows, the reference {expected.num_rows}")
    if not ordered:
        _compare_columns(_canonical(actual), _canonical(expected), rtol, "sorted row")
    elif not keys:
        _compare_columns(actual, expected, rtol, "row")
    else:
        _compare_ordered(actual, expected, whole, rtol, [k.column for k in keys])


def _compare_ordered(actual: pa.Table, expected: pa.Table, whole: pa.Table, rtol: float, names: list[str]) -> None:
    _compare_columns(actual.select(names), expected.select(names), rtol, "row")
    groups = _tie_groups(whole, names, rtol)
    edge = _edge_group(groups, expected.num_rows)
    inner = int(np.searchsorted(groups, edge)) if edge is not None else expected.num_rows
    _compare_columns(
        _canonical(actual.slice(0, inner), groups[:inner]),
        _canonical(expected.slice(0, inner), groups[:inner]),
        rtol,
        "row",
    )
    if edge is not None:
        _compare_edge(actual.slice(inner), whole.filter(pa.array(groups == edge)), inner)


def _edge_group(groups: Any, rows: int) -> int | None:
    """The tie group that the limit cuts through, if any."""
    cut = 0 < rows < len(groups) and groups[rows - 1] == groups[rows]
    return int(groups[rows]) if cut else None


def _compare_edge(actual: pa.Table, candidates: pa.Table, row: int) -> None:
    """Any of the tied rows may be there, none more often than in the reference."""
    surplus = Counter(_row_tuples(actual)) - Counter(_row_tuples(candidates))
    if surplus:
        raise WrongResult(f"from row {row} on, among rows tied at the limit, {next(iter(surplus))} is not in the reference")


def _row_tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(_rounded(c).to_pylist() for c in table.columns), strict=True))


# -- common types -----------------------------------------------------------------------------------------------------


def _aligned(actual: pa.Table, expected: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both with the expected column order and common types."""
    if len(set(actual.column_names)) != actual.num_columns or set(actual.column_names) != set(expected.column_names):
        raise WrongResult(
            f"the output has columns {', '.join(actual.column_names)}, the reference {', '.join(expected.column_names)}"
        )
    pairs = {name: _common(name, _plain(actual[name]), _plain(expected[name])) for name in expected.column_names}
    return pa.table({n: a for n, (a, _) in pairs.items()}), pa.table({n: e for n, (_, e) in pairs.items()})


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(_plain_type(array.type))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale == 0):
        return pa.int64()
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.float64()
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_timestamp(kind) or types.is_date64(kind):
        return pa.timestamp("us")
    return kind


def _common(name: str, actual: pa.Array, expected: pa.Array) -> tuple[pa.Array, pa.Array]:
    if actual.type == expected.type:
        return actual, expected
    both = {actual.type, expected.type}
    for target, kinds in (
        (pa.float64(), {pa.int64(), pa.float64()}),
        (pa.timestamp("us"), {pa.timestamp("us"), pa.date32()}),
    ):
        if both <= kinds:
            return actual.cast(target), expected.cast(target)
    if pa.types.is_null(actual.type):
        return actual.cast(expected.type), expected
    raise WrongResult(f"column {name!r} has type {actual.type}, the reference {expected.type}")


# -- canonical order --------------------------------------------------------------------------------------------------


def _rounded(column: Any) -> Any:
    """Floats to `_DIGITS` significant digits, all else as it is."""
    if not pa.types.is_floating(column.type):
        return column
    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    size = np.abs(values)
    exponent = np.floor(np.log10(size, out=np.zeros_like(size), where=(size > 0) & np.isfinite(size)))
    unit = 10.0 ** (exponent - _DIGITS + 1)
    return pa.array(np.round(values / unit) * unit, mask=np.asarray(column.is_null()))


def _canonical(table: pa.Table, groups: Any = None) -> pa.Table:
    """Rows sorted by tie group, then exact columns, then rounded floats."""
    names = sorted(table.column_names, key=lambda n: pa.types.is_floating(table[n].type))
    sorting = {str(i): _rounded(table[n]) for i, n in enumerate(names)}
    if groups is not None:
        sorting = {"group": pa.array(groups), **sorting}
    return table.take(pc.sort_indices(pa.table(sorting), sort_keys=[(n, "ascending") for n in sorting]))


def _tie_groups(table: pa.Table, names: list[str], rtol: float) -> Any:
    """Number of each row's run of equal sort keys."""
    starts = np.zeros(table.num_rows, dtype=np.int64)
    for name in names:
        column = table[name]
        starts[1:] |= ~_same(column.slice(0, max(0, table.num_rows - 1)), column.slice(1), rtol)
    return np.cumsum(starts)


# -- values -----------------------------------------------------------------------------------------------------------


def _compare_columns(actual: pa.Table, expected: pa.Table, rtol: float, where: str) -> None:
    for name in expected.column_names:
        wrong = np.flatnonzero(~_same(actual[name], expected[name], rtol))
        if len(wrong):
            row = int(wrong[0])
            values = f"{actual[name][row].as_py()!r}, the reference {expected[name][row].as_py()!r}"
            raise WrongResult(f"column {name!r} differs in {len(wrong)} of {len(actual)} rows, first in {where} {row}: {values}")


def _same(a: Any, b: Any, rtol: float) -> Any:
    """Element-wise equality of columns of one type as a NumPy mask; null equals null and NaN equals NaN."""
    null_a, null_b = np.asarray(pc.is_null(a)), np.asarray(pc.is_null(b))
    if pa.types.is_floating(a.type):
        x, y = np.asarray(pc.fill_null(a, 0.0)), np.asarray(pc.fill_null(b, 0.0))
        equal = np.isclose(x, y, rtol=rtol, atol=0.0, equal_nan=True)
    else:
        equal = np.asarray(pc.fill_null(pc.equal(a, b), False), dtype=bool)
    return np.where(null_a | null_b, null_a & null_b, equal)
