"""What a process tree spent between two looks at it, with processes that come, die and are waited for, or not."""

from __future__ import annotations

from windtunnel.running.measure import cpu_between


def test_what_living_and_new_processes_spent_counts() -> None:
    assert cpu_between({1: (5.0, 0.0)}, {1: (6.0, 0.0), 2: (0.5, 0.0)}) == 1.5


def test_a_child_that_was_waited_for_counts_once() -> None:
    """It had spent 4 s when it was last seen and 4.5 s when it died: its parent took them over."""
    assert cpu_between({1: (5.0, 1.0), 2: (4.0, 0.0)}, {1: (6.0, 5.5)}) == 1.5


def test_a_child_that_nobody_waited_for_takes_nothing_away() -> None:
    """Ray's processes end so: the tree's CPU time falls, yet the others went on."""
    assert cpu_between({1: (5.0, 0.0), 2: (4.0, 0.0), 3: (1.0, 0.0)}, {1: (6.0, 0.0), 3: (1.5, 0.0)}) == 1.5
