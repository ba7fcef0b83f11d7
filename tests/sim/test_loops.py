"""Event loops of serving processes, by hand: in which order an event loop on epoll works on what has come."""

from __future__ import annotations

from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.serving.loops import LOOPS, Loop, Machine
from windtunnel.spec.cluster import NodeSpec

SECOND = 1.0


def order(discipline: str, times: dict[str, float], again: dict[str, tuple[str, float]]) -> list[tuple[str, float]]:
    """Who ended when, of requests of a second each that come at ``times``; ``again``: whose end is followed by which other, and when."""
    clock = Clock()
    loop: Loop = LOOPS[discipline](Machine(clock, 0, NodeSpec(name="n", cpus=2, memory_bytes=2**30)), 1.0, 0.0)
    ended: list[tuple[str, float]] = []

    def come(timer: Timer) -> None:
        loop.run(SECOND, 0.0, done, timer.arg)

    def done(name: str) -> None:
        ended.append((name, round(clock.now, 6)))
        if name in again:
            follower, pause = again[name]
            Timer(clock, come, follower).arm(pause)

    for name, at in times.items():
        Timer(clock, come, name).arm(at)
    clock.run()
    return ended


TIMES = {"A": 0.0, "B": 0.1, "C": 0.2}
AGAIN = {"A": ("A2", 0.1), "B": ("B2", 0.1)}


def test_who_comes_first_is_first() -> None:
    assert order("fifo", TIMES, AGAIN) == [("A", 1), ("B", 2), ("C", 3), ("A2", 4), ("B2", 5)]


def test_a_connection_that_was_read_at_the_last_look_comes_before_one_that_was_not() -> None:
    """B and C were read at the look at 1 s, and A2, which comes at 1.1 s, was not: at the look at 3 s B2, of 2.1 s, is read first."""
    assert order("turns", TIMES, AGAIN) == [("A", 1), ("B", 2), ("C", 3), ("B2", 4), ("A2", 5)]


def test_a_look_that_finds_nothing_forgets_the_order() -> None:
    """All three rest at 3 s. Then D comes alone, and E on the connection of C, which was free last, and F on a third."""
    later = {**TIMES, "D": 5.0, "E": 5.2, "F": 5.4}
    assert order("turns", later, {})[3:] == [("D", 6), ("E", 7), ("F", 8)]


def test_what_comes_during_a_turn_waits_for_its_end() -> None:
    """The turn from 1 s on has B and C. D, of 1.5 s, takes A's connection, and E, of 2.9 s, that of B, which was read at 1 s."""
    later = {**TIMES, "D": 1.5, "E": 2.9}
    assert [name for name, _ in order("turns", later, {})] == ["A", "B", "C", "E", "D"]


def test_a_dead_loop_ends_nothing() -> None:
    clock = Clock()
    loop = LOOPS["turns"](Machine(clock, 0, NodeSpec(name="n", cpus=2, memory_bytes=2**30)), 1.0, 0.0)
    ended: list[str] = []
    for name in "AB":
        loop.run(SECOND, 0.0, ended.append, name)
    loop.kill()
    clock.run()
    assert not ended
