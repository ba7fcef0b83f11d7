"""Relational operators in Flink's SQL, each a SELECT over the views of its inputs."""

from __future__ import annotations

from windtunnel.engines.adapters.common import output_columns, sorted_limit

from windtunnel.errors import InputError
from windtunnel.expr import SQL, Expr, Scalar, fold, sql_literal
from windtunnel.plan import Aggregate, Filter, Join, Limit, Measure, Operator, Project, Scan, Sort
from windtunnel.workload import BoundWorkload

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


def select(op: Operator, workload: BoundWorkload) -> str:
    """One relational operator as a SELECT over its inputs' names."""
    kernel, source = op.kernel, quoted(op.inputs[0])
    if isinstance(kernel, Filter):
        return f"SELECT * FROM {source} WHERE {expression(kernel.predicate)}"
    if isinstance(kernel, Project):
        return f"SELECT {', '.join(f'{expression(e)} AS {quoted(n)}' for n, e in kernel.columns)} FROM {source}"
    if isinstance(kernel, Aggregate):
        columns = [*map(quoted, kernel.keys), *map(_measure, kernel.measures)]
        group = f" GROUP BY {', '.join(map(quoted, kernel.keys))}" if kernel.keys else ""
        return f"SELECT {', '.join(columns)} FROM {source}{group}"
    if isinstance(kernel, Join):
        return _join(kernel, op, workload)
    if isinstance(kernel, Sort):
        return f"SELECT * FROM {source} ORDER BY {_order(kernel)}"
    if isinstance(kernel, Limit):
        sort = sorted_limit(workload.pipeline, op)
        if sort is not None and isinstance(sort.kernel, Sort):
            return f"SELECT * FROM {quoted(sort.inputs[0])} ORDER BY {_order(sort.kernel)} LIMIT {kernel.count}"
        return f"SELECT * FROM {source} LIMIT {kernel.count}"
    raise InputError(f"flink has no SQL for operator {op.name!r} of kind {op.kind!r}")


def _join(kernel: Join, op: Operator, workload: BoundWorkload) -> str:
    left, right = op.inputs
    on = " AND ".join(f"l.{quoted(a)} = r.{quoted(b)}" for a, b in zip(kernel.left_keys, kernel.right_keys, strict=True))
    if kernel.how == "semi":
        return f"SELECT l.* FROM {quoted(left)} l WHERE EXISTS (SELECT 1 FROM {quoted(right)} r WHERE {on})"
    columns = [f"l.{quoted(c)}" for c in output_columns(workload, left)]
    columns += [f"r.{quoted(c)}" for c in output_columns(workload, right) if c not in kernel.right_keys]
    hint = "/*+ BROADCAST(r) */ " if kernel.broadcast else ""
    return f"SELECT {hint}{', '.join(columns)} FROM {quoted(left)} l JOIN {quoted(right)} r ON {on}"


def _order(kernel: Sort) -> str:
    return ", ".join(f"{quoted(k.column)} {'DESC' if k.descending else 'ASC'}" for k in kernel.keys)


def _measure(m: Measure) -> str:
    """An average of integers is an integer in Flink, so it is asked for as a double."""
    if m.column is None:
        return f"COUNT(*) AS {quoted(m.name)}"
    column = f"CAST({quoted(m.column)} AS DOUBLE)" if m.function == "mean" else quoted(m.column)
    return f"{'AVG' if m.function == 'mean' else m.function.upper()}({column}) AS {quoted(m.name)}"


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
