"""Names of engines and workloads → dotted paths. Third parties add engines through the entry point group ``windtunnel.engines``.

Adding an engine is one file plus one line here. Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Any

from windtunnel.errors import InputError, MissingEngine, nearest


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine lives, the modules it needs, and the command that installs them."""

    dotted: str
    needs: tuple[str, ...] = ()
    install: str = ""


ENGINES: dict[str, EngineEntry] = {
    "bulk": EngineEntry("windtunnel.engines.local.engine:BulkEngine"),
    "streaming": EngineEntry("windtunnel.engines.local.engine:StreamingEngine"),
    "duckdb": EngineEntry("windtunnel.engines.adapters.duckdb:DuckDBEngine", ("duckdb",), "pip install windtunnel"),
    "polars": EngineEntry("windtunnel.engines.adapters.polars:PolarsEngine", ("polars",), "pip install windtunnel"),
    "dask": EngineEntry(
        "windtunnel.engines.adapters.dask:DaskEngine", ("dask", "distributed", "pandas"), "pip install 'windtunnel[dask]'"
    ),
    "spark": EngineEntry(
        "windtunnel.engines.adapters.spark:SparkEngine", ("pyspark", "pandas"), "pip install 'windtunnel[spark]'"
    ),
    "ray": EngineEntry("windtunnel.engines.adapters.ray:RayEngine", ("ray", "pandas"), "pip install 'windtunnel[ray]'"),
    "serving": EngineEntry(
        "windtunnel.engines.serving.engine:EmbeddedServingEngine",
        ("starlette", "uvicorn", "aiohttp"),
        "pip install 'windtunnel[serving]'",
    ),
    "fastapi": EngineEntry(
        "windtunnel.engines.serving.engine:FastApiEngine", ("fastapi", "uvicorn", "aiohttp"), "pip install 'windtunnel[serving]'"
    ),
    "null": EngineEntry("windtunnel.engines.null:NullEngine"),
    "sim:bulk": EngineEntry("windtunnel.sim.engine:SimBulkEngine"),
    "sim:streaming": EngineEntry("windtunnel.sim.engine:SimStreamingEngine"),
    "sim:ray": EngineEntry("windtunnel.sim.engine:SimRayEngine"),
    "sim:spark": EngineEntry("windtunnel.sim.engine:SimSparkEngine"),
    "sim:dask": EngineEntry("windtunnel.sim.engine:SimDaskEngine"),
    "sim:flink": EngineEntry("windtunnel.sim.engine:SimFlinkEngine"),
    "sim:mapreduce": EngineEntry("windtunnel.sim.engine:SimMapReduceEngine"),
    "sim:serving": EngineEntry("windtunnel.sim.serving.engine:SimEmbeddedServingEngine"),
    "sim:ray-serve": EngineEntry("windtunnel.sim.serving.engine:SimRayServeEngine"),
    "sim:fastapi": EngineEntry("windtunnel.sim.serving.engine:SimFastApiEngine"),
}

#: workload name → "module:function" that returns a `Workload`
WORKLOADS: dict[str, str] = {
    **{f"tpch_q{n}": f"windtunnel.workloads.etl.tpch:q{n}" for n in (1, 3, 5, 6, 12, 18)},
    "flights_udf": "windtunnel.workloads.etl.logs:flights_udf",
    "logs_udf": "windtunnel.workloads.etl.logs:logs_udf",
    "skewed_groupby": "windtunnel.workloads.etl.shuffle:skewed_groupby",
    "distributed_sort": "windtunnel.workloads.etl.shuffle:distributed_sort",
    "sessionization": "windtunnel.workloads.etl.shuffle:sessionization",
    "images": "windtunnel.workloads.inference.images:images",
}


def _third_party() -> dict[str, EngineEntry]:
    points = importlib.metadata.entry_points(group="windtunnel.engines")
    return {p.name: EngineEntry(p.value) for p in points}


def engine_names() -> tuple[str, ...]:
    """Every registered engine."""
    return (*ENGINES, *_third_party())


def engine_entry(name: str) -> EngineEntry:
    """The entry of an engine; InputError with the nearest name when unknown."""
    entry = ENGINES.get(name) or _third_party().get(name)
    if entry is None:
        raise InputError(f"unknown engine {name!r}{nearest(name, engine_names())}")
    return entry


def missing_modules(name: str) -> tuple[str, ...]:
    """Modules the engine needs and this environment lacks (found without importing them)."""
    return tuple(m for m in engine_entry(name).needs if importlib.util.find_spec(m) is None)


def load_engine(name: str) -> Any:
    """An instance of the engine; MissingEngine with the install command when a library is absent."""
    entry = engine_entry(name)
    if absent := missing_modules(name):
        raise MissingEngine(f"engine {name!r} needs {', '.join(absent)}, not installed here; run: {entry.install}")
    module, _, attribute = entry.dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def load_workload(name: str, **parameters: Any) -> Any:
    """The workload of that name; ``parameters`` (scale, partitions, seed ...) go to its function."""
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name!r}{nearest(name, WORKLOADS)}")
    module, _, attribute = WORKLOADS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(**parameters)
