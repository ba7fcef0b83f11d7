"""A deployment of the host: a bounded queue before replica processes, who takes which call, what follows a death, how many there are.

Which replica takes a call and how many there should be are rules of `windtunnel.engines.models.serving`, the same that the
simulated world uses. The module owns the queue and the lives of replicas; sockets are `workers`', and it knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from windtunnel.engines.models.serving import INTERVAL_S, RULES, Pace, Scaling, rules_of
from windtunnel.engines.models.streams import CHOICE, Uniforms
from windtunnel.engines.serving.workers import Job, Visit, Worker
from windtunnel.spec.serving import DeploymentSpec

RESTART_S = 0.2  # before a replica that ended while it started is started again


class Overloaded(Exception):
    """The queue is full; the caller may come back later."""


class ReplicaDied(Exception):
    """The process that had the call ended, and no retry is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the engine's options say about every deployment."""

    choice: str = "power_of_two"
    work: str = "spin"
    queue_limit: int = 1000
    retries: int = 1
    seed: int = 0
    lookback_s: float = 30.0


class Deployment:
    """All replicas of one name and the queue before them. ``ongoing``: calls that wait or run here."""

    def __init__(self, spec: DeploymentSpec, index: int, rules: Rules, changed: Callable[[], None] = lambda: None) -> None:
        self.spec, self.rules = spec, rules
        self.queue: deque[Job] = deque()
        self.replicas: list[Worker] = []  # those that are ready
        self.counts: Counter[str] = Counter()
        self.ongoing = 0
        self.target = spec.replicas.minimum
        self._index, self._changed = index, changed
        self._choose = RULES[rules.choice]()
        self._draw = Uniforms(rules.seed, CHOICE, index)
        self._pace = Pace()
        self._starting: list[Worker] = []
        self._lives: set[asyncio.Task] = set()
        self._started = 0
        self._area, self._since_s = 0.0, time.monotonic()
        self._closing = False

    # -- the number of replicas ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the replicas (the fewest, where their number may change); from then on keep them as many as they should be."""
        self._fill()
        while len(self.replicas) < self.target:
            await asyncio.sleep(0.005)
        if rules := rules_of(self.spec.replicas, self.rules.lookback_s):
            self._keep(self._control(Scaling(rules, time.monotonic())))

    def _keep(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(life)
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def _control(self, scaling: Scaling) -> None:
        """The control loop: what was ongoing over the look-back decides how many there should be."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            target = scaling.look(time.monotonic(), self.area(), len(self.replicas), self.target)
            if target != self.target:
                self.target = target
                self._fill()

    def _fill(self) -> None:
        """Start what is missing, send away what is too many: those that start, then those with the fewest calls."""
        while not self._closing and len(self.replicas) + len(self._starting) < self.target:
            self._started += 1
            worker = Worker(self, self.spec.batch, self._started)
            self._starting.append(worker)
            self._keep(self._live(worker))
        for _ in range(len(self.replicas) + len(self._starting) - self.target):
            some = self._starting or self.replicas
            self._send_away(min(reversed(some), key=lambda w: w.ongoing), some)

    def _send_away(self, worker: Worker, some: list[Worker]) -> None:
        some.remove(worker)
        worker.leaving = True
        self._changed()
        if not worker.ongoing:
            self._keep(worker.stop())

    async def _live(self, worker: Worker) -> None:
        """One replica from its start to its end; a dead one is replaced, and what it had is tried again or fails."""
        stream = [self.rules.seed, self._index, worker.number]
        spec = self.spec
        told = {
            "cost": asdict(spec.cost), "tokens": spec.tokens and asdict(spec.tokens), "stream": stream, "startup_s": spec.startup_s,
            "work": "sleep" if spec.resources.gpus else self.rules.work,  # a device that is emulated leaves the CPU free
        }  # fmt: skip
        ready = False
        try:
            with contextlib.suppress(OSError):  # no process to be had now
                ready = await worker.start(told)
            if worker in self._starting:
                self._starting.remove(worker)
                if ready:
                    self.replicas.append(worker)
                    self._changed()
                    self.pump()
            if ready:
                await worker.listen()
        finally:
            for some in (self.replicas, self._starting):  # first of all: it gets no call any more
                with contextlib.suppress(ValueError):
                    some.remove(worker)
            await worker.stop()
        if not worker.leaving and not self._closing:
            self.counts["replicas_lost"] += 1
            self._changed()
            self._lost(worker)
            if not ready:
                await asyncio.sleep(RESTART_S)
            self._fill()

    def _lost(self, worker: Worker) -> None:
        for job in [*(j for jobs in worker.flying.values() for j in jobs), *worker.waiting]:
            if job.done.done():
                self._count(-1)
            elif job.retries > 0 and not job.begun:
                job.retries -= 1
                job.worker = None
                self.counts["retries"] += 1
                self.queue.appendleft(job)
            else:
                self._count(-1)
                job.done.set_exception(ReplicaDied(f"a replica of {self.spec.name!r} died with the request"))
        worker.flying.clear()
        self.pump()

    async def close(self) -> None:
        """Stop all replicas after what they have."""
        self._closing = True
        await asyncio.gather(*(w.stop() for w in [*self.replicas, *self._starting]))
        for task in self._lives:
            task.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    # -- calls ----------------------------------------------------------------------------------------------------------------

    def area(self) -> float:
        """The integral of ``ongoing`` over time until now."""
        self._count(0)
        return self._area

    def _count(self, by: int) -> None:
        now = time.monotonic()
        self._area += self.ongoing * (now - self._since_s)
        self._since_s = now
        self.ongoing += by

    async def call(self, body: bytes, deadline_s: float, part: Callable[[bytes], None] | None = None) -> Visit:
        """Run the deployment's own work; the caller gives the place back with `release`.

        Raises Overloaded, ReplicaDied, HandlerFailed, and TimeoutError when a replica skipped it after its deadline.
        """
        self._refuse_overflow()
        self._refuse_late(deadline_s)
        job = Job(body, deadline_s, asyncio.get_running_loop().create_future(), self.rules.retries, part)
        self._count(1)
        self.queue.append(job)
        self.pump()
        try:
            visit: Visit = await job.done
        except asyncio.CancelledError:
            self._given_up(job)
            raise
        self.counts["calls"] += 1
        return visit

    def _given_up(self, job: Job) -> None:
        if not job.done.cancelled():  # it was answered at the same moment
            if job.done.exception() is None:
                self.release(job.done.result().replica)
        elif job.worker is None:
            self._count(-1)
        else:
            job.worker.withdraw(job)

    def _refuse_overflow(self) -> None:
        """Refuse what would wait behind too many; those that gave up do not count."""
        if len(self.queue) < self.rules.queue_limit or self._room():
            return
        self.queue = deque(j for j in self.queue if not j.done.done())
        if len(self.queue) >= self.rules.queue_limit:
            self.counts["rejected"] += 1
            raise Overloaded(f"{len(self.queue)} requests wait for {self.spec.name!r}; at most {self.rules.queue_limit} may")

    def _refuse_late(self, deadline_s: float) -> None:
        """Refuse what could not be answered in time, before it takes the time of others."""
        if not self._pace.in_time(self.ongoing, len(self.replicas), deadline_s - time.monotonic()):
            self.counts["rejected"] += 1
            takes_s = self._pace.takes_s(self.ongoing, len(self.replicas))
            raise Overloaded(
                f"an answer of {self.spec.name!r} would take about {takes_s:.1f} s, too long for the request's deadline"
            )

    def _room(self) -> list[int]:
        most = self.spec.max_ongoing
        return [i for i, w in enumerate(self.replicas) if w.ongoing < most]

    def pump(self) -> None:
        """Give waiting calls to replicas with room, oldest first."""
        while self.queue:
            room = self._room()
            if not room:
                return
            job = self.queue.popleft()
            if not job.done.done():
                self.replicas[self._choose([w.ongoing for w in self.replicas], room, self._draw)].take(job)

    def release(self, worker: Worker, worked: bool = True) -> None:
        """A place is free again; a call that was skipped says nothing of the pace."""
        worker.ongoing -= 1
        self._count(-1)
        if worked:
            self._pace.answered(self._since_s, self.ongoing >= max(1, len(self.replicas)))
        if worker.leaving and not worker.ongoing:
            self._keep(worker.stop())
        self.pump()
