"""What part of a cluster an engine was given: views that show a model less than is there."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.model import NodeView, View


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
