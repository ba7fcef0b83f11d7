"""What goes wrong in a simulated cluster, and when: declared faults, and nodes that fail at random by their mean time between failures.

The module owns the clockwork; what a loss means to workers and blocks is the world's business, how to recover the model's. Random
failures draw from a stream of their own (seed, node), so that they do not disturb durations. A node that failed at random is back
after its start-up time, as a spot instance that is replaced.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from simpy.core import Environment

from windtunnel.sim.hardware.cpu import Timer
from windtunnel.spec.cluster import ClusterSpec, Fault

_STREAM = 0x0FA17  # name of the random stream


class Breakable(Protocol):
    """What faults do to a world."""

    env: Environment

    def lose_node(self, node: int) -> None:
        """A node goes, with all that is on it."""

    def join_node(self, node: int) -> None:
        """A node comes, empty."""

    def release_node(self, node: int) -> None:
        """A node is given back: it takes no further task."""

    def kill_worker_on(self, node: int) -> None:
        """One busy process of a node dies."""

    def lose_device(self, node: int) -> None:
        """One device of a node goes."""

    def slow_node(self, node: int, factor: float) -> None:
        """Work that begins on a node from now on takes ``factor`` times as long."""

    def slow_network(self, node: int, factor: float) -> None:
        """A node's links carry ``1 / factor`` of what they could."""

    def note_fault(self, fault: Fault, begin_s: float, end_s: float) -> None:
        """For the record."""


def expanded(cluster: ClusterSpec) -> ClusterSpec:
    """The cluster with room for the nodes that join later: they are numbered within their groups."""
    groups = list(cluster.nodes)
    for fault in cluster.faults:
        name, _, index = fault.target.partition("[")
        for position, group in enumerate(groups):
            if group.name == name and fault.kind == "node_joins":
                groups[position] = replace(group, count=max(group.count, int(index.rstrip("]")) + 1))
    return replace(cluster, nodes=tuple(groups))


class Faults:
    """Arms a timer a fault."""

    def __init__(self, world: Breakable, cluster: ClusterSpec, seed: int) -> None:
        self._world = world
        self._seed = seed
        self._specs = [group for group in cluster.nodes for _ in range(group.count)]
        self._names = [f"{group.name}[{i}]" for group in cluster.nodes for i in range(group.count)]
        self._cluster = cluster

    def arm(self) -> None:
        """Set all timers; nodes that join later are not there yet."""
        for fault in self._cluster.faults:
            timer = Timer(self._world.env, self._begin, fault)
            if fault.at_s > 0:
                timer.arm(fault.at_s)
            else:  # before anything runs
                self._begin(timer)
        for node, spec in enumerate(self._specs):
            if spec.mtbf_s > 0:
                stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, _STREAM, node))))
                Timer(self._world.env, self._fail, (node, stream)).arm(float(stream.exponential(spec.mtbf_s)))

    def _begin(self, timer: Timer) -> None:
        fault: Fault = timer.arg
        world, node, now = self._world, self._cluster.node_index(fault.target), self._world.env.now
        world.note_fault(fault, now, fault.until_s if fault.until_s is not None else now)
        if fault.kind == "node_lost":
            world.lose_node(node)
        elif fault.kind == "node_joins":
            world.join_node(node)
        elif fault.kind == "node_leaves":
            world.release_node(node)
        elif fault.kind == "worker_killed":
            world.kill_worker_on(node)
        elif fault.kind == "gpu_lost":
            world.lose_device(node)
        elif fault.kind == "straggler":
            world.slow_node(node, fault.factor)
        else:
            world.slow_network(node, fault.factor)
        if fault.until_s is not None:
            Timer(world.env, self._end, (fault, node)).arm(fault.until_s - now)

    def _end(self, timer: Timer) -> None:
        fault, node = timer.arg
        if fault.kind == "node_lost":
            self._world.join_node(node)
        elif fault.kind == "node_joins":
            self._world.lose_node(node)
        elif fault.kind == "straggler":
            self._world.slow_node(node, 1.0)
        elif fault.kind == "network_slow":
            self._world.slow_network(node, 1.0)

    def _fail(self, timer: Timer) -> None:
        node, stream = timer.arg
        spec, now = self._specs[node], self._world.env.now
        back = max(spec.startup_s, 1.0)
        self._world.note_fault(Fault(kind="node_lost", at_s=now, target=self._names[node]), now, now + back)
        self._world.lose_node(node)
        Timer(self._world.env, self._return, (node, stream)).arm(back)

    def _return(self, timer: Timer) -> None:
        node, stream = timer.arg
        self._world.join_node(node)
        Timer(self._world.env, self._fail, (node, stream)).arm(float(stream.exponential(self._specs[node].mtbf_s)))
