"""What requests and calls carry in the host: bodies, where pieces of an answer go, who waits for the end. Data only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Exchange:
    """A request's: ``question`` came, ``body`` is the answer, ``error`` what a handler that failed said. ``ended`` gets its outcome.

    ``part`` takes the pieces of an answer that comes in pieces; ``trace``: visits, as the header tells them.
    """

    question: bytes
    ended: asyncio.Future
    part: Callable[[bytes], None] | None = None
    body: bytes = b""
    error: str = ""
    trace: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """A call's: the number under which its replica knows it."""

    body: bytes
    queued_s: float = field(default_factory=time.monotonic)
    number: int = 0
