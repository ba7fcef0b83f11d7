"""One experiment at a time in a results folder: a file that says who writes there and since when, locked while that process lives.

The operating system lets go of the lock when its holder ends, however it ends, so nothing is ever left locked. Readers need no lock:
a record that is there is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from windtunnel.errors import InputError
from windtunnel.spec.strict import one_line, shorten

NAME = ".in-use"


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises InputError with who holds it and since when; OSError where nobody may write."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _who().encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever opened it meanwhile sees that its file is gone, and tries again
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file at ``path``, which nobody else has locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.read(descriptor, 4096)
            os.close(descriptor)
            raise InputError(f"{path.parent} is in use {_holder(told)}; wait for its end, or use another folder") from None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_there(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _who() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return json.dumps(
        {"process": os.getpid(), "host": platform.node(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "command": command}
    )


def _holder(told: bytes) -> str:
    """Of the file's text, which is for people and may be anything."""
    try:
        who = json.loads(told)
        place = f"process {int(who['process'])} on {one_line(str(who['host']))}"
        return f"by {place} since {one_line(str(who['since']))} ({shorten(one_line(str(who['command'])))})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "by another process"
