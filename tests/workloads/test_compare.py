"""The comparison finds each kind of difference and forgives what is none."""

from __future__ import annotations

import datetime as dt
import decimal

import pyarrow as pa
import pytest

from windtunnel.errors import WrongResult
from windtunnel.spec.plan import SortKey
from windtunnel.workloads.compare import compare_tables

BASE = pa.table({"k": ["a", "b", "c", "d"], "n": [4, 3, 3, 1], "x": [1.0, 2.0, 3.0, 1e12]})
BY_N = (SortKey(column="n", descending=True),)


def _with(name: str, values: object) -> pa.Table:
    return BASE.set_column(BASE.column_names.index(name), name, pa.array(values))


def test_equal_in_any_order_of_rows_and_columns() -> None:
    compare_tables(BASE.take(pa.array([2, 0, 3, 1])).select(["x", "k", "n"]), BASE)


def test_noise_of_float_sums_is_forgiven_more_is_not() -> None:
    compare_tables(_with("x", [1.0, 2.0 + 1e-12, 3.0, 1e12 + 1]), BASE)
    with pytest.raises(WrongResult, match="column 'x' differs in 1 of 4 rows"):
        compare_tables(_with("x", [1.0, 2.0 + 1e-7, 3.0, 1e12]), BASE)


@pytest.mark.parametrize(("name", "values"), [("n", [4, 3, 3, 2]), ("k", ["a", "b", "c", "e"]), ("x", [1.0, 2.0, None, 1e12])])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_changed_value_is_named(name: str, values: list[object], ordered: bool) -> None:
    with pytest.raises(WrongResult, match=f"column '{name}' differs in 1 of 4 rows"):
        compare_tables(_with(name, values), BASE, ordered=ordered)


def test_missing_and_doubled_rows() -> None:
    with pytest.raises(WrongResult, match="has 3 rows, the reference 4"):
        compare_tables(BASE.slice(1), BASE)
    with pytest.raises(WrongResult, match="differs"):
        compare_tables(pa.concat_tables([BASE.slice(0, 3), BASE.slice(0, 1)]), BASE)


def test_names_and_types() -> None:
    with pytest.raises(WrongResult, match="the output has columns k, n, y, the reference k, n, x"):
        compare_tables(BASE.rename_columns(["k", "n", "y"]), BASE)
    with pytest.raises(WrongResult, match="column 'n' has type string, the reference int64"):
        compare_tables(_with("n", ["4", "3", "3", "1"]), BASE)


def test_widths_and_encodings_do_not_matter() -> None:
    expected = pa.table({"k": ["a"], "n": [1], "d": [dt.date(2020, 1, 2)], "z": pa.array([None], pa.string())})
    actual = pa.table(
        {
            "k": pa.array(["a"]).dictionary_encode(), "n": pa.array([decimal.Decimal(1)], pa.decimal128(38, 0)),
            "d": pa.array([dt.datetime(2020, 1, 2)], pa.timestamp("ns")), "z": pa.array([None], pa.null()),
        }
    )  # fmt: skip
    compare_tables(actual, expected)
    compare_tables(expected.set_column(0, "k", pa.array(["a"], pa.large_string())), expected)
    with pytest.raises(WrongResult, match="column 'd' differs"):
        compare_tables(actual.set_column(2, "d", pa.array([dt.datetime(2020, 1, 2, 1)])), expected)


def test_order_counts_but_ties_may_swap() -> None:
    compare_tables(BASE.take(pa.array([0, 2, 1, 3])), BASE, ordered=True, keys=BY_N)
    with pytest.raises(WrongResult, match="column 'n' differs in 2 of 4 rows, first in row 0: 3, the reference 4"):
        compare_tables(BASE.take(pa.array([1, 0, 2, 3])), BASE, ordered=True, keys=BY_N)
    with pytest.raises(WrongResult, match="column 'x' differs"):
        compare_tables(_with("x", [1.0, 3.0, 2.0, 1e12]), BASE, ordered=True, keys=BY_N)


def test_any_of_the_rows_tied_at_the_limit_may_be_there() -> None:
    compare_tables(BASE.take(pa.array([0, 2])), BASE, ordered=True, keys=BY_N, limit=2)
    compare_tables(BASE.take(pa.array([0, 1])), BASE, ordered=True, keys=BY_N, limit=2)
    with pytest.raises(WrongResult, match="among rows tied at the limit"):
        compare_tables(pa.table({"k": ["a", "z"], "n": [4, 3], "x": [1.0, 2.0]}), BASE, ordered=True, keys=BY_N, limit=2)
    with pytest.raises(WrongResult, match="column 'k' differs"):
        compare_tables(pa.table({"k": ["z", "b"], "n": [4, 3], "x": [1.0, 2.0]}), BASE, ordered=True, keys=BY_N, limit=2)


def test_a_row_tied_at_the_limit_counts_once() -> None:
    three_tied = pa.concat_tables([BASE, BASE.slice(2, 1)]).sort_by([("n", "descending")])
    compare_tables(BASE.take(pa.array([0, 2, 2])), three_tied, ordered=True, keys=BY_N, limit=3)
    with pytest.raises(WrongResult, match="among rows tied at the limit"):
        compare_tables(BASE.take(pa.array([0, 1, 1])), three_tied, ordered=True, keys=BY_N, limit=3)


def test_empty_tables_are_equal() -> None:
    compare_tables(BASE.slice(0, 0), BASE.slice(0, 0), ordered=True, keys=BY_N, limit=2)
