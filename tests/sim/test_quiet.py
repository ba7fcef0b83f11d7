"""Which runs were left alone, and which session stands for a cell."""

from __future__ import annotations

from dataclasses import replace

from tests.sim.crafted import record
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.sim.calibration.quiet import fastest_session, foreign_cores, is_quiet, quiet, sessions, settled


def run(number: int, foreign: float, *, seconds: float = 1.0, cell: str = "a", opened: float = 0.1) -> RunRecord:
    """A record that others disturbed with ``foreign`` cores."""
    plain = record(repetition=number, foreign=foreign)
    return replace(plain, run_id=f"{cell}-{opened}-{number}", cell=cell, makespan_s=seconds, open_s=opened)


def test_foreign_cores_are_the_mean_of_their_samples() -> None:
    recorder = Recorder()
    for name, value in (("foreign_cpu_cores", 0.2), ("cpu_cores", 2.0), ("foreign_cpu_cores", 0.6)):
        recorder.sample(name, 0.0, value)
    noisy = replace(record(), samples=recorder.sample_table())
    assert abs(foreign_cores(noisy) - 0.4) < 1e-12
    assert foreign_cores(replace(record(), samples=Recorder().sample_table())) == 0.0
    assert not is_quiet(noisy) and is_quiet(noisy, 0.5)


def test_noisy_runs_go_and_the_quietest_stay() -> None:
    runs = [run(0, 0.1), run(1, 0.9), run(2, 0.2), run(3, 0.5, cell="b"), run(4, 0.4, cell="b")]
    assert [r.run_id for r in quiet(runs, lambda r: r.cell)] == ["a-0.1-0", "a-0.1-2", "b-0.1-4"]
    assert [r.run_id for r in quiet(runs, lambda r: 0, keep=0.8)] == ["a-0.1-0", "a-0.1-2", "b-0.1-3", "b-0.1-4"]
    assert quiet([], lambda r: r.cell) == []


def test_the_fastest_session_stands_for_the_cell() -> None:
    slow = [run(n, 0.0, seconds=2.0, opened=0.1) for n in range(3)]
    fast = [run(n, 0.0, seconds=1.5 + n / 10, opened=0.2) for n in range(3)]
    lucky = [run(0, 0.0, seconds=1.0, opened=0.3)]
    assert [len(s) for s in sessions([*slow, *fast, *lucky])] == [3, 3, 1]
    assert fastest_session([*slow, *fast, *lucky]) == fast  # one run alone may be luck
    other = [run(0, 0.0, cell="b")]
    assert settled([*slow, *other, *fast]) == [*fast, *other]
