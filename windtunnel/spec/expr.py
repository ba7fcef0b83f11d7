"""Scalar expressions over columns, as data: built with operators, carried by plans, translated by each engine.

An expression is a tree of `Col`, `Lit` and `Call`. `fold` walks it once with an engine's own column, literal and function
table, so that pandas, Polars, Spark, PyArrow and SQL share one tree. Floats stay floats and integers integers: division
always yields a float.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from windtunnel.errors import InputError

Scalar = bool | int | float | str | dt.date
T = TypeVar("T")

#: function name → number of arguments (None = any). `if_else(condition, then, otherwise)`, `is_in(x, literal, ...)`,
#: `year(date)`, `starts_with(text, literal)`, `length(text)`, `cast_float(x)`, `cast_int(x)`; the rest are the usual operators.
FUNCTIONS: Mapping[str, int | None] = {
    "add": 2, "subtract": 2, "multiply": 2, "divide": 2,
    "equal": 2, "not_equal": 2, "less": 2, "less_equal": 2, "greater": 2, "greater_equal": 2,
    "and": 2, "or": 2, "not": 1, "is_in": None, "if_else": 3, "year": 1, "starts_with": 2, "length": 1,
    "cast_float": 1, "cast_int": 1, "is_null": 1,
}  # fmt: skip


class Expr:
    """Base of expressions; comparison and arithmetic operators build `Call` trees (use `.eq()` and `.ne()` for equality)."""

    __slots__ = ()

    def __add__(self, other: object) -> Call:
        return call("add", self, other)

    def __sub__(self, other: object) -> Call:
        return call("subtract", self, other)

    def __rsub__(self, other: object) -> Call:
        return call("subtract", other, self)

    def __mul__(self, other: object) -> Call:
        return call("multiply", self, other)

    def __truediv__(self, other: object) -> Call:
        return call("divide", self, other)

    def __lt__(self, other: object) -> Call:
        return call("less", self, other)

    def __le__(self, other: object) -> Call:
        return call("less_equal", self, other)

    def __gt__(self, other: object) -> Call:
        return call("greater", self, other)

    def __ge__(self, other: object) -> Call:
        return call("greater_equal", self, other)

    def __and__(self, other: object) -> Call:
        return call("and", self, other)

    def __or__(self, other: object) -> Call:
        return call("or", self, other)

    def __invert__(self) -> Call:
        return call("not", self)

    def eq(self, other: object) -> Call:
        """self = other."""
        return call("equal", self, other)

    def ne(self, other: object) -> Call:
        """self ≠ other."""
        return call("not_equal", self, other)

    def is_in(self, *values: Scalar) -> Call:
        """Whether self equals one of the literals."""
        return call("is_in", self, *values)


@dataclass(frozen=True, slots=True)
class Col(Expr):
    """A column by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Lit(Expr):
    """A literal: bool, int, float, str or date."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """A function of `FUNCTIONS` applied to expressions."""

    function: str
    args: tuple[Expr, ...]

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InputError(f"unknown expression function {self.function!r}; known: {', '.join(FUNCTIONS)}")
        arity = FUNCTIONS[self.function]
        if arity is not None and arity != len(self.args):
            raise InputError(f"{self.function} takes {arity} arguments, not {len(self.args)}")


def col(name: str) -> Col:
    """Column ``name``."""
    return Col(name)


def call(function: str, *args: object) -> Call:
    """``function`` of expressions or plain literals."""
    return Call(function, tuple(a if isinstance(a, Expr) else Lit(_scalar(a)) for a in args))


def _scalar(value: object) -> Scalar:
    if isinstance(value, (bool, int, float, str, dt.date)):
        return value
    raise InputError(f"{value!r} cannot be a literal; use bool, int, float, str or date")


def fold(expr: Expr, column: Callable[[str], T], literal: Callable[[Scalar], T], functions: Mapping[str, Callable[..., T]]) -> T:
    """Translate ``expr`` bottom-up: names through ``column``, values through ``literal``, calls through ``functions``."""
    if isinstance(expr, Col):
        return column(expr.name)
    if isinstance(expr, Lit):
        return literal(expr.value)
    assert isinstance(expr, Call)
    return functions[expr.function](*(fold(a, column, literal, functions) for a in expr.args))


def columns_of(expr: Expr) -> tuple[str, ...]:
    """Names of the columns used, in order of first use."""
    if isinstance(expr, Col):
        return (expr.name,)
    if isinstance(expr, Call):
        return tuple(dict.fromkeys(name for a in expr.args for name in columns_of(a)))
    return ()


def to_sql(expr: Expr) -> str:
    """SQL text that DuckDB, Spark and Polars read alike."""
    return fold(expr, lambda name: name, sql_literal, SQL)


def sql_literal(value: Scalar) -> str:
    """A literal of SQL."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    return repr(value)


def _infix(symbol: str) -> Callable[..., str]:
    return lambda a, b: f"({a} {symbol} {b})"


#: function name → SQL text of its arguments' texts
SQL: dict[str, Callable[..., str]] = {
    "add": _infix("+"), "subtract": _infix("-"), "multiply": _infix("*"),
    "divide": lambda a, b: f"(CAST({a} AS DOUBLE) / {b})",
    "equal": _infix("="), "not_equal": _infix("<>"), "less": _infix("<"), "less_equal": _infix("<="),
    "greater": _infix(">"), "greater_equal": _infix(">="), "and": _infix("AND"), "or": _infix("OR"),
    "not": lambda a: f"(NOT {a})",
    "is_in": lambda a, *values: f"({a} IN ({', '.join(values)}))",
    "if_else": lambda c, a, b: f"(CASE WHEN {c} THEN {a} ELSE {b} END)",
    "year": lambda a: f"CAST(EXTRACT(YEAR FROM {a}) AS BIGINT)",
    "starts_with": lambda a, b: f"({a} LIKE {b[:-1]}%')",
    "length": lambda a: f"CAST(LENGTH({a}) AS BIGINT)",
    "cast_float": lambda a: f"CAST({a} AS DOUBLE)",
    "cast_int": lambda a: f"CAST({a} AS BIGINT)",
    "is_null": lambda a: f"({a} IS NULL)",
}  # fmt: skip
