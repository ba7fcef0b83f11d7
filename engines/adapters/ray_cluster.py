"""A Ray cluster for both Ray adapters: started here bound to loopback and with what it says muted, or joined; ended without a trace.

The module knows how Ray is set up, not what runs on it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from windtunnel.errors import InputError, RunFailed
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_bytes

_LONGEST_FOLDER = 40  # characters: paths of sockets below it must stay under 107
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_enable_metrics_collection": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "disabled",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # it tells every execution, and every failure twice
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every port is bound to loopback
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}  # fmt: skip
#: A worker process takes seconds to import what it needs; stock Ray ends those that idle for a second beyond the number of CPUs,
#: and reads a single file's footer on 32 actors.
_TUNED = {
    "RAY_idle_worker_killing_time_threshold_ms": "600000", "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
}  # fmt: skip
#: what Ray does for both adapters
FEATURES = {
    "spill": "blocks that do not fit in the object store go to disk",
    "devices": "num_gpus and custom resources of tasks and of pool actors",
    "remote": "host:port or ray://host:port of a running cluster whose workers see the same files and packages",
}
STORE_FRACTION = 0.3  # Ray's own default share of memory for its object store
_WORKERS_A_CPU = 4  # processes that tuned Ray keeps: tasks, shuffle actors and pool actors of one CPU


def start(cluster: ClusterSpec, options: Mapping[str, Any], scratch: Path, *, tuned: bool) -> None:
    """Start a cluster within the budget, or join the one at ``cluster.address``."""
    os.environ.update(QUIET)
    if tuned:
        os.environ.update(_TUNED, RAY_num_workers_soft_limit=str(_WORKERS_A_CPU * cluster.cpus))
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is not None:
        ray.init(address=cluster.address, **quiet)
        return
    if len(str(scratch)) > _LONGEST_FOLDER:
        raise InputError(f"Ray's sockets need a short path, and {scratch} is not: set TMPDIR to a folder such as /tmp")
    store = options["object_store"]
    ray.init(
        address="local", num_cpus=options.get("num_cpus") or cluster.cpus, num_gpus=cluster.gpus or None,
        include_dashboard=False, _temp_dir=str(scratch),
        object_store_memory=parse_bytes(store) if store else int(cluster.memory_bytes * STORE_FRACTION),
        _node_ip_address="127.0.0.1", **quiet,
    )  # fmt: skip


def cpus() -> int:
    """CPUs of the cluster that was joined."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def warm(cpus: int, *modules: str) -> None:
    """Have as many worker processes up as there are CPUs, with the modules that every task imports."""
    import ray

    @ray.remote(num_cpus=1)
    def up() -> None:
        for module in modules:
            importlib.import_module(module)
        time.sleep(0.2)

    ray.get([up.remote() for _ in range(cpus)])


def end(folder: Path) -> None:
    """Leave the cluster, and end one that was started here in ``folder``."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    end_processes(str(folder))


def end_processes(folder: str) -> None:
    """Wait for what a cluster that was started here leaves behind, and end what stays."""

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and any(folder in part for part in process.cmdline()):
                    found.append(process)
        return found

    deadline = time.monotonic() + 3.0
    while (processes := left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


@contextlib.contextmanager
def opening(close: Callable[[], None], address: str | None) -> Iterator[None]:
    """A session starts inside: where it cannot, it is closed and that is told in one sentence."""
    try:
        yield
    except BaseException as error:
        close()
        if isinstance(error, Exception) and not isinstance(error, InputError):
            where = f"at {address}" if address else "here"
            raise RunFailed(f"Ray did not start {where}: {type(error).__name__}: {str(error).strip()[:300]}") from error
        raise


def version() -> str:
    """Ray's."""
    import ray

    return str(ray.__version__)
