"""Worker processes of the embedded world: how one is started, told something, and ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socketpair

from windtunnel.model import Launch


@dataclass(slots=True)
class Process:
    """A worker process and the model's name for it in this job."""

    number: int
    popen: subprocess.Popen[bytes]
    pipe: Connection
    up: bool = False
    loaded: bool = True  # False while an actor loads its state
    worker: int = -1  # the model's id; -1 = not in use
    stage: int = -1
    tasks: dict[int, tuple[Launch, float]] = field(default_factory=dict)
    next_start: float = 0.0


def begin(number: int, memory: Path, spill: Path, limit: int) -> Process:
    """A new process, which will say that it is up; ``limit``: bytes of shared memory that all of them may use."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    arguments = [str(number), str(theirs.fileno()), str(memory), str(spill), str(limit)]
    popen = subprocess.Popen(
        [sys.executable, "-m", "windtunnel.engines.local.worker", *arguments],
        pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno() if _has_stderr() else None,
        start_new_session=True, env=environment,
    )  # fmt: skip
    theirs.close()
    return Process(number, popen, Connection(ours.detach()))


def tell(process: Process, data: bytes) -> None:
    """Send to a worker; one that has just died hears nothing, and the selector tells of its death."""
    with contextlib.suppress(OSError):
        process.pipe.send_bytes(data)


def reap(popen: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that was told to end; it is killed after five seconds."""
    try:
        popen.wait(timeout=5)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


def _has_stderr() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() >= 0
    except (OSError, ValueError):
        return False
