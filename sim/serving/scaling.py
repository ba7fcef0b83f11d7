"""The control loop: every 0.1 s it averages what is ongoing at each deployment that scales, and asks its autoscaler.

The module owns the look-back (the exact time average, as if replicas reported without delay) and the period; the decision is
`windtunnel.engines.models.serving.Autoscaler`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from simpy.core import Environment
from windtunnel.engines.models.serving import Autoscaler, AutoscalerRules
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.deployments import Deployment

from windtunnel.serving import Replicas

INTERVAL_S = 0.1


def rules_of(replicas: Replicas, lookback_s: float) -> AutoscalerRules | None:
    """The autoscaler's rules; None for a fixed number."""
    if replicas.target_ongoing is None:
        return None
    return AutoscalerRules(
        minimum=replicas.minimum, maximum=replicas.maximum, target_ongoing=replicas.target_ongoing,
        upscale_delay_s=replicas.upscale_delay_s, downscale_delay_s=replicas.downscale_delay_s, lookback_s=lookback_s,
        interval_s=INTERVAL_S,
    )  # fmt: skip


class Watch:
    """One deployment with its autoscaler and what was ongoing over the look-back."""

    def __init__(self, deployment: Deployment, rules: AutoscalerRules) -> None:
        self._deployment = deployment
        self._scaler = Autoscaler(rules)
        self._lookback_s = rules.lookback_s
        self._past: deque[tuple[float, float]] = deque([(0.0, 0.0)])

    def look(self, now: float) -> None:
        """One round of the control loop."""
        deployment, past = self._deployment, self._past
        area = deployment.area_now()
        past.append((now, area))
        while len(past) > 2 and past[1][0] <= now - self._lookback_s + 1e-9:
            past.popleft()
        ongoing = (area - past[0][1]) / (now - past[0][0])
        target = self._scaler.decide(ongoing, len(deployment.ready), deployment.target)
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
