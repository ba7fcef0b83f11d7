"""The clock: order of events, and SimPy's processes on it, which do what they do in SimPy's own environment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.processes import Processes

TIMES = st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.5, 2.0, 3.25]), min_size=1, max_size=30)


@given(TIMES, TIMES)
def test_what_was_armed_first_fires_first(first: list[float], then: list[float]) -> None:
    """Timers that arm others, many at one time, beside what a sort by time and number of arming says."""
    clock, fired, armed = Clock(), [], []
    left = list(then)

    def fire(timer: Timer) -> None:
        assert clock.now == timer.arg[0]
        fired.append(timer.arg)
        if left:
            arm(left.pop())

    def arm(delay: float) -> None:
        armed.append((clock.now + delay, len(armed)))
        Timer(clock, fire, armed[-1]).arm(delay)

    for delay in first:
        arm(delay)
    assert [timer.arg for _, timer in clock.pending()] == sorted(armed)
    clock.run()
    assert fired == sorted(armed) and clock.idle


def test_it_stops_when_told_and_goes_on() -> None:
    clock, fired = Clock(), []

    def fire(timer: Timer) -> None:
        fired.append((clock.now, timer.arg))
        clock.stopped = len(fired) == 2

    for name in "abc":
        Timer(clock, fire, name).arm(1.0)
    clock.run()
    assert fired == [(1.0, "a"), (1.0, "b")] and not clock.idle
    clock.stopped = False
    clock.jump(5.0, [(7.0, timer) for _, timer in clock.pending()] * 1)
    clock.run()
    assert fired[2:] == [(7.0, "c")]


def story(env: Any, log: list[Any]) -> None:
    """Processes that wait for each other, interrupt each other, queue for a resource and hand things on through a store."""
    desk, shelf, dice = simpy.Resource(env, 2), simpy.Store(env), random.Random(3)

    def visitor(name: int) -> Iterator[Any]:
        yield env.timeout(dice.choice([0.0, 0.5, 1.0]))
        with desk.request() as turn:
            yield turn
            log.append((env.now, name, "served"))
            yield env.timeout(dice.choice([0.5, 1.0]))
        yield shelf.put(name)

    def reader() -> Iterator[Any]:
        for _ in range(4):
            found = yield shelf.get()
            log.append((env.now, "found", found))
        return "read"

    def sleeper() -> Iterator[Any]:
        try:
            yield env.timeout(100)
        except simpy.Interrupt as interrupt:
            log.append((env.now, "woken", interrupt.cause))

    def host() -> Iterator[Any]:
        asleep = env.process(sleeper())
        log.append((yield env.process(reader()) | env.timeout(50)))
        asleep.interrupt("time to go")
        yield asleep
        try:
            yield env.process(broken())
        except ValueError as error:
            log.append((env.now, str(error)))

    def broken() -> Iterator[Any]:
        yield env.timeout(1)
        raise ValueError("no more")

    for name in range(6):
        env.process(visitor(name))
    env.process(host())


def test_simpys_processes_do_the_same_on_it() -> None:
    clock, ours, theirs, env = Clock(), [], [], simpy.Environment()
    story(Processes(clock), ours)
    clock.run()
    story(env, theirs)
    env.run()
    assert [entry if isinstance(entry, tuple) else list(entry.values()) for entry in ours] == [
        entry if isinstance(entry, tuple) else list(entry.values()) for entry in theirs
    ]
    assert len(ours) > 10


def test_an_error_in_a_process_is_not_lost() -> None:
    clock = Clock()
    env = Processes(clock)

    def broken() -> Iterator[Any]:
        yield env.timeout(1)
        raise ValueError("no more")

    env.process(broken())
    with pytest.raises(ValueError, match="no more"):
        clock.run()
