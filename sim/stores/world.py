"""Clients and a store on a virtual clock: each request waits half its latency, is served by one of the store's servers, and waits again.

A conditional put is decided when it is served. The module carries out what a protocol asks for; it knows no format.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import simpy

from windtunnel.engines.models.commits import Answer, Ask, Steps
from windtunnel.engines.stores.accounts import Done
from windtunnel.spec.clients import ClientsSpec, Role

READ = "read"
Protocol = Callable[[str], Steps]
Event = Generator[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLaw:
    """``latency_s`` a request, lognormal with ``cv``; ``service_s`` of one of ``servers`` (0: as many as asked); ``client_s`` of the
    client's own time a round of requests, and ``write_s`` once an operation."""

    latency_s: float
    cv: float = 0.0
    service_s: float = 0.0
    servers: int = 0
    client_s: float = 0.0
    write_s: float = 0.0

    def draw_s(self, dice: random.Random) -> float:
        """A latency."""
        if not self.cv or not self.latency_s:
            return self.latency_s
        spread = math.sqrt(math.log1p(self.cv * self.cv))
        return self.latency_s * math.exp(spread * dice.gauss(0.0, 1.0) - spread * spread / 2)


class World:
    """One table: its log is the kinds of its commits in order."""

    def __init__(self, spec: ClientsSpec, law: StoreLaw, protocol: Protocol, rows: Callable[[str], int], seed: int) -> None:
        self._spec, self._law, self._protocol, self._rows, self._seed = spec, law, protocol, rows, seed
        self._env = simpy.Environment()
        self._servers = simpy.Resource(self._env, capacity=law.servers) if law.servers else None
        self._log: list[str] = ["create"]
        self._working = 0
        self.history: list[Done] = []
        self.requests = 0

    def run(self) -> float:
        """Seconds until the last client with a number of operations is done."""
        counted = []
        client = 0
        for role in self._spec.roles:
            for _ in range(role.clients):
                process = self._env.process(self._client(role, client))
                client += 1
                if role.operations:
                    counted.append(process)
        self._working = len(counted)
        if counted:
            self._env.run(self._env.all_of(counted))
        return float(self._env.now)

    def _client(self, role: Role, client: int) -> Event:
        dice = random.Random(f"{self._seed}:{client}")
        number = 0
        while not role.operations or number < role.operations:
            kind = role.kind(number, random.Random(f"{self._seed}:{client}:{number}").random())
            begun = self._env.now
            attempts, outcome = yield from self._attempts(kind, dice)
            self.history.append(
                Done(role=role.name, client=client, number=number, kind=kind, start_s=begun, end_s=self._env.now, outcome=outcome,
                     attempts=attempts, rows=self._rows(kind))
            )  # fmt: skip
            number += 1
            if role.pause_s:
                yield self._env.timeout(role.pause_s)

    def _attempts(self, kind: str, dice: random.Random) -> Event:
        retries = self._spec.retries
        for attempt in range(retries.most + 1):
            if (yield from self._operation(kind, dice)):
                return attempt + 1, "ok"
            if attempt < retries.most:
                yield self._env.timeout(retries.wait_s(attempt, dice.random()))
        return retries.most + 1, "refused"

    def _operation(self, kind: str, dice: random.Random) -> Event:
        """Whether the protocol came to its end."""
        steps, answer = self._protocol(kind), None
        if self._law.write_s and kind != READ:
            yield self._env.timeout(self._law.write_s)
        try:
            ask = next(steps)
            while True:
                answer = yield from self._round(kind, ask, dice)
                ask = steps.send(answer)
        except StopIteration as end:
            return end.value >= 0

    def _round(self, kind: str, ask: Ask, dice: random.Random) -> Event:
        """Requests side by side; the round is over with the last."""
        answers: list[Answer] = []
        if ask.count == 1:
            yield from self._request(kind, ask, dice, answers)
        else:
            yield self._env.all_of([self._env.process(self._request(kind, ask, dice, answers)) for _ in range(ask.count)])
        if self._law.client_s:
            yield self._env.timeout(self._law.client_s)
        return answers[-1] if answers else Answer()

    def _request(self, kind: str, ask: Ask, dice: random.Random, answers: list[Answer]) -> Event:
        self.requests += 1
        latency = self._law.draw_s(dice)
        yield self._env.timeout(latency / 2)
        if self._servers is None:
            if self._law.service_s:
                yield self._env.timeout(self._law.service_s)
        else:
            with self._servers.request() as turn:
                yield turn
                yield self._env.timeout(self._law.service_s)
        answers.append(self._decided(kind, ask))
        yield self._env.timeout(latency / 2)

    def _decided(self, kind: str, ask: Ask) -> Answer:
        """What the store says at this moment."""
        latest = len(self._log) - 1
        if ask.verb == "list":
            since = tuple(self._log[ask.version + 1 :]) if ask.version >= 0 else ()
            return Answer(latest=latest, kinds=since)
        if ask.verb == "put_if_absent":
            if ask.version != latest + 1:
                return Answer(latest=latest, done=False)
            self._log.append(kind)
        return Answer(latest=latest)


def told(history: Iterator[Done] | list[Done]) -> list[Done]:
    """The history by client and number."""
    return sorted(history, key=lambda d: (d.client, d.number))
