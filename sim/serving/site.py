"""The machines of a serving cluster: where replicas find room, and how long a message takes between two of them."""

from __future__ import annotations

from collections.abc import Callable

from simpy.core import Environment

from windtunnel.sim.serving.loops import Machine
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Resources


class Site:
    """All machines, in the order of the cluster's groups. Replicas reserve CPUs and GPUs; proxies and clients reserve nothing."""

    def __init__(self, env: Environment, cluster: ClusterSpec) -> None:
        specs = [node for node in cluster.nodes for _ in range(node.count)]
        self.machines = [Machine(env, i, spec) for i, spec in enumerate(specs)]
        self._latency_s = cluster.network.latency_s
        self.bytes_moved = 0
        self.waiting: list[Callable[[], None]] = []  # called once when room is given back

    def place(self, resources: Resources) -> Machine | None:
        """The machine with the most free CPUs that has room, the first of equals; its room is taken. None when nowhere is room."""
        room = [
            m for m in self.machines if m.alive and m.free_cpus + 1e-9 >= resources.cpus and m.free_gpus + 1e-9 >= resources.gpus
        ]
        if not room:
            return None
        machine = max(room, key=lambda m: (m.free_cpus, -m.index))
        machine.free_cpus -= resources.cpus
        machine.free_gpus -= resources.gpus
        return machine

    def leave(self, machine: Machine, resources: Resources) -> None:
        """A replica gives its room back; those that wait for some try again."""
        machine.free_cpus += resources.cpus
        machine.free_gpus += resources.gpus
        waiting, self.waiting = self.waiting, []
        for reconcile in waiting:
            reconcile()

    def way(self, source: Machine | None, target: Machine, size: int) -> float:
        """Seconds on the network, there and back, for a call with ``size`` bytes of request and response; 0 on one machine.

        Links are not shared: serving messages are small next to what a NIC carries. Clients (None) stand beside the cluster.
        """
        if source is None or source is target:
            return 0.0
        self.bytes_moved += size
        rate = min(source.spec.nic_bytes_per_s / source.link, target.spec.nic_bytes_per_s / target.link)
        return 2 * self._latency_s + size / rate
