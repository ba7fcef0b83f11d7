"""A driver who listens in rounds, on tasks whose times can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.fifo import Fifo
from tests.sim.jobs import FREE, cluster, simulate, source
from windtunnel.records.record import Recorder
from windtunnel.sim.world.rounds import RoundsWorld


def rounds(durations: list[float], round_s: float = 0.1, cpus: int = 2, **cost: float) -> float:
    what = source(durations)
    world = RoundsWorld(cluster(cpus=cpus), what[0], what[1], Recorder(), cost=replace(FREE, round_s=round_s, **cost))
    world.run(Fifo())
    return world.makespan_s


def test_a_short_task_waits_for_the_round_while_a_long_one_runs() -> None:
    """Beside 0.35 s: tasks begin at 0, 0.1, 0.2 and the last ends at 0.4; a driver who hears at once is done at 0.35."""
    durations = [0.35, 0.05, 0.05, 0.2]
    assert rounds(durations) == pytest.approx(0.4)
    assert simulate(cluster(cpus=2), source(durations)).makespan_s == pytest.approx(0.35)


def test_no_round_is_waited_for_when_all_have_told() -> None:
    assert rounds([0.03] * 8) == pytest.approx(0.12)
    assert rounds([0.25] * 3, cpus=1) == pytest.approx(0.75)


def test_all_is_read_before_anything_is_sent() -> None:
    """Two ends of 10 ms each are read, then two tasks are sent, 5 ms each: the second begins 30 ms after the first two ended."""
    assert rounds([0.05] * 4, done_s=0.01, launch_s=0.005) == pytest.approx(0.01 + 0.05 + 0.02 + 0.01 + 0.05 + 0.02)
