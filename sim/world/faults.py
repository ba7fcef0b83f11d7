"""What goes wrong in a simulated cluster, and when: declared faults, and nodes that fail at random by their mean time between failures.

The module owns when; what a loss means to workers and blocks is the world's business, how to recover the model's. Each fault is a SimPy
process. Random failures draw from a stream of their own (seed, node), so that they do not disturb durations. A node that failed at
random is back after its start-up time, as a spot instance that is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from windtunnel.sim.clock import Clock
from windtunnel.sim.processes import Processes
from windtunnel.spec.cluster import ClusterSpec, Fault

_STREAM = 0x0FA17  # name of the random stream


class Breakable(Protocol):
    """What faults do to a world."""

    clock: Clock

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


class Faults:
    """A process a fault, and one a node that may fail at random."""

    def __init__(self, world: Breakable, cluster: ClusterSpec, seed: int) -> None:
        self._world, self._cluster, self._seed = world, cluster, seed
        self._env = Processes(world.clock)

    def arm(self) -> None:
        """Start all of them. A fault at 0 strikes now, before anything runs."""
        for fault in self._cluster.faults:
            self._env.process(self._declared(fault))
        specs = [(spec, f"{spec.name}[{i}]") for spec in self._cluster.nodes for i in range(spec.count)]
        for node, (spec, name) in enumerate(specs):
            if spec.mtbf_s > 0:
                self._env.process(self._at_random(node, name, spec.mtbf_s, max(spec.startup_s, 1.0)))
        self._world.clock.settle()

    def _declared(self, fault: Fault) -> Iterator[Any]:
        world, node = self._world, self._cluster.node_index(fault.target)
        if fault.at_s > 0:
            yield self._env.timeout(fault.at_s)
        now = world.clock.now
        world.note_fault(fault, now, fault.until_s if fault.until_s is not None else now)
        self._begin(fault, node)
        if fault.until_s is not None:
            yield self._env.timeout(fault.until_s - now)
            self._end(fault, node)

    def _begin(self, fault: Fault, node: int) -> None:
        world = self._world
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

    def _end(self, fault: Fault, node: int) -> None:
        if fault.kind == "node_lost":
            self._world.join_node(node)
        elif fault.kind == "node_joins":
            self._world.lose_node(node)
        elif fault.kind == "straggler":
            self._world.slow_node(node, 1.0)
        elif fault.kind == "network_slow":
            self._world.slow_network(node, 1.0)

    def _at_random(self, node: int, name: str, mtbf_s: float, back_s: float) -> Iterator[Any]:
        world = self._world
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, _STREAM, node))))
        while True:
            yield self._env.timeout(float(stream.exponential(mtbf_s)))
            now = world.clock.now
            world.note_fault(Fault(kind="node_lost", at_s=now, target=name), now, now + back_s)
            world.lose_node(node)
            yield self._env.timeout(back_s)
            world.join_node(node)
