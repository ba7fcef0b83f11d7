"""Simulated times of all published cells that nothing was fitted to, as ``errors.toml``: ``python -m windtunnel.sim.capacity.errors``.

An engine is the one that a cell was simulated with, whatever its system was called. Where the table counts work a second, times
are its inverse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from windtunnel.scenario.reading import from_document
from windtunnel.sim.judging import validate

_HEAD = """# Published cells that nothing was fitted to: measured and simulated time (of one unit of work where the table counts those).
# Made by `python -m windtunnel.sim.capacity.errors > sim/capacity/errors.toml`; intervals and `windtunnel plan` read it.
"""


def cells(summaries: Sequence[validate.Summary]) -> Iterator[dict[str, Any]]:
    """As entries of the file."""
    for summary in summaries:
        for checked in summary.checked:
            if checked.value is None or not checked.cell.value or checked.cell.fitted:
                continue
            scenario = from_document(checked.cell.document)
            times = (checked.cell.value, checked.value)
            measured, simulated = times if summary.table.better == "less" else (1 / times[0], 1 / times[1])
            yield {
                "engine": scenario.engines[0].name, "cell": checked.cell.name, "group": summary.table.name, "cpus": scenario.cluster.cpus,
                "measured_s": float(f"{measured:.6g}"), "simulated_s": float(f"{simulated:.6g}"), "serving": scenario.serving is not None,
            }  # fmt: skip


def text(entries: Sequence[dict[str, Any]]) -> str:
    """As TOML, a line a cell."""
    lines = (f"  {{ {', '.join(f'{k} = {_value(v)}' for k, v in entry.items())} }}," for entry in entries)
    return _HEAD + "cells = [\n" + "\n".join(lines) + "\n]\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    print(text(list(cells(validate.validate([validate.load(n) for n in validate.names()])))), end="")
