"""Daft waits for ever for a UDF's process that dies before it connects: whoever watches rings at its socket, and the query fails.

Daft 0.7 (``daft/execution/udf.py``, `UdfHandle`) starts the process and then accepts a connection without a time limit and without a
look at the process. A connection that says nothing ends that wait in an error; once the process has connected, a ring is not heard.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator

import psutil

_LOOK_S = 0.5


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch this process's UDF processes while a query runs."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over,), name="udf-workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(over: threading.Event) -> None:
    """Ring for each process that died meanwhile and that nobody waited for at two looks: Daft waits for those that it ends itself."""
    others, before = _dead(), set[int]()
    while not over.wait(_LOOK_S):
        dead = _dead() - others
        if dead & before:
            for path in _sockets():
                _ring(path)
            over.wait(_LOOK_S)
        before = dead


def _dead() -> set[int]:
    """Processes below this one that ended, and whose end nobody asked for yet."""
    found = set()
    for process in psutil.Process(os.getpid()).children():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def _sockets() -> set[str]:
    """Where this process lets its UDF processes connect: temporary files that are sockets."""
    with contextlib.suppress(psutil.Error, OSError):
        paths = {str(c.laddr) for c in psutil.Process(os.getpid()).net_connections(kind="unix")}
        return {
            path for path in paths if os.path.dirname(path) == tempfile.gettempdir() and os.path.basename(path).startswith("tmp")
        }
    return set()


def _ring(path: str) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
