"""A UDF's process that dies before it connects does not leave its query waiting for ever. No Daft is needed for that."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Listener

import psutil
import pytest

from windtunnel.engines.adapters.daft_workers import watched


def accepted(listener: Listener) -> str:
    """How the wait for a process ends: "waits" after ten seconds."""
    ending = ["waits"]

    def accept() -> None:
        try:
            listener.accept()
            ending[0] = "connected"
        except (OSError, EOFError) as error:
            ending[0] = type(error).__name__

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    thread.join(10)
    return ending[0]


@pytest.mark.linux
def test_a_process_that_dies_before_it_connects_ends_the_wait() -> None:
    path = tempfile.mktemp()  # as Daft names it
    with Listener(path, authkey=b"k") as listener, watched():
        process = subprocess.Popen([sys.executable, "-c", "pass"])
        try:
            assert accepted(listener) not in ("waits", "connected")
        finally:
            process.kill()
            process.wait()


@pytest.mark.linux
def test_one_that_connects_is_left_alone_whoever_else_died_before() -> None:
    other = subprocess.Popen([sys.executable, "-c", "pass"])
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    path = tempfile.mktemp()  # as Daft names it
    code = (
        f"import time; time.sleep(2); from multiprocessing.connection import Client; c = Client({path!r}, authkey=b'k'); c.recv()"
    )
    with Listener(path, authkey=b"k") as listener, watched():
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        try:
            assert accepted(listener) == "connected"
        finally:
            process.kill()
            process.wait()
            other.wait()
