"""Replica processes of the host by themselves, in the event loop that the host has."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from windtunnel.engines.models.calls import Call, Request
from windtunnel.engines.models.deployment import Deployment, Limits
from windtunnel.engines.serving.crew import Crew, Settings
from windtunnel.engines.serving.exchange import Exchange, Job
from windtunnel.spec.serving import CallCost, DeploymentSpec, Replicas


def _carried_out(what: Callable[[Deployment], Awaitable[Any]], settings: Settings, **more: Any) -> Any:
    spec = DeploymentSpec(name="a", max_ongoing=8, **{"replicas": Replicas(minimum=2, maximum=2), **more})

    async def run() -> Any:
        crew = Crew((spec,), Limits(choice="round_robin", retries=1, central=True), settings)
        await crew.open()
        try:
            return await what(crew.deployments["a"])
        finally:
            await crew.close()

    return uvloop.run(run())


async def _ask(deployment: Deployment, seconds: float = 10.0) -> tuple[str, bytes]:
    request, now = Request(), time.monotonic()
    request.load = Exchange(b"x", asyncio.get_running_loop().create_future())
    request.deadline_s = now + seconds
    call = Call(request, deployment, None)
    call.load = Job(b"x")
    deployment.submit(call, now)
    return await request.load.ended, request.load.body


@pytest.mark.linux
def test_calls_that_meet_a_replica_just_dead_are_tried_again() -> None:
    async def calls(deployment: Deployment) -> list[tuple[str, bytes]]:
        dead = deployment.ready[0].process
        dead._process.send_signal(signal.SIGKILL)
        while not dead._gone.is_set():
            await asyncio.sleep(0)
        return await asyncio.gather(*(_ask(deployment) for _ in range(8)))

    assert _carried_out(calls, Settings(work="sleep"), cost=CallCost(per_call_s=0.005)) == [("ok", b"x")] * 8


@pytest.mark.linux
def test_a_replica_that_is_not_heard_of_is_replaced_and_its_calls_are_tried_again() -> None:
    async def calls(deployment: Deployment) -> list[tuple[str, bytes]]:
        hung = deployment.ready[0].process
        hung._process.send_signal(signal.SIGSTOP)
        answers = await asyncio.gather(*(_ask(deployment) for _ in range(4)))
        assert hung.is_silent and deployment.counts["replicas_hung"] == 1 == deployment.counts["replicas_lost"]
        assert deployment.counts["retries"] == 2
        return answers

    assert _carried_out(calls, Settings(work="sleep", hang_s=0.5), cost=CallCost(per_call_s=0.005)) == [("ok", b"x")] * 4


@pytest.mark.linux
def test_a_handler_that_never_ends_is_ended_after_the_deadline_of_its_call() -> None:
    """It beats all the time, and works for a minute; its call, tried again after its deadline, is skipped by the next one."""

    async def calls(deployment: Deployment) -> str:
        outcome, _ = await _ask(deployment, 0.2)
        end = time.monotonic() + 10
        while not deployment.counts["replicas_hung"] and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return outcome

    one = Replicas(minimum=1, maximum=1)
    assert _carried_out(calls, Settings(work="sleep", hang_s=0.3), replicas=one, cost=CallCost(per_call_s=60.0)) == "timed_out"
