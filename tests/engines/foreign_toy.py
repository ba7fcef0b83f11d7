"""A session for an interpreter of its own: it answers, fails, prints, sleeps or ends, as its option says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.api import Capabilities
from windtunnel.engines.foreign.session import HostedSession
from windtunnel.errors import Unsupported
from windtunnel.records.record import Recorder
from windtunnel.running.interpreters import Interpreter
from windtunnel.spec.cluster import ClusterSpec


class Toy:
    """What the other process runs."""

    def __init__(self, cluster: ClusterSpec, options: dict[str, Any]) -> None:
        self._cluster, self._how = cluster, options["how"]

    def prepare(self, workload: Any) -> None:
        self._workload = workload
        if self._how == "unsupported":
            raise Unsupported("toy cannot")

    def run(self, workload: Any, recorder: Recorder, output: Path) -> Any:
        print("noise on standard output")
        if self._how == "sleep":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (output / "pids").write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        if self._how == "exit":
            os._exit(3)
        if self._how == "raise":
            raise ValueError("a mistake of the engine")
        recorder.count("rows", 2)
        recorder.span("query", "last", 0.0, 1.0, rows=2)
        return type(
            "Outcome",
            (),
            {"table": pa.table({"name": [workload.workload.name] * 2, "pid": [os.getpid()] * 2}), "rows": 2, "seconds": None},
        )

    def close(self) -> None:
        """Nothing is open."""


def opened(folder: Path, how: str) -> HostedSession:
    """A session in an interpreter that is this one under another name."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    cluster = ClusterSpec.here(cpus=1, memory_bytes=2**30)
    return HostedSession(Interpreter("toy", folder), "tests.engines.foreign_toy:Toy", cluster, {"how": how}, Capabilities())
