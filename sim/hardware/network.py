"""A star network: every node has an up and a down link, the core may be oversubscribed; flows share links max-min fairly.

When a flow begins or ends, rates are recomputed for the flows that share a link with it, directly or through others, and
for no one else. Changes at one instant are solved together. The module knows bytes and nodes, not blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.hardware.cpu import Done


def max_min(flows: Sequence[Sequence[int]], capacity: Mapping[int, float]) -> list[float]:
    """Max-min fair rates: ``flows[i]`` are the links of flow i. Progressive filling, ties by link number."""
    rates = [0.0] * len(flows)
    users: dict[int, list[int]] = {}
    for i, links in enumerate(flows):
        for link in links:
            users.setdefault(link, []).append(i)
    left = {link: capacity[link] for link in users}
    count = {link: len(members) for link, members in users.items()}
    open_flows = [True] * len(flows)
    while count:
        link = min(count, key=lambda k: (left[k] / count[k], k))
        share = max(left[link] / count[link], 0.0)
        for i in users[link]:
            if open_flows[i]:
                open_flows[i], rates[i] = False, share
                _take(flows[i], share, left, count)
    return rates


def _take(links: Sequence[int], share: float, left: dict[int, float], count: dict[int, int]) -> None:
    for link in links:
        left[link] -= share
        count[link] -= 1
        if count[link] == 0:
            del count[link]


class Flow:
    """Bytes under way: ``left`` of them at ``at``, when it began or last changed its rate. ``version`` 0: alone on its links so far."""

    __slots__ = ("arg", "at", "begun_s", "done", "left", "links", "rate", "size", "version")

    def __init__(self, links: tuple[int, ...], size: float, begins_s: float, done: Done, arg: Any) -> None:
        self.links = links
        self.left = self.size = size
        self.at = self.begun_s = begins_s
        self.rate = 0.0
        self.version = 0
        self.done = done
        self.arg = arg


class Network:
    """Nodes 0 … n - 1; link i is the up link of node i, n + i its down link, 2 n the core (only when oversubscribed).

    A flow is on its links from the moment that it is asked for, and takes its share of them when the latency has passed. One that
    finds nobody there is told its end at once, which holds until another one begins.
    """

    __slots__ = (
        "_capacity",
        "_changed",
        "_clock",
        "_finish",
        "_latency",
        "_log",
        "_members",
        "_nodes",
        "_nominal",
        "_rows",
        "_serial",
        "_token",
        "bytes",
    )

    def __init__(self, clock: Clock, nics: Sequence[float], oversubscription: float, latency_s: float) -> None:
        self._clock = clock
        self._nodes = len(nics)
        self._latency = latency_s
        self._nominal = tuple(nics)
        self._capacity = dict(enumerate([*nics, *nics]))
        if oversubscription > 1.0:
            self._capacity[2 * len(nics)] = sum(nics) / oversubscription
        self._members: dict[int, dict[Flow, None]] = {}  # flows by link, of those that were ever used
        self._changed: dict[int, None] = {}
        self._finish: list[tuple[float, int, int, Flow]] = []
        self._serial = self._token = self.bytes = 0
        self._log: list[float] | None = None
        self._rows: Sequence[int] = ()

    def watch(self, log: list[float], rows: Sequence[int]) -> None:
        """From now on, append each flow to a `Meter`'s log when it ends; ``rows`` by link, -1 to leave it out."""
        self._log, self._rows = log, rows

    def scale(self, node: int, factor: float) -> None:
        """The node's links carry ``factor`` times their nominal rate from now on."""
        links = (node, self._nodes + node)
        for link in links:
            self._capacity[link] = self._nominal[node] * factor
            for flow in self._members.get(link, ()):
                if flow.version == 0 and flow.at > self._clock.now:  # not under way yet, but told its end
                    flow.version = 1
                    Timer(self._clock, self._begin, flow).arm(flow.at - self._clock.now)
        self._change(links)

    @property
    def core_bytes_per_s(self) -> float:
        """What the core carries; 0 where it is no bottleneck."""
        return self._capacity.get(2 * self._nodes, 0.0)

    def transfer(self, source: int, target: int, size: int, done: Done, arg: Any) -> None:
        """Move ``size`` bytes, then ``done(arg)``. ``source`` -1: from very many nodes, whose up links are no bottleneck."""
        self.bytes += size
        members, capacity, core, clock = self._members, self._capacity, 2 * self._nodes, self._clock
        links: tuple[int, ...] = (self._nodes + target,) if source < 0 else (source, self._nodes + target)
        if core in capacity:
            links = (*links, core)
        flow = Flow(links, float(size if size > 1 else 1), clock.now + self._latency, done, arg)
        alone, rate = True, math.inf
        for link in links:
            there = members.get(link)
            if there is None:
                there = members[link] = {}
            elif there:
                alone = False
            there[flow] = None
            if capacity[link] < rate:
                rate = capacity[link]
        if alone:
            flow.rate = rate
            Timer(clock, self._end_alone, flow).arm(self._latency + flow.size / rate)
        else:
            flow.version = 1
            Timer(clock, self._begin, flow).arm(self._latency)

    def _begin(self, timer: Timer) -> None:
        flow: Flow = timer.arg
        self._change(flow.links)

    def _change(self, links: tuple[int, ...]) -> None:
        if not self._changed:
            Timer(self._clock, self._solve).arm(0.0)
        self._changed.update(dict.fromkeys(links))

    def _solve(self, _: Timer) -> None:
        flows = self._component()
        self._changed.clear()
        now = self._clock.now
        if len(flows) == 1:
            rates = [max(min([self._capacity[link] for link in flows[0].links]), 0.0)]
        else:
            rates = max_min([f.links for f in flows], self._capacity)
        for flow, rate in zip(flows, rates, strict=True):
            flow.left = max(flow.left - flow.rate * (now - flow.at), 0.0)
            flow.at, flow.rate = now, rate
            flow.version += 1
            self._serial += 1
            heappush(self._finish, (now + flow.left / rate, self._serial, flow.version, flow))
        self._arm()

    def _component(self) -> list[Flow]:
        """All flows under way that are connected to a changed link, in a fixed order."""
        members, now = self._members, self._clock.now
        seen = dict.fromkeys(self._changed)
        todo, flows = list(seen), dict[Flow, None]()
        while todo:
            for flow in members.get(todo.pop(), ()):
                if flow.at <= now and flow not in flows:
                    flows[flow] = None
                    for link in flow.links:
                        if link not in seen:
                            seen[link] = None
                            todo.append(link)
        return list(flows)

    def _arm(self) -> None:
        while self._finish and self._finish[0][2] != self._finish[0][3].version:
            heappop(self._finish)
        self._token += 1
        if self._finish:
            Timer(self._clock, self._fire, serial=self._token).arm(self._finish[0][0] - self._clock.now)

    def _fire(self, timer: Timer) -> None:
        if timer.serial != self._token:
            return
        _, _, _, flow = heappop(self._finish)
        flow.version += 1
        self._take_off(flow)
        if any(self._members[link] for link in flow.links):
            self._change(flow.links)
        self._arm()
        flow.done(flow.arg)

    def _end_alone(self, timer: Timer) -> None:
        flow: Flow = timer.arg
        if not flow.version:
            self._take_off(flow)
            flow.done(flow.arg)

    def _take_off(self, flow: Flow) -> None:
        """It is off its links."""
        log, rows, now = self._log, self._rows, self._clock.now
        for link in flow.links:
            del self._members[link][flow]
            if log is not None and rows[link] >= 0:
                log += (rows[link], flow.begun_s, now, flow.size)
