"""What of a Spark application's configuration decides how its tasks are made and where they run; all else is not kept.

Properties are text that a person wrote: only those named here are read, and only values of a known form are kept, so that no path, host
or secret comes along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from windtunnel.errors import InputError
from windtunnel.logs.spark_events import ResourceProfileAdded
from windtunnel.spec.units import parse_bytes

#: properties that are kept, from org.apache.spark.internal.config and SQLConf
KEPT = (
    "spark.executor.cores", "spark.executor.instances", "spark.executor.memory", "spark.executor.memoryOverhead", "spark.task.cpus",
    "spark.cores.max", "spark.default.parallelism", "spark.sql.shuffle.partitions", "spark.sql.adaptive.enabled",
    "spark.sql.adaptive.coalescePartitions.enabled", "spark.sql.adaptive.advisoryPartitionSizeInBytes",
    "spark.sql.adaptive.skewJoin.enabled", "spark.sql.files.maxPartitionBytes", "spark.sql.autoBroadcastJoinThreshold",
    "spark.dynamicAllocation.enabled", "spark.dynamicAllocation.minExecutors", "spark.dynamicAllocation.maxExecutors",
    "spark.dynamicAllocation.initialExecutors", "spark.dynamicAllocation.executorIdleTimeout", "spark.shuffle.service.enabled",
    "spark.speculation", "spark.speculation.quantile", "spark.speculation.multiplier", "spark.scheduler.mode", "spark.locality.wait",
    "spark.memory.fraction", "spark.memory.offHeap.enabled", "spark.memory.offHeap.size", "spark.io.compression.codec",
    "spark.python.worker.reuse", "spark.sql.execution.arrow.pyspark.enabled", "spark.sql.execution.arrow.maxRecordsPerBatch",
    "spark.rapids.sql.enabled", "spark.task.resource.gpu.amount", "spark.executor.resource.gpu.amount", "spark.driver.memory",
    "spark.driver.cores",
)  # fmt: skip
_PLAIN = re.compile(r"^[A-Za-z0-9.\-+]{1,32}$")
#: local, yarn, k8s, spark, mesos: the kind of cluster without its address
_MASTER = re.compile(r"^(local(?:\[[0-9*]+(?:, ?[0-9]+)?\])?|yarn|k8s|spark|mesos|local-cluster)")
#: what Spark takes where nothing is said (docs/configuration, 4.x)
_DEFAULT_MEMORY = 1 << 30


def kept_settings(properties: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The properties that are kept, by name."""
    found = [(n, v) for n in KEPT if isinstance(v := properties.get(n), str) and _PLAIN.match(v)]
    master = properties.get("spark.master")
    if isinstance(master, str) and (match := _MASTER.match(master)):
        found.append(("spark.master", match.group(1)))
    return tuple(sorted(found))


def task_needs(properties: Mapping[str, Any], profile: ResourceProfileAdded | None) -> tuple[float, float]:
    """Cores and devices of a task: of its resource profile, else of the configuration."""
    if profile is not None and profile.task:
        cpus, gpus = profile.task.get("cpus"), profile.task.get("gpu")
        return _within(cpus.amount if cpus else 1.0, 1.0), _within(gpus.amount if gpus else 0.0, 0.0)
    cpus_text, gpus_text = properties.get("spark.task.cpus"), properties.get("spark.task.resource.gpu.amount")
    return _within(_float(cpus_text, 1.0), 1.0), _within(_float(gpus_text, 0.0), 0.0)


def executor_memory(properties: Mapping[str, Any]) -> int | None:
    """The heap of an executor, None where the log does not tell."""
    text = properties.get("spark.executor.memory")
    if not properties:
        return None
    if not isinstance(text, str):
        return _DEFAULT_MEMORY
    return spark_bytes(text)


def spark_bytes(text: str) -> int | None:
    """A size as Spark writes it (``20g``, ``512m``, ``1024`` mebibytes); None for anything else."""
    match = re.fullmatch(r"(\d{1,12})([kmgtp]?)b?", text.strip().lower())
    if match is None:
        return None
    unit = {"k": "KiB", "": "MiB", "m": "MiB", "g": "GiB", "t": "TiB", "p": "PiB"}[match.group(2)]
    try:
        return int(parse_bytes(f"{match.group(1)}{unit}"))
    except InputError:
        return None


def _float(text: object, default: float) -> float:
    try:
        return float(text) if isinstance(text, (str, int, float)) else default
    except ValueError:
        return default


def _within(value: float, least: float) -> float:
    """A number that a scheduler may count with."""
    return value if math.isfinite(value) and 0 < value <= 1e6 else least
