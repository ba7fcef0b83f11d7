"""The host's end of one replica: its process, its socket, the calls that it has.

The module owns the socket and what is in flight on it; who takes which call is `deployment`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from windtunnel.engines.serving.shared import Bodies, create
from windtunnel.engines.serving.wire import ANSWER, BYTES_AFTER, FAILED, HEAD, LAST, PART, SKIPPED, join, split
from windtunnel.spec.serving import BatchSpec

STOP_S = 5.0


class HandlerFailed(Exception):
    """The user's code raised."""


class Visit(NamedTuple):
    """A call that was answered, and where its time went (monotonic seconds)."""

    replica: Worker
    queued_s: float
    begun_s: float
    ended_s: float
    items: int
    body: bytes


@dataclass(slots=True, eq=False)
class Job:
    """A call that waits or runs. ``part`` gets the pieces of an answer that comes in pieces."""

    body: bytes
    deadline_s: float
    done: asyncio.Future
    retries: int
    part: Callable[[bytes], None] | None = None
    queued_s: float = field(default_factory=time.monotonic)
    worker: Worker | None = None
    number: int = 0
    begun: bool = False  # a piece of the answer has been sent: it cannot be tried again


class Owner(Protocol):
    """Whose replica it is."""

    def release(self, worker: Worker, worked: bool = True) -> None:
        """A place is free again; not ``worked``: the call was skipped."""


class Worker(asyncio.Protocol):
    """One process. ``ongoing`` counts the places taken, also by calls whose own callees still work."""

    def __init__(self, owner: Owner, batch: BatchSpec, number: int) -> None:
        self.number = number
        self.flying: dict[int, list[Job]] = {}
        self.waiting: list[Job] = []  # for a batch to fill
        self.ongoing = 0
        self.leaving = False
        self._owner, self._batch = owner, batch
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._bodies: Bodies | None = None
        self._buffer = b""
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._calls = 0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, told: dict[str, Any]) -> bool:
        """Launch; True when it is ready, False when it ended before."""
        ours, theirs = socket.socketpair()
        memory = create()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "windtunnel.engines.serving.replica",
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(memory,),
            )
        except BaseException:
            ours.close()
            os.close(memory)
            raise
        finally:
            theirs.close()
        self._bodies = Bodies(memory, host=True)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        assert self._transport is not None
        self._transport.write(json.dumps({**told, "memory": memory}).encode() + b"\n")
        await self._ready.wait()
        return not self._gone.is_set()

    async def listen(self) -> None:
        """Wait until it ends."""
        await self._gone.wait()

    # -- calls ------------------------------------------------------------------------------------------------------------

    def take(self, job: Job) -> None:
        """Send it now, or when its batch is full or has waited enough."""
        self.ongoing += 1
        job.worker = self
        self.waiting.append(job)
        batch = self._batch
        if len(self.waiting) >= batch.max_size or batch.wait_s <= 0:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(batch.wait_s, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs, self.waiting = self.waiting, []
        self._calls = number = self._calls + 1
        for job in jobs:
            job.number = number
        self.flying[number] = jobs
        assert self._bodies is not None
        count, data = self._bodies.put(join([job.body for job in jobs]))
        self._write(HEAD.pack(number, len(jobs), count, max(job.deadline_s for job in jobs)) + data)

    def _write(self, data: bytes) -> None:
        """To a process that just ended: nothing. What flies is taken up again when the end is known (uvloop's transport would raise)."""
        if self._transport is not None and not self._gone.is_set():
            self._transport.write(data)

    def withdraw(self, job: Job) -> None:
        """Nobody waits for it any more. Its place is free when the process says so."""
        jobs = self.flying.get(job.number, ())
        if jobs and all(j.done.done() for j in jobs):
            self._write(HEAD.pack(job.number, 0, 0, 0.0))

    # -- asyncio's protocol -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand out answers."""
        if self._buffer:
            data = self._buffer + data
        at, size = 0, ANSWER.size
        assert self._bodies is not None
        while len(data) - at >= size:
            number, items, length, begun, ended, kind = ANSWER.unpack_from(data, at)
            end = at + size + (length & BYTES_AFTER)
            if len(data) < end:
                break
            self._answered(number, items, begun, ended, kind, self._bodies.get(length, data[at + size : end]))
            at = end
        self._buffer = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """It ended."""
        self._gone.set()
        self._ready.set()

    def _answered(self, number: int, items: int, begun: float, ended: float, kind: int, data: bytes) -> None:
        if number == 0:
            self._ready.set()
            return
        if kind == PART:
            (job,) = self.flying[number]
            job.begun = True
            if job.part is not None and not job.done.done():
                job.part(data)
            return
        jobs = self.flying.pop(number)
        bodies = split(data, items) if kind == LAST else [b""] * len(jobs)
        for job, body in zip(jobs, bodies, strict=True):
            if job.done.done():  # nobody waits any more: a deadline passed, or the client left
                self._owner.release(self, kind != SKIPPED)
            elif kind == FAILED:
                self._owner.release(self)
                job.done.set_exception(HandlerFailed(data.decode(errors="replace")))
            elif kind == LAST:
                job.done.set_result(Visit(self, job.queued_s, begun, ended, items, body))
            else:  # skipped: its deadline has passed there, and passes here
                self._owner.release(self, worked=False)
                job.done.set_exception(TimeoutError())

    async def stop(self) -> None:
        """The end of its input ends it; SIGKILL after some seconds."""
        if self._transport is not None:
            self._transport.close()
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
