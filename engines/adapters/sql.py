"""Relational operators as SELECTs over the names of their inputs, in the words of a dialect. Scans are the engine's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.engines.adapters.common import sorted_limit
from windtunnel.errors import InputError
from windtunnel.spec.expr import Expr
from windtunnel.spec.plan import Aggregate, Filter, Join, Limit, Measure, Operator, Project, Sort
from windtunnel.spec.workload import BoundWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs: how names are quoted, expressions and measures written, and tables joined."""

    engine: str
    quoted: Callable[[str], str]
    expression: Callable[[Expr], str]
    measure: Callable[[Measure], str]
    join: Callable[[Join, Operator, BoundWorkload], str]

    def select(self, op: Operator, workload: BoundWorkload) -> str:
        """One operator that is neither a scan nor a kernel."""
        kernel, source = op.kernel, self.quoted(op.inputs[0])
        if isinstance(kernel, Filter):
            return f"SELECT * FROM {source} WHERE {self.expression(kernel.predicate)}"
        if isinstance(kernel, Project):
            return f"SELECT {', '.join(f'{self.expression(e)} AS {self.quoted(n)}' for n, e in kernel.columns)} FROM {source}"
        if isinstance(kernel, Aggregate):
            return self._aggregate(kernel, source)
        if isinstance(kernel, Join):
            return self.join(kernel, op, workload)
        if isinstance(kernel, Sort):
            return f"SELECT * FROM {source} ORDER BY {self._order(kernel)}"
        if isinstance(kernel, Limit):
            sort = sorted_limit(workload.pipeline, op)
            if sort is not None and isinstance(sort.kernel, Sort):
                return f"SELECT * FROM {self.quoted(sort.inputs[0])} ORDER BY {self._order(sort.kernel)} LIMIT {kernel.count}"
            return f"SELECT * FROM {source} LIMIT {kernel.count}"
        raise InputError(f"{self.engine} has no SQL for operator {op.name!r} of kind {op.kind!r}")

    def _aggregate(self, kernel: Aggregate, source: str) -> str:
        keys = [self.quoted(k) for k in kernel.keys]
        group = f" GROUP BY {', '.join(keys)}" if keys else ""
        return f"SELECT {', '.join([*keys, *map(self.measure, kernel.measures)])} FROM {source}{group}"

    def _order(self, kernel: Sort) -> str:
        return ", ".join(f"{self.quoted(k.column)} {'DESC' if k.descending else 'ASC'}" for k in kernel.keys)
