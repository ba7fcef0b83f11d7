"""CPUs with a queue each, by hand: who shares with whom, when work ends, and that no CPU second is lost or made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.serving.cores import Cores


class Worker:
    """Notes when each piece of its work ends; rests then unless it has more."""

    def __init__(self, cores: Cores, pieces: list[float]) -> None:
        self.cores, self.pieces = cores, pieces
        self.ends: list[float] = []
        self.touched = 0

    def begin(self, _: object = None) -> None:
        self.cores.run(self, self.pieces.pop(0))

    def ended(self) -> None:
        self.ends.append(self.cores.clock.now)
        if self.pieces:
            self.begin()
        else:
            self.cores.rest(self)

    def touch(self) -> None:
        self.touched += 1


def ends(cpus: float, jobs: list[tuple[float, list[float]]]) -> list[list[float]]:
    """When each worker's pieces end, for workers that begin at these times."""
    clock = Clock()
    cores = Cores(clock, cpus)
    workers = [Worker(cores, list(pieces)) for _, pieces in jobs]
    for worker, (at, _) in zip(workers, jobs, strict=True):
        Timer(clock, worker.begin).arm(at)
    clock.run()
    return [w.ends for w in workers]


def test_as_many_as_there_are_cpus_run_at_full_speed() -> None:
    assert ends(2, [(0.0, [1.0]), (0.5, [1.0])]) == [[1.0], [1.5]]


SLICE = 0.0007  # on one CPU; twice that on two


def test_one_cpu_is_shared_slice_by_slice() -> None:
    """Both have half until 2, when the first has had its second; the other has its second one alone."""
    first, second = ends(1, [(0.0, [1.0]), (0.0, [2.0])])
    assert first == [pytest.approx(2.0, abs=SLICE)] and second == [pytest.approx(3.0)]


def test_a_moment_of_work_waits_for_the_slice_that_runs_and_no_longer() -> None:
    """The slice at 1 s is the 1,429th and ends at 1.0003 s; then the one that woke has its 0.2 ms, which the other loses."""
    found = ends(1, [(0.0, [2.0]), (1.0, [0.0002])])
    assert found == [[pytest.approx(2.0002)], [pytest.approx(1429 * SLICE + 0.0002)]]


def test_who_woke_first_and_has_had_least_comes_first() -> None:
    """The second woke a moment before the third: it has its turn after the slice that ran, then the third, then the first again."""
    at = 1429 * SLICE
    found = ends(1, [(0.0, [2.0]), (1.0, [0.0003]), (at + 0.0001, [0.0001])])
    assert found == [[pytest.approx(2.0004)], [pytest.approx(at + 0.0003)], [pytest.approx(at + 0.0004)]]


def test_a_cpu_without_a_process_takes_one_that_waits() -> None:
    """Of three on two CPUs two share one, whichever was drawn; when the third is done they have half a second left and a CPU each."""
    assert sorted(t for (t,) in ends(2, [(0.0, [1.0])] * 3)) == [pytest.approx(t, abs=2 * SLICE) for t in (1.0, 1.5, 1.5)]


def test_who_joins_is_told_when_it_runs_and_when_it_waits() -> None:
    """A process that keeps its own books has the CPU, loses it when its slice ends, and has it alone again when the other is done."""
    clock = Clock()
    cores = Cores(clock, 1)
    own, other = Worker(cores, []), Worker(cores, [SLICE / 2])
    cores.join(own)
    assert cores.speed(own) == 1.0
    other.begin()
    assert (cores.speed(own), cores.speed(other)) == (1.0, 0.0)
    Timer(clock, lambda _: setattr(clock, "stopped", True)).arm(1.1 * SLICE)
    clock.run()
    assert (cores.speed(own), cores.speed(other), own.touched) == (0.0, 1.0, 1)
    clock.stopped = False
    clock.run()
    assert other.ends == [pytest.approx(1.5 * SLICE)] and cores.speed(own) == 1.0 and own.touched == 2
    cores.rest(own)
    assert clock.idle


def test_work_ends_at_a_late_hour_too() -> None:
    """After 300 years a step of a float is 2 µs: slices and ends are rounded, and nothing goes round for ever."""
    at = 1e10
    found = ends(2, [(at, [0.01, 0.01]), (at, [0.02]), (at, [0.0001] * 20)])
    assert all(t[-1] == pytest.approx(at + 0.02, abs=0.05) for t in found)


def test_half_a_cpu_is_half_as_fast() -> None:
    assert ends(0.5, [(0.0, [1.0])]) == [[2.0]]


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
