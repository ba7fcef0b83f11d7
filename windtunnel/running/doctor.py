"""What works on this machine and how to install what does not: engines, Java, Chromium, shared memory, limits.

The module looks and starts nothing but ``java -version``.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windtunnel import core
from windtunnel.registry import engine_entry, engine_names, missing_modules
from windtunnel.running.environment import cgroup_cpu_quota, cgroup_memory_limit, cpu_model, usable_cpus
from windtunnel.running.java import LEAST_VERSION, WAY_OUT, find_java, java_version
from windtunnel.spec.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: ``ok``, ``missing`` (with the way out) or ``warning``."""

    name: str
    status: Literal["ok", "missing", "warning"]
    text: str


def examine() -> tuple[Check, ...]:
    """Every check, engines first."""
    engines = tuple(_engine(name) for name in engine_names())
    return (*engines, _core(), _java(), _chromium(), _shared_memory(), _cpus(), _memory())


def _engine(name: str) -> Check:
    entry, absent = engine_entry(name), missing_modules(name)
    if absent:
        return Check(name=f"engine {name}", status="missing", text=f"needs {', '.join(absent)}; run: {entry.install}")
    if not _module_there(entry.dotted.partition(":")[0]):
        return Check(name=f"engine {name}", status="missing", text=f"registered as {entry.dotted}, which is not installed")
    return Check(name=f"engine {name}", status="ok", text="ready")


def _module_there(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _core() -> Check:
    if core.kind() == "compiled":
        return Check(name="simulator", status="ok", text="compiled core")
    why = core.reason()
    if why is None:
        return Check(name="simulator", status="ok", text=f"Python, as {core.ASKED} asks, though a compiled core is there")
    stale = core.BUILT.is_dir()
    return Check(
        name="simulator", status="warning" if stale else "ok", text=f"Python; of the compiled core, twice as fast: {why}"
    )


def _java() -> Check:
    found = find_java()
    if found is None:
        return Check(name="java", status="missing", text=f"no Java found; spark, flink and mapreduce need it: {WAY_OUT}")
    version = java_version(found.home / "bin" / "java")
    if version is None or version < LEAST_VERSION:
        text = f"{found.home} has version {version or 'unknown'}, Spark needs {LEAST_VERSION} or later: {WAY_OUT}"
        return Check(name="java", status="warning", text=text)
    return Check(name="java", status="ok", text=f"version {version} at {found.home}")


def _chromium() -> Check:
    found = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if found is None:
        way_out = "only the browser test of reports needs it: apt-get install chromium chromium-driver"
        return Check(name="chromium", status="missing", text=way_out)
    return Check(name="chromium", status="ok", text=found)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check(
            name="shared memory", status="warning", text="no /dev/shm; bulk and streaming keep blocks in the temporary folder"
        )
    usage = shutil.disk_usage(folder)
    text = f"/dev/shm has {format_bytes(usage.free)} free of {format_bytes(usage.total)}"
    if usage.free < 256 * 2**20:
        return Check(name="shared memory", status="warning", text=f"{text}; blocks beyond it spill to disk, mount it larger")
    return Check(name="shared memory", status="ok", text=text)


def _cpus() -> Check:
    quota = cgroup_cpu_quota()
    limit = "" if quota is None else f"; the control group grants {quota:g}"
    text = f"{usable_cpus()} usable of {os.cpu_count()} ({cpu_model() or 'unknown model'}){limit}"
    few = quota is not None and quota < usable_cpus()
    return Check(name="cpus", status="warning" if few else "ok", text=text + (": give --cpus accordingly" if few else ""))


def _memory() -> Check:
    import psutil

    memory, limit = psutil.virtual_memory(), cgroup_memory_limit()
    text = f"{format_bytes(memory.available)} available of {format_bytes(memory.total)}"
    if limit is not None:
        text += f"; the control group grants {format_bytes(limit)}"
    return Check(name="memory", status="ok", text=f"{text}; limits of runs are kept by {_keeper()}")


def _keeper() -> str:
    from windtunnel.running.limit import make_group

    group = make_group(2**30)
    if group is None:
        return "a watchdog (no control group can be made)"
    group.close()
    return "a control group"
