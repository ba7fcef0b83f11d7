"""The host's end of one replica: its process, its socket, the calls that it has, and whether it is still heard of.

It carries out and reports: who takes which call, and what follows an end, is `windtunnel.engines.models.deployment`'s.
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
from typing import Any, cast

from windtunnel.engines.models.calls import Call, Replica
from windtunnel.engines.models.deployment import Deployment
from windtunnel.engines.serving.exchange import Exchange, Job
from windtunnel.engines.serving.shared import Bodies, create
from windtunnel.engines.serving.wire import ANSWER, BYTES_AFTER, FAILED, HEAD, LAST, PART

STOP_S = 5.0
BEATS = 10  # in the time after which a process that is not heard of is taken for hung


class Worker(asyncio.Protocol):
    """One process. ``silent_s``: how long it has not been heard of, by the host's own count, in which a host that stood still misses
    nothing."""

    def __init__(self, deployment: Deployment, replica: Replica, hang_s: float) -> None:
        self.replica, self.deployment, self._hang_s = replica, deployment, hang_s
        self.flying: dict[int, Call] = {}
        self.silent_s = 0.0
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._bodies: Bodies | None = None
        self._buffer = b""
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._calls = 0
        self._beats = -1
        self._watch: asyncio.TimerHandle | None = None

    async def start(self, told: dict[str, Any]) -> bool:
        """Launch; True when it is ready, False when it ended before."""
        launched_s = time.monotonic()
        ours, theirs = socket.socketpair()
        memory = create()
        self._beats, beats = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "windtunnel.engines.serving.replica",
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(memory, beats),
            )
        except BaseException:
            ours.close()
            os.close(memory)
            os.close(self._beats)
            raise
        finally:
            theirs.close()
            os.close(beats)
        self._bodies = Bodies(memory, host=True)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=ours)
        assert self._transport is not None
        os.set_blocking(self._beats, False)
        loop.add_reader(self._beats, self._beat)
        each_s = self._hang_s / BEATS
        self._transport.write(
            json.dumps({**told, "memory": memory, "beats": beats, "beat_s": each_s, "launched_s": launched_s}).encode() + b"\n"
        )
        await self._ready.wait()
        return not self._gone.is_set()

    @property
    def is_silent(self) -> bool:
        """Whether beats are missing."""
        return self.silent_s > 3 * self._hang_s / BEATS

    async def listen(self) -> None:
        """Wait until it ends."""
        await self._gone.wait()

    # -- whether it lives ---------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """It was heard of; from the first time on it is missed."""
        with contextlib.suppress(BlockingIOError):
            if not os.read(self._beats, 4096):
                asyncio.get_running_loop().remove_reader(self._beats)
                return
        self.silent_s = 0.0
        if self._watch is None:
            self._look()

    def _look(self) -> None:
        """Once a beat: one that is silent, or works long after the deadline of its oldest call, hangs. Its end is like any other."""
        each_s = self._hang_s / BEATS
        oldest = next(iter(self.flying.values()), None)
        stuck = oldest is not None and time.monotonic() > oldest.request.deadline_s + self._hang_s
        if self._gone.is_set():
            return
        if stuck or self.silent_s > self._hang_s:
            self.deployment.counts["replicas_hung"] += 1
            self.kill()
            return
        self.silent_s += each_s
        self._watch = asyncio.get_running_loop().call_later(each_s, self._look)

    def kill(self) -> None:
        """At once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    # -- calls --------------------------------------------------------------------------------------------------------------

    def send(self, call: Call) -> None:
        """Write it."""
        job: Job = call.load
        self._calls = job.number = number = self._calls + 1
        self.flying[number] = call
        assert self._bodies is not None
        count, data = self._bodies.put([job.body])
        self._write(HEAD.pack(number, 1, count, call.request.deadline_s) + data)

    def _write(self, data: bytes) -> None:
        """To a process that just ended: nothing. What flies is taken up again when the end is known (uvloop's transport would raise)."""
        if self._transport is not None and not self._gone.is_set():
            self._transport.write(data)

    def withdraw(self, call: Call) -> None:
        """Nobody waits for it any more."""
        self._write(HEAD.pack(call.load.number, 0, 0, 0.0))

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
        if self._watch is not None:
            self._watch.cancel()
        if self._beats >= 0:
            asyncio.get_running_loop().remove_reader(self._beats)
            os.close(self._beats)
            self._beats = -1

    def _answered(self, number: int, items: int, begun: float, ended: float, kind: int, data: bytes) -> None:
        if number == 0:
            self._ready.set()
            return
        deployment = self.deployment
        if kind == PART:
            self._part(self.flying[number], data)
            return
        call = self.flying.pop(number)
        exchange: Exchange = call.request.load
        if kind == LAST:
            deployment.counts["calls"] += 1
            exchange.trace.append([deployment.spec.name, self.replica.number, call.load.queued_s, begun, ended, items])
            if call.walk is None:
                exchange.body = data
            deployment.worked(call, time.monotonic(), ended - begun)
        elif kind == FAILED:
            exchange.error = data.decode(errors="replace")
            deployment.raised(call, time.monotonic())
        else:
            deployment.skipped(call, time.monotonic())

    def _part(self, call: Call, data: bytes) -> None:
        call.begun = True
        part: Callable[[bytes], None] | None = call.request.load.part
        if part is not None and not call.over:
            part(data)

    async def stop(self) -> None:
        """The end of its input ends it; SIGKILL after some seconds."""
        if self._transport is not None:
            self._transport.close()
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self.kill()
            await self._process.wait()
