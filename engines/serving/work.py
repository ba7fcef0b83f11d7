"""What a deployment does for real: it spins for so much CPU time or sleeps (declared by cost), or calls a function of the user's.

The module owns handlers, the same for every engine. It knows no server, queue or process.

A handler takes the bodies of a batch and returns as many answers. For a batch of one it may return an iterator instead: the answer
is then sent piece by piece.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from windtunnel.engines.models.streams import SERVICE, Factors
from windtunnel.errors import InputError
from windtunnel.spec.serving import CallCost, DeploymentSpec, flatten

Handler = Callable[[list[bytes]], "Sequence[bytes] | Iterator[bytes]"]
EMULATED = ("spin", "sleep")


def spend(spin: bool) -> Callable[[float], None]:
    """Lets seconds pass: burns as much CPU time, or sleeps."""
    return _spin if spin else _sleep


def _spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)


PR_SET_TIMERSLACK = 29  # linux/prctl.h


def wake_on_time() -> None:
    """This thread's sleeps end when they should and not up to 50 µs later, by which Linux puts wake-ups together; elsewhere nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


class Work:
    """The emulated handler of one replica. ``spin`` counts CPU time of the thread, so that a crowded machine slows it down as it should."""

    def __init__(self, cost: CallCost, kind: str, *name: int) -> None:
        self._cost, self._spend = cost, spend(kind == "spin")
        self._factor = Factors("lognormal", cost.cv, SERVICE, *name)

    def seconds(self, items: int) -> float:
        """The next drawn duration of a call with so many requests."""
        return (self._cost.per_call_s + self._cost.per_item_s * items) * self._factor()

    def __call__(self, bodies: list[bytes]) -> list[bytes]:
        """Do it; the answers are the requests."""
        self._spend(self.seconds(len(bodies)))
        return bodies


def handler(cost: CallCost, kind: str, *name: int) -> Handler:
    """What ``work`` says: ``spin``, ``sleep``, or ``module:function`` of a function that makes a handler."""
    return Work(cost, kind, *name) if kind in EMULATED else find(kind)()


def find(kind: str) -> Any:
    """The function of the user's that makes handlers. Raises InputError."""
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"option work = {kind!r} must be spin, sleep or module:function of a function that makes a handler: {error}"
        ) from error


class Chain:
    """All deployments of a scenario in one process: the first one's work, then what it calls, one after another."""

    def __init__(self, deployments: Sequence[DeploymentSpec], kind: str, seed: int, number: int) -> None:
        self._calls = {d.name: d.calls for d in deployments}
        self._work = {d.name: handler(d.cost, kind, seed, i, number) for i, d in enumerate(deployments)}
        self._first, self._number = deployments[0].name, number

    def __call__(self, bodies: list[bytes]) -> list[tuple[bytes, list[list[Any]]]]:
        """Each body's answer, and its visits: name, worker, queued, begun, ended (monotonic s), items."""
        return [self._visit(self._first, body) for body in bodies]

    def _visit(self, name: str, body: bytes) -> tuple[bytes, list[list[Any]]]:
        begun = time.monotonic()
        answer = b"".join(self._work[name]([body]))
        visits: list[list[Any]] = [[name, self._number, begun, begun, time.monotonic(), 1]]
        for callee in flatten(self._calls[name]):
            visits += self._visit(callee, body)[1]
        return answer, visits


def reply(body: bytes, size: int | None) -> bytes:
    """The answer to an emulated request: its body, repeated or cut to ``size`` bytes, so that a mixed-up answer is seen."""
    if size is None or len(body) == size:
        return body
    return (body * (size // len(body) + 1))[:size] if body else bytes(size)
