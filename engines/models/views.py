"""What part of a cluster an engine was given: views that show a model less than is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from windtunnel.model import NodeView, View

_SYSTEM_BYTES = 2**30  # what a standalone worker of Spark leaves to the system: SPARK_WORKER_MEMORY


@dataclass(slots=True)
class Narrowed:
    """``view`` with other nodes; to be derived from. Waves are for the pool of the whole view, so it offers none."""

    view: View

    @property
    def volatile(self) -> bool:
        """As the view below."""
        return self.view.volatile

    @property
    def waves(self) -> bool:
        """Never."""
        return False

    @property
    def now(self) -> float:
        """As the view below."""
        return self.view.now

    @property
    def stored_bytes(self) -> int:
        """As the view below."""
        return self.view.stored_bytes

    @property
    def store_limit_bytes(self) -> int:
        """As the view below."""
        return self.view.store_limit_bytes


@dataclass(slots=True)
class Offered(Narrowed):
    """The view with ``cpus`` and ``gpus`` of all nodes together at most (None = all); the first nodes give theirs first."""

    cpus: float | None = None
    gpus: float | None = None

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """Nodes with what is offered of them."""
        cpus = float("inf") if self.cpus is None else self.cpus
        gpus = float("inf") if self.gpus is None else self.gpus
        nodes = []
        for node in self.view.nodes:
            give, lend = min(node.cpus, cpus), min(node.gpus, gpus)
            cpus, gpus = cpus - give, gpus - lend
            nodes.append(NodeView(node.node, give, lend, node.memory_bytes, node.custom))
        return tuple(nodes)


@dataclass(slots=True)
class Executors(Narrowed):
    """The view as a Spark application sees it: the cores and devices of its executors."""

    count: int | None
    cores: int | None
    memory: int | None
    gpus: float

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """Nodes with the resources of the executors on them; executors are spread one by one."""
        most = [self._most(n) for n in self.view.nodes]
        given = [0] * len(most)
        left = sum(most) if self.count is None else min(self.count, sum(most))
        while left:
            for i, limit in enumerate(most):
                if left and given[i] < limit:
                    given[i] += 1
                    left -= 1
        return tuple(
            replace(n, cpus=min(n.cpus, g * (self.cores or n.cpus)), gpus=min(n.gpus, g * self.gpus) if self.gpus else n.gpus)
            for n, g in zip(self.view.nodes, given, strict=True)
            if g
        )

    def _most(self, node: NodeView) -> int:
        limits = [node.cpus // (self.cores or node.cpus)]
        if self.gpus:
            limits.append(node.gpus // self.gpus)
        if self.memory:
            limits.append((node.physical_bytes - _SYSTEM_BYTES) // self.memory)
        return max(int(min(limits)), 0)
