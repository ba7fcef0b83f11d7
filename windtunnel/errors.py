"""Errors a user can meet, each a sentence: the value, the rule, the way out.

    WindtunnelError                exit code
    ├── InputError                 2   bad usage, scenario, unit, file
    │   ├── MissingEngine          2   a known engine whose library is absent
    │   └── BadRecord              5   a file of results that no run can have written
    ├── Unsupported                5   an engine declares that it cannot run an operator
    ├── NoRoom                     5   a disk, quota or limit of the machine has no room left
    ├── RunFailed                  5   a kernel, worker or engine failed while running
    │   ├── OutOfMemory            5
    │   ├── RunTimeout             5
    │   └── InvalidMeasurement     7   it ran, but was not measured well enough to count
    ├── WrongResult                4   output differs from the oracle
    └── NotComparable              6   hosts, versions, data or options differ

The module owns exit codes and knows nothing of what raised.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes; 1 is left to crashes."""

    OK = 0
    BAD_INPUT = 2
    REGRESSION = 3
    WRONG_RESULT = 4
    INCOMPLETE = 5
    NOT_COMPARABLE = 6
    INVALID_MEASUREMENT = 7
    NOT_REPRODUCED = 8


class WindtunnelError(Exception):
    """Base of all expected errors; ``str(error)`` is one sentence for the user."""

    exit_code = ExitCode.INCOMPLETE
    status = "failed"


class InputError(WindtunnelError):
    """The user's input breaks a rule."""

    exit_code = ExitCode.BAD_INPUT


class MissingEngine(InputError):
    """A known engine whose library (or Java) is absent; says how to install it."""

    status = "unsupported"


class BadRecord(InputError):
    """A record that breaks the declared schema or its rules; what needed it is incomplete."""

    exit_code = ExitCode.INCOMPLETE


class Unsupported(WindtunnelError):
    """The engine says before any timing that it cannot run this workload."""

    status = "unsupported"


class NoRoom(WindtunnelError):
    """A disk is full, or a quota or limit (``ulimit``) of this process is reached; what was finished is kept."""


class RunFailed(WindtunnelError):
    """A run ended without a result; ``operator`` and ``partition`` name the place when known."""

    def __init__(self, message: str, *, operator: str | None = None, partition: int | None = None) -> None:
        super().__init__(message)
        self.operator = operator
        self.partition = partition


class OutOfMemory(RunFailed):
    """The run passed its memory limit."""

    status = "out_of_memory"


class RunTimeout(RunFailed):
    """The run passed its time limit."""

    status = "timeout"


class InvalidMeasurement(RunFailed):
    """The run ended, but the way it was measured cannot be trusted; says why."""

    exit_code = ExitCode.INVALID_MEASUREMENT
    status = "invalid"


class WrongResult(WindtunnelError):
    """The output does not match the oracle."""

    exit_code = ExitCode.WRONG_RESULT
    status = "wrong_result"


class NotComparable(WindtunnelError):
    """Two sets of records differ in something that must be equal."""

    exit_code = ExitCode.NOT_COMPARABLE


#: what the operating system has no more of, and the way out
_NO_ROOM = {
    errno.ENOSPC: "free some room, or use another place: --results for records, WINDTUNNEL_DATA for data, TMPDIR for scratch files",
    errno.EDQUOT: "free some room, or use another place: --results for records, WINDTUNNEL_DATA for data, TMPDIR for scratch files",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "the machine has no more open files to give",
    errno.ENOMEM: "the machine has no memory left to give",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
}


def refused(error: OSError, path: os.PathLike[str] | None = None) -> WindtunnelError:
    """What the operating system refused, as a sentence with the file and the way out: the one place where that is said.

    ``path``: what was in use, for errors that name no file.
    """
    name = os.fsdecode(error.filename or path or "")
    what = (error.strerror or str(error) or type(error).__name__).strip().rstrip(".")
    if error.errno in _NO_ROOM:
        return NoRoom(f"{f'{name!r}: ' if name else ''}{what}; {_NO_ROOM[error.errno]}; what was finished is kept")
    if not name and isinstance(error, FileNotFoundError):
        gone = error.errno is not None and not _folder_exists()
        return InputError("the current folder is gone; change to one that exists" if gone else what)
    if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)):
        return InputError(f"{name!r} cannot be used: {what}; is it what you mean, and may you read and write there?")
    if error.errno in (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV):
        return InputError(f"{name!r} cannot be used: {what}; use another place")
    return WindtunnelError(f"{f'{name!r}: ' if name else ''}{what}")


def _folder_exists() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def sentences(path: os.PathLike[str] | None = None) -> Iterator[None]:
    """What the operating system refuses inside the block becomes one of our errors; ``path``: what the block uses."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refused(error, path) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'spark'? Known: bulk, spark`` for an unknown ``name``."""
    names = sorted(known)
    return f"{closest(name, names) or ';'} Known: {', '.join(names)}"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'spark'?``, empty when nothing known is close to ``name``."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
