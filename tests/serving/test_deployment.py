"""A deployment of the host by itself, in the event loop that the host has."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
import uvloop

from windtunnel.engines.serving.deployment import Deployment, Rules
from windtunnel.spec.serving import CallCost, DeploymentSpec, Replicas


@pytest.mark.linux
def test_calls_that_meet_a_replica_just_dead_are_tried_again() -> None:
    spec = DeploymentSpec(name="a", replicas=Replicas(minimum=2, maximum=2), max_ongoing=8, cost=CallCost(per_call_s=0.005))

    async def calls() -> list[bytes]:
        deployment = Deployment(spec, 0, Rules(choice="round_robin", work="sleep"))
        await deployment.open()
        try:
            dead = deployment.replicas[0]
            assert dead._process is not None
            dead._process.send_signal(signal.SIGKILL)
            while not dead._gone.is_set():
                await asyncio.sleep(0)
            asked = (deployment.call(b"x", time.monotonic() + 10) for _ in range(8))
            return [visit.body for visit in await asyncio.gather(*asked)]
        finally:
            await deployment.close()

    assert uvloop.run(calls()) == [b"x"] * 8
