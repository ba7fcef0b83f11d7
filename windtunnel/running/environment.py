"""Where a run happened: processor, memory, kernel, Python, library versions, load. Captured as plain data, once a process.

The module knows no engine; it names installed distributions by their public names and imports none of them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil

from windtunnel import core

LIBRARIES = (
    "windtunnel", "pyarrow", "numpy", "pandas", "duckdb", "polars", "dask", "distributed", "pyspark", "ray", "daft", "simpy", "psutil",
)  # fmt: skip


def capture() -> dict[str, Any]:
    """The environment as JSON-ready data; unreadable facts are None."""
    return {
        "cpu_model": cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "cpu_quota": cgroup_cpu_quota(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": cgroup_memory_limit(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "core": core.kind(),
        "libraries": library_versions(),
        "load_average": list(os.getloadavg()),
    }


def host_key(environment: dict[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two environments to count as the same host and software."""
    libraries = environment.get("libraries") or {}
    keys = ("cpu_model", "cpus_usable", "memory_bytes", "kernel", "python")
    return (*(environment.get(k) for k in keys), tuple(sorted(libraries.items())))


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that matter for timings."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str | None:
    """The processor's name."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def usable_cpus() -> int:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_cpu_quota() -> float | None:
    """CPUs that the control group grants, None without a limit."""
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    return None if quota == "max" or not period else int(quota) / int(period)


def cgroup_memory_limit() -> int | None:
    """Bytes that the control group grants, None without a limit."""
    text = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if text is None or not text.isdigit():
        return None
    limit = int(text)
    return limit if limit < psutil.virtual_memory().total * 4 else None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
