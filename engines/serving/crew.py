"""The real world's hands: replica processes are started, given their calls and ended, as `windtunnel.engines.models.deployment` says.

It carries out and decides nothing. What a request is answered with is `host`'s, sockets are `workers`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any, cast

from windtunnel.engines.models.calls import Call, Callee, Foreign, Leaf, Replica, Request, Walk, compose
from windtunnel.engines.models.deployment import Deployment, Limits
from windtunnel.engines.models.serving import INTERVAL_S
from windtunnel.engines.serving.exchange import Job
from windtunnel.engines.serving.workers import Worker
from windtunnel.spec.serving import DeploymentSpec

FIRST = 1  # replicas are numbered from it in the names of their random streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the engine's options say about replica processes."""

    work: str = "spin"
    seed: int = 0
    hang_s: float = 10.0


class Crew:
    """All deployments and their processes. ``changed``: told whenever the number of ready replicas is another one."""

    def __init__(
        self, specs: tuple[DeploymentSpec, ...], limits: Limits, settings: Settings, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._told = settings, changed
        self.hands = hands = Foreign(self)
        now = time.monotonic()
        self.deployments = {spec.name: Deployment(spec, i, limits, hands, now) for i, spec in enumerate(specs)}
        leaves = {name: Leaf(d, hands) for name, d in self.deployments.items()}
        for deployment in self.deployments.values():
            deployment.plan = compose(deployment.spec.calls, leaves)
        self._lives: set[asyncio.Task] = set()

    async def open(self) -> None:
        """Start the replicas (the fewest, where their number may change); from then on keep them as many as they should be."""
        for deployment in self.deployments.values():
            deployment.reconcile(time.monotonic(), True)
        while any(len(d.ready) < d.target for d in self.deployments.values()):
            await asyncio.sleep(0.005)
        if any(d.scales for d in self.deployments.values()):
            self._keep(self._control())

    async def _control(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            for deployment in self.deployments.values():
                deployment.tick(time.monotonic())

    def _keep(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(life)
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def close(self) -> None:
        """Stop all replicas after what they have."""
        workers = [r.process for d in self.deployments.values() for r in d.replicas]
        for deployment in self.deployments.values():
            deployment.closing = True
        await asyncio.gather(*(w.stop() for w in workers))
        for task in self._lives:
            task.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    def kill_busiest(self) -> None:
        """A fault: the replica that holds the most calls dies, the first of equals."""
        found = [r for d in self.deployments.values() for r in d.replicas]
        if found:
            max(found, key=lambda r: len(r.calls)).process.kill()

    # -- what the model says ------------------------------------------------------------------------------------------------

    def send(self, call: Call, now: float) -> None:
        """To its process."""
        assert call.replica is not None
        call.replica.process.send(call)

    def withdraw(self, call: Call, now: float) -> None:
        """From its process."""
        assert call.replica is not None
        call.replica.process.withdraw(call)

    def pass_on(self, callee: Callee, walk: Walk, now: float) -> None:
        """The host makes the calls of compositions, with the request's own body."""
        call = Call(walk.call.request, callee, walk)
        call.load = Job(walk.call.load.body)
        callee.submit(call, now)

    def done(self, request: Request, outcome: str, now: float) -> None:
        """Whoever waits goes on."""
        request.over = True
        ended = request.load.ended
        if not ended.done():
            ended.set_result(outcome)

    def late(self, request: Request, now: float) -> None:
        """As `done`."""
        self.done(request, "timed_out", now)

    def replica(self, callee: Callee, number: int) -> Replica:
        """A process that has not started."""
        replica = Replica(number)
        replica.process = Worker(cast("Deployment", callee), replica, self._settings.hang_s)
        return replica

    def start(self, replica: Replica, warm: bool) -> bool:
        """There is always room."""
        self._keep(self._live(replica.process))
        return True

    def stop(self, replica: Replica) -> None:
        """After what it has."""
        self._keep(replica.process.stop())

    def changed(self, callee: Callee, now: float) -> None:
        """For the record."""
        self._told()

    def later(self, seconds: float, wake: Callable[[float, Any], None], arg: Any) -> None:
        """On the loop's clock."""
        asyncio.get_running_loop().call_later(seconds, lambda: wake(time.monotonic(), arg))

    async def _live(self, worker: Worker) -> None:
        """One process from its start to its end."""
        deployment, replica = worker.deployment, worker.replica
        spec, settings = deployment.spec, self._settings
        told = {
            "cost": asdict(spec.cost), "tokens": spec.tokens and asdict(spec.tokens), "batch": asdict(spec.batch),
            "stream": [settings.seed, deployment.index, replica.number + FIRST], "startup_s": spec.startup_s,
            "work": "sleep" if spec.resources.gpus else settings.work,  # a device that is emulated leaves the CPU free
        }  # fmt: skip
        try:
            with contextlib.suppress(OSError):  # no process to be had now
                if await worker.start(told):
                    deployment.up(replica, time.monotonic())
                    await worker.listen()
        finally:
            deployment.died(replica, time.monotonic())  # first of all: it gets no call any more
            await worker.stop()
