"""CPUs with a queue each, by hand: who shares with whom, when work ends, and that no CPU second is lost or made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy.core import Environment
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.serving.cores import Cores


class Worker:
    """Notes when each piece of its work ends; rests then unless it has more."""

    def __init__(self, cores: Cores, pieces: list[float], weight: float = 1.0) -> None:
        self.cores, self.pieces, self.weight = cores, pieces, weight
        self.ends: list[float] = []
        self.touched = 0

    def begin(self, _: object = None) -> None:
        self.cores.run(self, self.pieces.pop(0))

    def ended(self) -> None:
        self.ends.append(self.cores.env.now)
        if self.pieces:
            self.begin()
        else:
            self.cores.rest(self)

    def touch(self) -> None:
        self.touched += 1


def ends(cpus: float, jobs: list[tuple[float, list[float]]]) -> list[list[float]]:
    """When each worker's pieces end, for workers that begin at these times."""
    env = Environment()
    cores = Cores(env, cpus)
    workers = [Worker(cores, list(pieces)) for _, pieces in jobs]
    for worker, (at, _) in zip(workers, jobs, strict=True):
        Timer(env, worker.begin).arm(at)
    env.run()
    return [w.ends for w in workers]


def test_as_many_as_there_are_cpus_run_at_full_speed() -> None:
    assert ends(2, [(0.0, [1.0]), (0.5, [1.0])]) == [[1.0], [1.5]]


def test_one_cpu_is_shared_equally() -> None:
    """Both have half until 2, when the first has had its second; the other has its second one alone."""
    assert ends(1, [(0.0, [1.0]), (0.0, [2.0])]) == [[2.0], [3.0]]


def test_the_busiest_keeps_its_cpu_and_those_that_wake_share_the_other() -> None:
    """Two come after a second: 0.1 s each takes them 0.2 s beside each other, and takes nothing from the first."""
    found = ends(2, [(0.0, [2.0]), (1.0, [0.1]), (1.0, [0.1])])
    assert found == [[2.0], [pytest.approx(1.2)], [pytest.approx(1.2)]]


def test_a_process_that_rested_is_as_light_as_a_new_one() -> None:
    """The first was busy for a second and rested for another (31 half-lives): when it returns, the second keeps its CPU."""
    env = Environment()
    cores = Cores(env, 2)
    first, second, third = Worker(cores, [1.0]), Worker(cores, [1.0]), Worker(cores, [0.1])
    for worker, at in ((first, 0.0), (second, 1.5), (third, 2.0)):
        Timer(env, worker.begin).arm(at)
    env.run(until=2.0)
    first.pieces.append(0.1)
    first.begin()
    env.run()
    assert second.ends == [pytest.approx(2.5)]
    assert first.ends[1] == third.ends[0] == pytest.approx(2.2)


def test_who_joins_is_told_of_its_share() -> None:
    """A process that keeps its own books shares one CPU with another's work of a second, and has it alone again at 2."""
    env = Environment()
    cores = Cores(env, 1)
    own, other = Worker(cores, []), Worker(cores, [1.0])
    cores.join(own)
    assert cores.speed(own) == 1.0
    other.begin()
    assert cores.speed(own) == 0.5 and own.touched == 1
    env.run()
    assert other.ends == [2.0] and cores.speed(own) == 1.0 and own.touched == 2
    cores.rest(own)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.lists(st.floats(0.001, 0.5), min_size=1, max_size=4)), min_size=1, max_size=6),
)
def test_no_cpu_second_is_lost_or_made(cpus: int, jobs: list[tuple[float, list[float]]]) -> None:
    """Nobody is faster than alone; all together take no longer than their work in a row from the last arrival on, and none starves."""
    found = ends(cpus, jobs)
    for (at, pieces), times in zip(jobs, found, strict=True):
        assert len(times) == len(pieces) and times == sorted(times)
        assert times[-1] >= at + sum(pieces) - 1e-6
    last, total = max(t[-1] for t in found), sum(sum(p) for _, p in jobs)
    assert last <= max(at for at, _ in jobs) + total + 1e-6
    assert last >= min(at for at, _ in jobs) + total / cpus - 1e-6
