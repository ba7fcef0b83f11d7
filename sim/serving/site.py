"""The machines of a serving cluster: where replicas find room, and how long a message takes between two of them."""

from __future__ import annotations

from windtunnel.engines.models.routing import emptiest
from windtunnel.sim.clock import Clock
from windtunnel.sim.serving.loops import Machine
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Resources


class Site:
    """All machines, in the order of the cluster's groups. Replicas reserve CPUs and GPUs; proxies and clients reserve nothing."""

    def __init__(self, clock: Clock, cluster: ClusterSpec) -> None:
        specs = [node for node in cluster.nodes for _ in range(node.count)]
        self.machines = [Machine(clock, i, spec) for i, spec in enumerate(specs)]
        self._latency_s = cluster.network.latency_s
        self.bytes_moved = 0

    def place(self, resources: Resources) -> Machine | None:
        """Take room on a machine; None when nowhere is any."""
        free = [(m.free_cpus, m.free_gpus) if m.alive else (-1.0, -1.0) for m in self.machines]
        found = emptiest(free, resources.cpus, resources.gpus)
        if found is None:
            return None
        machine = self.machines[found]
        machine.free_cpus -= resources.cpus
        machine.free_gpus -= resources.gpus
        return machine

    def leave(self, machine: Machine, resources: Resources) -> None:
        """A replica gives its room back."""
        machine.free_cpus += resources.cpus
        machine.free_gpus += resources.gpus

    def way(self, source: Machine | None, target: Machine, size: int) -> float:
        """Seconds on the network, there and back, for a call with ``size`` bytes of request and response; 0 on one machine.

        Links are not shared: serving messages are small next to what a NIC carries. Clients (None) stand beside the cluster.
        """
        if source is None or source is target:
            return 0.0
        self.bytes_moved += size
        rate = min(source.spec.nic_bytes_per_s / source.link, target.spec.nic_bytes_per_s / target.link)
        return 2 * self._latency_s + size / rate
