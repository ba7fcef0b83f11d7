"""Relational operators in Flink's SQL, each a SELECT over the views of its inputs."""

from __future__ import annotations

from windtunnel.engines.adapters.common import output_columns
from windtunnel.engines.adapters.sql import Dialect
from windtunnel.spec.expr import SQL, Expr, Scalar, fold, sql_literal
from windtunnel.spec.plan import Join, Measure, Operator, Scan
from windtunnel.spec.workload import BoundWorkload

_FUNCTIONS = {**SQL, "length": lambda a: f"CAST(CHAR_LENGTH({a}) AS BIGINT)"}


def _literal(value: Scalar) -> str:
    """Numbers with a point are decimals in Flink, and small integers 32 bits wide."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return sql_literal(value)
    return f"CAST({value} AS BIGINT)" if isinstance(value, int) else f"CAST({value!r} AS DOUBLE)"


def expression(expr: Expr) -> str:
    """An expression in Flink's SQL."""
    return fold(expr, quoted, _literal, _FUNCTIONS)


def scan(kernel: Scan, source: str) -> str:
    where = "" if kernel.predicate is None else f" WHERE {expression(kernel.predicate)}"
    return f"SELECT {', '.join(map(quoted, kernel.columns))} FROM {quoted(source)}{where}"


def _join(kernel: Join, op: Operator, workload: BoundWorkload) -> str:
    left, right = op.inputs
    on = " AND ".join(f"l.{quoted(a)} = r.{quoted(b)}" for a, b in zip(kernel.left_keys, kernel.right_keys, strict=True))
    if kernel.how == "semi":
        return f"SELECT l.* FROM {quoted(left)} l WHERE EXISTS (SELECT 1 FROM {quoted(right)} r WHERE {on})"
    columns = [f"l.{quoted(c)}" for c in output_columns(workload, left)]
    columns += [f"r.{quoted(c)}" for c in output_columns(workload, right) if c not in kernel.right_keys]
    hint = "/*+ BROADCAST(r) */ " if kernel.broadcast else ""
    return f"SELECT {hint}{', '.join(columns)} FROM {quoted(left)} l JOIN {quoted(right)} r ON {on}"


def _measure(m: Measure) -> str:
    """An average of integers is an integer in Flink, so it is asked for as a double."""
    if m.column is None:
        return f"COUNT(*) AS {quoted(m.name)}"
    column = f"CAST({quoted(m.column)} AS DOUBLE)" if m.function == "mean" else quoted(m.column)
    return f"{'AVG' if m.function == 'mean' else m.function.upper()}({column}) AS {quoted(m.name)}"


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


DIALECT = Dialect(engine="flink", quoted=quoted, expression=expression, measure=_measure, join=_join)
