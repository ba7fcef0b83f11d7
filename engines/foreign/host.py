"""The engine's end of an interpreter of its own: ``python -m windtunnel.engines.foreign.host FOLDER``.

Reads requests as lines of JSON on standard input (``open``, ``prepare``, ``run``, ``close``), runs an ordinary session with them and
answers with lines of JSON; tables go into FOLDER as Arrow files. Whatever the engine prints goes to standard error. When standard
input ends, the front is gone: the folder is removed, and this process ends with all it started, in the middle of a run too.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.failures import unwrap
from windtunnel.engines.foreign.codec import decode
from windtunnel.errors import RunFailed, WindtunnelError
from windtunnel.records.record import Recorder


class Host:
    """The one session of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: Any = None
        self._workload: Any = None

    def open(self, session: str, cluster: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Build the session."""
        module, _, name = session.partition(":")
        self._session = getattr(importlib.import_module(module), name)(decode(cluster), options)
        return {}

    def prepare(self, workload: Any) -> dict[str, Any]:
        """Plan."""
        self._workload = decode(workload)
        self._session.prepare(self._workload)
        return {}

    def run(self, output: str) -> dict[str, Any]:
        """Execute; the table becomes a file."""
        recorder = Recorder()
        outcome = self._session.run(self._workload, recorder, Path(output))
        if outcome.seconds is not None:  # all else is untimed
            recorder.counters |= outcome.account()
        told = {"spans": recorder.spans, "counters": recorder.counters, "rows": outcome.rows, "seconds": outcome.seconds}
        if outcome.table is None:
            return {**told, "table": None}
        path = self._folder / f"{uuid.uuid4().hex}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, outcome.table.schema) as writer:
            writer.write_table(outcome.table)
        return {**told, "table": str(path)}

    def close(self) -> dict[str, Any]:
        """Close the session."""
        if self._session is not None:
            self._session.close()
            self._session = None
        return {}


def answer(host: Host, request: dict[str, Any]) -> dict[str, Any]:
    """What a request brings, an expected failure as data."""
    try:
        found: dict[str, Any] = getattr(host, request.pop("do"))(**request)
        return found
    except WindtunnelError as error:
        place = {"operator": error.operator, "partition": error.partition} if isinstance(error, RunFailed) else {}
        return {"error": type(error).__name__, "text": str(error), **place}
    except Exception as error:
        failed = unwrap(type(host).__name__.lower(), error)
        return {"error": type(failed).__name__, "text": str(failed), "operator": failed.operator, "partition": failed.partition}


def _receive(requests: queue.Queue[str], folder: Path) -> None:
    for line in sys.stdin:
        requests.put(line)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(argv: list[str]) -> None:
    """Serve until the front closes the pipe."""
    folder = Path(argv[0])
    requests: queue.Queue[str] = queue.Queue()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        threading.Thread(target=_receive, args=(requests, folder), name="requests", daemon=True).start()
        host = Host(folder)
        while True:
            answers.write(json.dumps(answer(host, json.loads(requests.get()))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
