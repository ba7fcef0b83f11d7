"""The shared-memory block store: each block is an Arrow IPC stream in a file, written once by a worker and mapped by readers.

Files live in a session folder on the machine's memory file system (``/dev/shm``; a temporary folder where there is none, as on
macOS). The byte budget is shared by all processes through a small mapped ledger: each writer adds what it wrote to its own slot,
the driver what it freed. A block that would pass the budget goes to the spill folder on disk instead.

Nothing is left behind: the driver removes the folder when it closes; when the driver dies, its workers do; a folder whose
owner is gone (all processes killed at once) is removed by the next session on the machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.errors import RunFailed

PREFIX = "windtunnel-"
_SLOTS = 256


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """A written block: file name, where, and what it holds."""

    path: str
    partition: int
    rows: int
    bytes: int
    on_disk: bool


def memory_folder() -> Path:
    """Where shared-memory blocks live on this machine."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def create_session(spill_root: Path | None = None) -> tuple[Path, Path]:
    """A new (memory folder, spill folder), named after this process; first removes those of dead owners."""
    spill_root = spill_root or Path(tempfile.gettempdir())
    for root in {memory_folder(), spill_root}:
        sweep(root)
    memory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=memory_folder()))
    spill = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-spill-", dir=spill_root))
    return memory, spill


def sweep(root: Path) -> None:
    """Remove session folders whose owner no longer runs."""
    for folder in root.glob(f"{PREFIX}[0-9]*-*"):
        owner = folder.name[len(PREFIX) :].split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Usage:
    """Bytes in shared memory, summed over all processes' slots; slot 0 is the driver's and counts what was freed."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        path = folder / "usage"
        if create:
            path.write_bytes(bytes(8 * _SLOTS))
        self._slots = np.memmap(path, dtype=np.int64, mode="r+", shape=(_SLOTS,))

    def add(self, slot: int, count: int) -> None:
        """Add ``count`` bytes (negative: freed) to a process's slot."""
        self._slots[slot % _SLOTS] += count

    @property
    def bytes(self) -> int:
        """Bytes in shared memory now."""
        return int(self._slots.sum())


class BlockWriter:
    """A worker's end: writes blocks named ``<worker>-<n>``, in memory while the budget lasts, on disk beyond it."""

    def __init__(self, memory: Path, spill: Path, limit_bytes: int, slot: int) -> None:
        self._memory, self._spill, self._limit, self._slot = str(memory), str(spill), limit_bytes, slot
        self._usage = Usage(memory)
        self._count = 0
        self._counting = threading.Lock()

    def write(self, table: pa.Table, partition: int) -> BlockInfo:
        """Write one block. Raises RunFailed when the disk is full."""
        on_disk = self._usage.bytes + table.nbytes > self._limit
        with self._counting:
            name = f"{self._slot}-{self._count}"
            self._count += 1
        if not on_disk:
            try:
                return self._in_memory(table, partition, os.path.join(self._memory, name))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise _full(self._memory, error) from error
        try:
            path = os.path.join(self._spill, name)
            return BlockInfo(path, partition, table.num_rows, _write(table, path), True)
        except OSError as error:
            raise _full(self._spill, error) from error

    def _in_memory(self, table: pa.Table, partition: int, path: str) -> BlockInfo:
        size = _write(table, path)
        self._usage.add(self._slot, size)
        return BlockInfo(path, partition, table.num_rows, size, False)


def _write(table: pa.Table, path: str) -> int:
    """Bytes written; a file that could not be written whole is removed."""
    try:
        with pa.OSFile(path, "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
            return int(file.tell())
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _full(folder: str, error: OSError) -> RunFailed:
    if error.errno == errno.ENOSPC:
        return RunFailed(f"no space left for spilled blocks in {folder}; free some or set the option spill_dir")
    return RunFailed(f"a block could not be written to {folder}: {error.strerror or error}")


def read_block(path: str) -> pa.Table:
    """Map a block; its buffers point into the mapping and stay valid after the file is removed."""
    with pa.memory_map(path, "r") as file:
        return pa.ipc.open_stream(file).read_all()
