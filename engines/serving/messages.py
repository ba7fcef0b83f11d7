"""What doors and hosts say to each other: a request, an answer, and what a door needs of a host. The module owns the words alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

BYTES = "application/octet-stream"
GONE = 499  # counted for a request whose client left before it was answered


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """What the host is asked. ``part``: sends a piece of the answer now; ``most_s``: a deadline of its own, in seconds from now; ``old``:
    its client speaks HTTP/1.0.

    ``task``: what works on it, None when it is answered.
    """

    body: bytes
    trace: bool
    part: Callable[[bytes], None] | None = None
    most_s: float | None = None
    old: bool = False
    path: str = "/"
    begun_s: float = 0.0
    task: asyncio.Task | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the host says. ``more``: header lines."""

    status: int
    body: bytes
    more: tuple[str, ...] = ()
    kind: str = BYTES


def sentence(status: int, text: str, *more: str) -> Answer:
    """An answer that says what is wrong."""
    return Answer(status, text.encode() + b"\n", more, "text/plain; charset=utf-8")


class Asked(Protocol):
    """What the door needs of the host."""

    most_bytes: int
    stream_kind: str  # of answers in pieces
    draining: bool

    def takes(self, path: str) -> bool:
        """Whether a POST of it is a request for the first deployment."""

    async def answer(self, request: Request) -> Answer:
        """A request for the first deployment."""

    def page(self, method: str, path: str) -> Answer:
        """Any other request."""

    def count(self, status: int) -> None:
        """An answer that the door gave by itself."""
