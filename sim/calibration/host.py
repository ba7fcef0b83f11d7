"""What the machine itself does: micro-measurements of memory, disk, loopback, serialization, processes, without any engine.

Each is repeated and told as a median with quartiles. Rates are of the second and later touches, as in a running job; the disk is
read past the page cache. What sessions, tasks and the JVM bridge cost is measured through engines (`windtunnel.sim.calibration.crossings`).
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.sim.costs.measured import HostCost

SIZE = 64 << 20
ROWS = 200_000
REPEATS = 7


def host_costs(folder: Path | None = None) -> tuple[HostCost, ...]:
    """All of them; files lie in ``folder`` (default the temporary folder) for a moment."""
    return (*_memory(), *_disk(folder), *_loopback(), *_serialization(), *_processes())


def cost(name: str, at: str, unit: str, values: list[float]) -> HostCost:
    """The median of some values with their quartiles."""
    low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return HostCost(name=name, at=at, unit=unit, value=middle, low=low, high=high, samples=len(values))


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Durations after one warm-up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(max(time.perf_counter() - start, 1e-9))
    return found


def _rates(size: float, work: Callable[[], object]) -> list[float]:
    return [size / s for s in seconds(work)]


def _memory() -> Iterator[HostCost]:
    source = np.ones(SIZE, dtype=np.uint8)
    target = np.empty_like(source)
    yield cost("memory copy", "one thread, 64 MiB", "bytes/s", _rates(SIZE, lambda: np.copyto(target, source)))


def _disk(folder: Path | None) -> Iterator[HostCost]:
    """Sequential, through the file system: written and flushed, then read with its pages dropped."""
    data = np.random.default_rng(7).bytes(SIZE)  # nothing that a file system could compress
    with tempfile.NamedTemporaryFile(dir=folder, prefix="wt-disk-") as file:
        number = file.fileno()

        def write() -> None:
            os.pwrite(number, data, 0)
            os.fsync(number)

        def read() -> None:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(number, SIZE, 0)

        where = f"64 MiB in {Path(file.name).parent}"
        yield cost("disk write", f"{where}, flushed", "bytes/s", _rates(SIZE, write))
        yield cost("disk read", f"{where}, pages dropped", "bytes/s", _rates(SIZE, read))


def _loopback() -> Iterator[HostCost]:
    """TCP to a thread that answers a byte when it has read all; and the round trip of one byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        with socket.create_connection(server.getsockname()) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def send(size: int) -> None:
                link.sendall(size.to_bytes(8, "little"))
                link.sendall(bytes(size))
                link.recv(1)

            yield cost("loopback", "one TCP stream, 64 MiB", "bytes/s", _rates(SIZE, lambda: send(SIZE)))
            yield cost("loopback round trip", "one byte", "s", seconds(lambda: send(1), 200))


def _serve(server: socket.socket) -> None:
    link, _ = server.accept()
    with link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := link.recv(8, socket.MSG_WAITALL):
            left = int.from_bytes(head, "little")
            while left:
                left -= len(link.recv(min(left, 1 << 20)))
            link.sendall(b".")


def columns() -> dict[str, pa.Array]:
    """`ROWS` values of each kind of column."""
    dice = np.random.default_rng(7)
    numbers = dice.integers(0, 1 << 40, ROWS)
    return {
        "int64": pa.array(numbers),
        "double": pa.array(dice.random(ROWS)),
        "text of 12 bytes": pa.array([f"{n % 10**12:012d}" for n in numbers.tolist()]),
        "list of 4 doubles": pa.array(dice.random((ROWS, 4)).tolist()),
    }


def _serialization() -> Iterator[HostCost]:
    """To bytes and back: Python rows by pickle, a column by Arrow IPC."""
    for kind, values in columns().items():
        rows = values.to_pylist()
        batch = pa.record_batch({"v": values})
        size = batch.get_total_buffer_size()
        pickled, sent = partial(_pickled, rows), partial(_sent, batch)
        yield cost("pickle there and back", f"rows of {kind}", "s/row", [s / ROWS for s in seconds(pickled, 3)])
        yield cost("Arrow IPC there and back", kind, "s/row", [s / ROWS for s in seconds(sent)])
        yield cost("Arrow IPC there and back", f"{kind}, by bytes", "bytes/s", _rates(size, sent))


def _pickled(rows: list[object]) -> object:
    return pickle.loads(pickle.dumps(rows, protocol=5))


def _sent(batch: pa.RecordBatch) -> object:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def _processes() -> Iterator[HostCost]:
    for what, code in (("bare Python", "pass"), ("Python with pyarrow", "import pyarrow")):
        command = [sys.executable, "-c", code]
        yield cost("process start", what, "s", seconds(partial(subprocess.run, command, check=True), 5))
