"""A deployment of the host: a bounded queue before replica processes, who takes which call, batches, and what follows a death.

Which replica takes a call is a rule of `windtunnel.engines.models.serving`, the same that the simulated world uses. The module
owns processes and pipes; it knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field

from windtunnel.engines.models.serving import RULES
from windtunnel.engines.models.streams import CHOICE, Uniforms
from windtunnel.engines.serving.wire import HEAD, TIMES

from windtunnel.serving import DeploymentSpec


class Overloaded(Exception):
    """The queue is full; the caller may come back later."""


class ReplicaDied(Exception):
    """The process that had the call ended, and no retry is left."""


@dataclass(slots=True, eq=False)
class Job:
    """A call that waits or runs. ``done`` gives (replica, queued, begun, ended, items)."""

    body: bytes
    done: asyncio.Future
    retries: int
    queued_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the engine's options say about every deployment."""

    choice: str = "power_of_two"
    work: str = "spin"
    queue_limit: int = 1000
    retries: int = 1
    seed: int = 0


class Replica:
    """One process and the calls it has. ``ongoing`` counts the places taken, also by calls whose own callees still work."""

    def __init__(self, owner: Deployment, number: int) -> None:
        self.owner, self.number = owner, number
        self.flying: dict[int, list[Job]] = {}
        self.waiting: list[Job] = []  # for a batch to fill
        self.ongoing = 0
        self.process: asyncio.subprocess.Process | None = None
        self._calls = 0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Launch and wait until it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "windtunnel.engines.serving.replica",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        spec, rules = self.owner.spec, self.owner.rules
        stream = [rules.seed, self.owner.index, self.number]
        told = {"cost": asdict(spec.cost), "work": rules.work, "stream": stream, "startup_s": spec.startup_s}
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        await self.process.stdout.readexactly(HEAD.size + TIMES.size)

    def take(self, job: Job) -> None:
        """Send it now, or when its batch is full or has waited enough."""
        self.ongoing += 1
        self.waiting.append(job)
        batch = self.owner.spec.batch
        if len(self.waiting) >= batch.max_size or batch.wait_s <= 0:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(batch.wait_s, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        jobs, self.waiting = self.waiting, []
        assert self.process is not None and self.process.stdin is not None
        self._calls += 1
        self.flying[self._calls] = jobs
        bodies = [job.body for job in jobs]
        with contextlib.suppress(BrokenPipeError, ConnectionError, RuntimeError):  # its death is told by its output's end
            self.process.stdin.write(HEAD.pack(self._calls, len(jobs), sum(map(len, bodies))) + b"".join(bodies))

    async def listen(self) -> None:
        """Hand out answers until the process ends."""
        assert self.process is not None and self.process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, items, length = HEAD.unpack(await self.process.stdout.readexactly(HEAD.size))
                begun, ended = TIMES.unpack(await self.process.stdout.readexactly(TIMES.size))
                await self.process.stdout.readexactly(length)
                for job in self.flying.pop(number):
                    if job.done.done():  # nobody waits any more: a deadline passed, or the client left
                        self.owner.release(self)
                    else:
                        job.done.set_result((self, job.queued_s, begun, ended, items))

    async def stop(self) -> None:
        """The end of its input ends it; SIGKILL after five seconds."""
        if self.process is None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


class Deployment:
    """All replicas of one name and the queue before them."""

    def __init__(self, spec: DeploymentSpec, index: int, rules: Rules) -> None:
        self.spec, self.index, self.rules = spec, index, rules
        self.queue: deque[Job] = deque()
        self.replicas: list[Replica] = []
        self.counts: Counter[str] = Counter()
        self._choose = RULES[rules.choice]()
        self._draw = Uniforms(rules.seed, CHOICE, index)
        self._tasks: list[asyncio.Task] = []
        self._started = 0
        self._closing = False

    async def open(self) -> None:
        """Start the replicas (the fewest, where their number may change) and keep them alive."""
        wanted = max(1, self.spec.replicas.minimum)
        self._tasks = [asyncio.create_task(self._keep()) for _ in range(wanted)]
        while len(self.replicas) < wanted:
            if failed := [t for t in self._tasks if t.done()]:
                await failed[0]
            await asyncio.sleep(0.005)

    async def _keep(self) -> None:
        """One place for a replica: a dead process is replaced; what it had is tried again or fails."""
        while not self._closing:
            self._started += 1
            replica = Replica(self, self._started)
            try:
                await replica.start()
            except (asyncio.IncompleteReadError, ConnectionError):
                await replica.stop()
                await asyncio.sleep(0.2)
                continue
            self.replicas.append(replica)
            self.pump()
            try:
                await replica.listen()
            finally:
                self.replicas.remove(replica)
                await replica.stop()
            self._lost(replica)

    def _lost(self, replica: Replica) -> None:
        self.counts["replicas_lost"] += not self._closing
        for job in [*(j for jobs in replica.flying.values() for j in jobs), *replica.waiting]:
            if job.done.done():
                continue
            if job.retries > 0:
                job.retries -= 1
                self.counts["retries"] += 1
                self.queue.appendleft(job)
            else:
                job.done.set_exception(ReplicaDied(f"a replica of {self.spec.name!r} died with the request"))
        self.pump()

    async def call(self, body: bytes) -> tuple[Replica, float, float, float, int]:
        """Run the deployment's own work; the caller gives the place back with `release`. Raises Overloaded, ReplicaDied."""
        self._refuse_overflow()
        job = Job(body, asyncio.get_running_loop().create_future(), self.rules.retries)
        self.queue.append(job)
        self.pump()
        try:
            answer: tuple[Replica, float, float, float, int] = await job.done
        except asyncio.CancelledError:
            if not job.done.cancelled() and job.done.exception() is None:  # it was answered at the same moment
                self.release(job.done.result()[0])
            raise
        self.counts["calls"] += 1
        return answer

    def _refuse_overflow(self) -> None:
        """Refuse what would wait behind too many; those that gave up do not count."""
        if len(self.queue) < self.rules.queue_limit:
            return
        self.queue = deque(j for j in self.queue if not j.done.done())
        if len(self.queue) >= self.rules.queue_limit:
            self.counts["rejected"] += 1
            raise Overloaded(f"{len(self.queue)} requests wait for {self.spec.name!r}; at most {self.rules.queue_limit} may")

    def pump(self) -> None:
        """Give waiting calls to replicas with room, oldest first."""
        while self.queue:
            lengths = [r.ongoing for r in self.replicas]
            room = [i for i, n in enumerate(lengths) if n < self.spec.max_ongoing]
            if not room:
                return
            job = self.queue.popleft()
            if not job.done.done():
                self.replicas[self._choose(lengths, room, self._draw)].take(job)

    def release(self, replica: Replica) -> None:
        """A place is free again."""
        replica.ongoing -= 1
        self.pump()

    async def close(self) -> None:
        """Stop all replicas after what they have."""
        self._closing = True
        await asyncio.gather(*(r.stop() for r in list(self.replicas)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
