"""The control loop: every 0.1 s it asks each deployment that scales how many replicas it should have.

The module owns the period; look-back and decision are `windtunnel.engines.models.serving.Scaling`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from simpy.core import Environment

from windtunnel.engines.models.serving import INTERVAL_S, AutoscalerRules, Scaling
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.deployments import Deployment


class Watch:
    """One deployment with its autoscaler."""

    def __init__(self, deployment: Deployment, rules: AutoscalerRules) -> None:
        self._deployment = deployment
        self._scaling = Scaling(rules)

    def look(self, now: float) -> None:
        """One round of the control loop."""
        deployment = self._deployment
        target = self._scaling.look(now, deployment.area_now(), len(deployment.ready), deployment.target)
        if target != deployment.target:
            deployment.scale(target)


class Controller:
    """Looks at all watched deployments in order, as long as the run lasts; ``check(now)`` may end it."""

    def __init__(self, env: Environment, watches: list[Watch], check: Callable[[float], None]) -> None:
        self._env, self._watches, self._check = env, watches, check
        self._round = 0
        if watches:
            Timer(env, self._tick).arm(INTERVAL_S)

    def _tick(self, timer: Timer) -> None:
        now = self._env.now
        for watch in self._watches:
            watch.look(now)
        self._check(now)
        self._round += 1
        timer.arm((self._round + 1) * INTERVAL_S - now)  # not a sum of many 0.1
