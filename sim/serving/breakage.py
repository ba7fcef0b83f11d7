"""What faults do to a serving world: nodes go with their replicas and proxies, and come back empty; links and nodes slow down.

`windtunnel.sim.world.faults` owns when. A dead replica's calls are tried again or fail, requests that a dead proxy held fail, and each
deployment starts replicas elsewhere until it has as many as it wants.
"""

from __future__ import annotations

from windtunnel.engines.models.deployment import Deployment
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder
from windtunnel.sim.clock import Clock
from windtunnel.sim.serving.carrier import Carrier
from windtunnel.sim.serving.loops import Loop, Machine
from windtunnel.sim.serving.replicas import Process
from windtunnel.sim.serving.site import Site
from windtunnel.sim.serving.visits import Asked
from windtunnel.spec.cluster import Fault


class Breakage:
    """The part of the world that faults see (`windtunnel.sim.world.faults.Breakable`)."""

    clock: Clock
    recorder: Recorder
    site: Site
    carrier: Carrier
    deployments: list[Deployment]
    proxies: dict[int, Loop]  # by machine, alive
    turns: list[Loop]  # the same, as clients take them
    open: dict[Asked, None]  # unanswered; kept where something can break

    def add_proxy(self, machine: Machine) -> None:
        """A proxy starts, where the engine wants one."""
        raise NotImplementedError

    def respond(self, request: Asked, outcome: str) -> None:
        """The client gets its answer now."""
        raise NotImplementedError

    def _processes(self) -> list[Process]:
        return [replica for d in self.deployments for replica in d.replicas if isinstance(replica, Process)]

    def lose_node(self, node: int) -> None:
        """All its replicas die, then its proxy."""
        machine = self.site.machines[node]
        machine.alive = False
        for process in [p for p in self._processes() if p.machine is machine]:
            self.carrier.lose(process)
        proxy = self.proxies.pop(node, None)
        if proxy is None:
            return
        proxy.kill()
        self.turns = list(self.proxies.values())
        for request in [r for r in self.open if r.proxy is proxy]:
            self.respond(request, "failed")

    def join_node(self, node: int) -> None:
        """Room for replicas that wait for it."""
        machine = self.site.machines[node]
        if machine.alive:
            return
        machine.alive = True
        self.add_proxy(machine)
        self.carrier.settle()

    def release_node(self, node: int) -> None:
        """No engine is known to drain the replicas of a node: raises InputError."""
        raise InputError(f"node_leaves says nothing of services (node {node}): use node_lost, or scale a deployment down")

    def kill_worker_on(self, node: int) -> None:
        """The replica of the node that holds the most calls dies; the first of equals."""
        found = [p for p in self._processes() if p.machine.index == node]
        if found:
            self.carrier.lose(max(found, key=lambda p: len(p.calls)))

    def lose_device(self, node: int) -> None:
        """A device goes with the replica that has it: a free one first."""
        machine = self.site.machines[node]
        if machine.free_gpus < 1:
            found = [p for p in self._processes() if p.machine is machine and p.deployment.spec.resources.gpus]
            machine.free_gpus -= 1  # before another replica takes it
            for process in found[:1]:
                self.carrier.lose(process)
        else:
            machine.free_gpus -= 1

    def slow_node(self, node: int, factor: float) -> None:
        """Work that begins from now on."""
        self.site.machines[node].slow = factor

    def slow_network(self, node: int, factor: float) -> None:
        """Messages that set out from now on."""
        self.site.machines[node].link = factor

    def note_fault(self, fault: Fault, begin_s: float, end_s: float) -> None:
        """Faults are counted, and marked over time."""
        self.recorder.count("faults")
        self.recorder.sample(f"fault:{fault.kind}:{fault.target}", begin_s, 1.0)
