"""What an execution costs in a simulated deployment: declared work times a drawn factor, and the engine's constants around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel.engines.models.streams import OVERHEAD, SERVICE, Factors
from windtunnel.sim.serving.settings import Settings
from windtunnel.spec.serving import DeploymentSpec

Draw = Callable[[], float]


class Work:
    """Of one deployment. ``weight``: CPUs that a replica may keep busy, none where a device computes. ``inside``: deployments that run in
    the same process, as often as they are called."""

    def __init__(
        self, spec: DeploymentSpec, index: int, settings: Settings, inside: Sequence[tuple[int, DeploymentSpec]] = ()
    ) -> None:
        self.spec, self.settings, self._index, self._inside = spec, settings, index, inside
        self.weight = 0.0 if spec.resources.gpus else max(1.0, spec.resources.cpus)
        costs = settings.costs
        self._overhead: Draw = Factors(settings.law, costs.cv, settings.seed, OVERHEAD, index).draw
        self._replica_s = costs.replica_s + (costs.http_s if index == 0 else 0.0)
        self._call_s = costs.call_s
        self._per_call_s, self._per_item_s = spec.cost.per_call_s, spec.cost.per_item_s

    def factors(self, number: int) -> tuple[Draw, list[tuple[float, Draw]]]:
        """Draws of a replica, of the same streams as those of the process with this number in the world of real processes."""
        settings = self.settings

        def draw(index: int, cv: float) -> Draw:
            return Factors(settings.law, cv, SERVICE, settings.seed, index, number + settings.first).draw

        return draw(self._index, self.spec.cost.cv), [
            (d.cost.per_call_s + d.cost.per_item_s, draw(i, d.cost.cv)) for i, d in self._inside
        ]

    def seconds(self, items: int, factor: Draw, inside: Sequence[tuple[float, Draw]]) -> tuple[float, float]:
        """Of one execution: the handler's own, and the engine's around it before contention."""
        own = self._per_call_s + self._per_item_s * items
        own = own and own * factor()
        if inside:
            own += sum([cost_s * draw() for cost_s, draw in inside])
        overhead = self._replica_s * items
        return own, overhead and overhead * self._overhead()

    def call_seconds(self) -> float:
        """What sending a call costs the caller's process, before contention."""
        return self._call_s and self._call_s * self._overhead()
