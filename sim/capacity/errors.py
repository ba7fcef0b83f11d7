"""Median error of each engine's model over the published tables, written as ``errors.toml``: ``python -m windtunnel.sim.capacity.errors``.

Cells that constants were fitted to are left out. An engine is the one that a cell was simulated with, whatever its system was called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from windtunnel.sim import validate

from windtunnel.scenario import from_document

_HEAD = """# Median error of the models over the published cells that nothing was fitted to, how many, and the CPUs of the largest cluster
# among them. Made by `python -m windtunnel.sim.capacity.errors > sim/capacity/errors.toml`; read by `windtunnel plan`.
"""


def by_engine(summaries: Sequence[validate.Summary]) -> dict[str, tuple[float, int, int]]:
    """(median error, cells, CPUs of the largest cluster) by engine, with ``all`` and ``all_serving``."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for summary in summaries:
        for checked in summary.checked:
            if checked.error is None or checked.cell.fitted:
                continue
            scenario = from_document(checked.cell.document)
            entry = (abs(checked.error), scenario.cluster.cpus)
            found[scenario.engines[0].name].append(entry)
            found["all" if scenario.serving is None else "all_serving"].append(entry)
    return {n: (median(e for e, _ in v), len(v), max(c for _, c in v)) for n, v in sorted(found.items())}


def text(table: dict[str, tuple[float, int, int]]) -> str:
    """As TOML."""
    lines = [
        f"{name} = {{ median = {error:.4f}, cells = {cells}, cpus = {cpus} }}" for name, (error, cells, cpus) in table.items()
    ]
    return _HEAD + "[engines]\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(text(by_engine(validate.validate([validate.load(n) for n in validate.names()]))), end="")
