"""What the conformance suite does with an engine: open it once a module, run workloads, check the answer with the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.api import Outcome
from windtunnel.records.record import Recorder
from windtunnel.registry import ENGINES, WORKLOADS, engine_entry, load_workload, missing_modules
from windtunnel.running.cell import read_output
from windtunnel.spec.workload import Workload

#: engines that compute answers; `null` returns one, `loop` (no exchange) and `pair` have tests of their own, simulated ones count
SERVERS = tuple(
    name for name, entry in ENGINES.items() if ".serving." in entry.dotted
)  # they answer requests and run no operators
#: they keep data for clients
STORES = tuple(name for name, entry in ENGINES.items() if ".stores." in entry.dotted)
REAL = tuple(name for name in ENGINES if name not in ("null", "loop", "pair", *SERVERS, *STORES) and not name.startswith("sim:"))
JAVA = ("spark", "flink", "mapreduce")
ETL = tuple(name for name in WORKLOADS if load_workload(name).kind == "etl")


def marks(name: str) -> list[Any]:
    """The marks of an engine's tests."""
    import pytest

    found: list[Any] = [pytest.mark.java] if name in JAVA else []
    if absent := missing_modules(name):
        found.append(pytest.mark.skip(reason=f"{name} needs {', '.join(absent)}; run: {engine_entry(name).install}"))
    return found


def answer(session: Any, workload: Workload, data_root: Path, output: Path) -> pa.Table:
    """Run once; the verified table."""
    bound = workload.bind(data_root)
    session.prepare(bound)
    table = answer_of(session.run(bound, Recorder(), output))
    bound.verify(table)
    return table


def answer_of(outcome: Outcome) -> pa.Table:
    """The table of an outcome, read from its files when a sink wrote it."""
    table = outcome.table if outcome.table is not None else read_output(outcome.path)
    assert table is not None
    return table
