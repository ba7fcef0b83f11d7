"""Where a run happened: processor, memory, kernel, Python, library versions, load. Captured as plain data, once a process.

The module knows no engine; it names installed distributions by their public names and imports none of them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
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


#: what must be equal for two environments to count as the same host
HOST_FACTS = ("system", "machine", "cpu_model", "cpus_usable", "memory_bytes", "kernel", "python")


def host_facts(environment: Mapping[str, Any]) -> dict[str, str | None]:
    """What must be equal for two environments to count as the same host and software, by name; None: it was not told."""
    libraries = environment.get("libraries") or {}
    told = ((name, environment.get(name)) for name in HOST_FACTS)
    return {**{n: None if v is None else str(v) for n, v in told}, **{f"libraries.{n}": v for n, v in sorted(libraries.items())}}


def host_key(environment: Mapping[str, Any]) -> tuple[tuple[str, str | None], ...]:
    """The same as one value."""
    return tuple(host_facts(environment).items())


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
    """The processor's name; on ARM, where Linux gives none, the numbers of its maker and part."""
    told = dict(line.partition(":")[::2] for line in (_read("/proc/cpuinfo") or "").splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in told.items()}
    part = " ".join(facts[n] for n in ("CPU implementer", "CPU part") if n in facts)
    return facts.get("model name") or (f"ARM {part}" if part else platform.processor() or None)


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
