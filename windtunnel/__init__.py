"""windtunnel: compare distributed execution models on identical workloads, for real and simulated.

The public interface is small: three verbs and what they take and give. Nothing heavy is imported before it is used.

>>> import windtunnel
>>> records = windtunnel.simulate("job.toml")                                        # doctest: +SKIP
>>> records = windtunnel.run(["tpch_q5"], ["streaming", "duckdb"], scale=0.05)       # doctest: +SKIP
>>> print(*windtunnel.compare(records).verdicts, sep="\\n")                           # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windtunnel import core

if TYPE_CHECKING:
    from windtunnel.commands.api import compare, run, simulate
    from windtunnel.errors import WindtunnelError
    from windtunnel.records.document import run_document
    from windtunnel.records.record import RunRecord
    from windtunnel.records.store import Store
    from windtunnel.registry import load_engine, load_workload
    from windtunnel.running.experiment import Experiment
    from windtunnel.scenario.reading import load_scenario

__version__ = "0.1.0"
__all__ = (
    "Experiment", "RunRecord", "Store", "WindtunnelError", "compare", "load_engine", "load_scenario", "load_workload", "run",
    "run_document", "simulate",
)  # fmt: skip
_HOMES = {
    "compare": "commands.api", "run": "commands.api", "simulate": "commands.api", "run_document": "records.document",
    "WindtunnelError": "errors", "Experiment": "running.experiment", "RunRecord": "records.record", "load_engine": "registry",
    "load_workload": "registry", "load_scenario": "scenario.reading", "Store": "records.store",
}  # fmt: skip

core.choose()  # before anything of the core is imported


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'windtunnel' has no attribute {name!r}; its public names: {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"windtunnel.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
