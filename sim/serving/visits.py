"""Requests and calls as the simulated world carries them: the model's, with what clients, proxies, hops and spans need. Data only."""

from __future__ import annotations

from typing import Any

from windtunnel.engines.models.calls import Call, Callee, Request, Walk
from windtunnel.sim.clock import Timer
from windtunnel.sim.serving.loops import Loop, Machine


class Asked(Request):
    """What a client waits for. ``traced``: its spans are written. ``first_s``, ``last_s``: when its first and last
    token was there."""

    __slots__ = ("client", "first_s", "intended_s", "last_s", "number", "proxy", "traced")

    def __init__(self, number: int, intended_s: float, client: Timer | None, traced: bool) -> None:
        super().__init__()
        self.number, self.intended_s, self.client, self.traced = number, intended_s, client, traced
        self.proxy: Loop | None = None
        self.first_s = self.last_s = 0.0


class Visit(Call):
    """A call on its way: it waits from ``queued_s`` on, of which ``hop_s`` after ``sent_s`` are its way to the replica, over ``hops``
    from ``machine`` (None: from beside the cluster)."""

    __slots__ = ("asked", "hop_s", "hops", "machine", "queued_s", "sent_s", "way")

    def __init__(
        self, asked: Asked, callee: Callee, walk: Walk | None, now: float, source: Any, machine: Machine | None, hops: int = 1
    ) -> None:
        super().__init__(asked, callee, walk, source)
        self.asked = asked  # its request, as it is here
        self.machine, self.hops = machine, hops
        self.queued_s = self.sent_s = now
        self.hop_s = 0.0
        self.way = 0  # how often it has set out
