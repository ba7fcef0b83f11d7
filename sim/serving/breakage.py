"""What faults do to a serving world: nodes go with their replicas and proxies, and come back empty; links and nodes slow down.

`windtunnel.sim.world.faults` owns when. A dead replica's calls are tried again or fail, requests that a dead proxy held fail, and each
deployment starts replicas elsewhere until it has as many as it wants.
"""

from __future__ import annotations

from simpy.core import Environment

from windtunnel.records.record import Recorder
from windtunnel.sim.serving.deployments import Deployment
from windtunnel.sim.serving.loops import Loop, Machine
from windtunnel.sim.serving.requests import Request
from windtunnel.sim.serving.site import Site
from windtunnel.spec.cluster import Fault


class Breakage:
    """The part of the world that faults see (`windtunnel.sim.world.faults.Breakable`)."""

    env: Environment
    recorder: Recorder
    site: Site
    deployments: list[Deployment]
    proxies: dict[int, Loop]  # by machine, alive
    turns: list[Loop]  # the same, as clients take them
    open: dict[Request, None]  # unanswered; kept where something can break

    def add_proxy(self, machine: Machine) -> None:
        """A proxy starts, where the engine wants one."""
        raise NotImplementedError

    def respond(self, request: Request, outcome: str) -> None:
        """The client gets its answer now."""
        raise NotImplementedError

    def lose_node(self, node: int) -> None:
        """All its replicas die, then its proxy."""
        machine = self.site.machines[node]
        machine.alive = False
        for deployment in self.deployments:
            for replica in [r for r in deployment.replicas if r.machine is machine]:
                deployment.lose(replica)
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
        for deployment in self.deployments:
            deployment.reconcile()

    def kill_worker_on(self, node: int) -> None:
        """The replica of the node that holds the most calls dies; the first of equals."""
        found = [(d, r) for d in self.deployments for r in d.replicas if r.machine.index == node]
        if found:
            deployment, replica = max(found, key=lambda pair: len(pair[1].calls))
            deployment.lose(replica)

    def lose_device(self, node: int) -> None:
        """A device goes with the replica that has it: a free one first."""
        machine = self.site.machines[node]
        if machine.free_gpus < 1:
            found = [(d, r) for d in self.deployments for r in d.replicas if r.machine is machine and d.spec.resources.gpus]
            machine.free_gpus -= 1  # before another replica takes it
            for deployment, replica in found[:1]:
                deployment.lose(replica)
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
