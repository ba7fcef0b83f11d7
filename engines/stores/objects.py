"""An S3 store for a run: moto's server on loopback, in memory, behind a relay that makes it as far away as asked.

moto answers by S3's rules (conditional puts among them) and is no fast server: beyond some 200 requests a second its one interpreter is
what is measured. The module starts and ends both processes; nothing is left behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windtunnel.engines.stores.session import Serving
from windtunnel.errors import RunFailed

BUCKET, REGION, KEY, SECRET = "windtunnel", "us-east-1", "windtunnel", "windtunnel"
READY_S = 180.0


def serve(folder: Path, relay: Mapping[str, Any]) -> Serving:
    """Start both; the address has ``uri``, ``endpoint`` (the relay's), ``key``, ``secret``, ``region`` and ``log``."""
    port = free_port()
    log = (folder / "moto.log").open("wb")
    processes: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    ]
    try:
        _until_up(port, processes[0])
        _make_bucket(port)
        told = {**relay, "upstream": port, "log": str(folder / "requests.jsonl")}
        front = subprocess.Popen(
            [sys.executable, "-m", "windtunnel.engines.stores.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        processes.insert(0, front)
        assert front.stdin is not None and front.stdout is not None
        front.stdin.write(json.dumps(told) + "\n")
        front.stdin.flush()
        line = front.stdout.readline()
        if not line:
            raise RunFailed("the relay before the object store did not start")
    except BaseException:
        _end(processes, log)
        raise
    address = {
        "uri": f"s3://{BUCKET}", "endpoint": f"http://127.0.0.1:{json.loads(line)['port']}", "key": KEY, "secret": SECRET, "region": REGION,
        "log": told["log"],
    }  # fmt: skip
    return Serving(address=address, stop=lambda: _end(processes, log))


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        if process.poll() is not None:
            raise RunFailed(f"the object store ended with code {process.returncode}; moto needs: pip install 'windtunnel[s3]'")
        time.sleep(0.05)
    raise RunFailed(f"the object store was not up within {READY_S:g} s")


def _make_bucket(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    with contextlib.closing(connection):
        connection.request("PUT", f"/{BUCKET}", headers={"Host": f"127.0.0.1:{port}"})
        if (status := connection.getresponse().status) != 200:
            raise RunFailed(f"the object store refused the bucket: {status}")


def _end(processes: list[Any], log: Any) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    log.close()
