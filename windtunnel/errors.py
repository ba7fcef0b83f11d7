"""Errors a user can meet, each a sentence: the value, the rule, the way out.

    WindtunnelError                exit code
    ├── InputError                 2   bad usage, scenario, unit, file
    │   └── MissingEngine          2   a known engine whose library is absent
    ├── Unsupported                5   an engine declares that it cannot run an operator
    ├── RunFailed                  5   a kernel, worker or engine failed while running
    │   ├── OutOfMemory            5
    │   ├── RunTimeout             5
    │   └── InvalidMeasurement     7   it ran, but was not measured well enough to count
    ├── WrongResult                4   output differs from the oracle
    └── NotComparable              6   hosts, versions, data or options differ

The module owns exit codes and knows nothing of what raised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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


class Unsupported(WindtunnelError):
    """The engine says before any timing that it cannot run this workload."""

    status = "unsupported"


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


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'spark'? Known: bulk, spark`` for an unknown ``name``."""
    names = sorted(known)
    return f"{closest(name, names) or ';'} Known: {', '.join(names)}"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'spark'?``, empty when nothing known is close to ``name``."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
