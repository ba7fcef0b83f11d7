"""The policies of Ray Data's executor on states whose budgets can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from windtunnel.engines.models.ray_budgets import Operator, Paced, Reserved, Threshold


def operator(**state: float) -> Operator:
    """An operator of tasks with a CPU each that has nothing yet."""
    made = Operator(cpus=1.0, gpus=0.0, actors=False, bounded=True)
    for name, value in state.items():
        setattr(made, name, value)
    return made


def most(policy: Reserved | Threshold, index: int) -> int:
    """How many tasks an operator may have while nothing else changes."""
    while policy.admits(index):
        policy.operators[index].running += 1
    return policy.operators[index].running


def reserved(*operators: Operator, cpus: float = 8, memory: float = 1e9, ratio: float = 0.5, modern: bool = True) -> Reserved:
    return Reserved(operators=operators, cpus=cpus, memory=memory, ratio=ratio, buffer=2, unknown=0.0, modern=modern)


def test_a_busy_operator_leaves_cpus_to_one_that_has_not_begun() -> None:
    """Two of eight CPUs are reserved for each, and the rest is shared; a run of Ray 2.60 had five too, and eight at the end."""
    assert most(reserved(operator(), operator()), 0) == 5
    assert most(reserved(operator(), operator(complete=True)), 0) == 8


def test_a_budget_limits_what_is_read() -> None:
    """An operator whose output fills its budget may have no more of it read, until its reader has rested for ten seconds."""
    full = operator(held_bytes=10**9, made_blocks=1000, made_bytes=10**9)
    policy = reserved(full, operator(running=1))
    assert policy.readable(0.0)[0] == 0.0
    policy.operators[1].running = 0
    assert policy.readable(1.0)[0] == 0.0, "the reader rests, but not for long yet"
    assert policy.readable(12.0)[0] == 1.0, "one block all the same, once it has rested for ten seconds"


def test_a_threshold_gives_later_operators_more() -> None:
    """A budget of 100 is passed: the first of two may hold all of it, the second runs only below a half of what follows it."""
    first, second = operator(held_bytes=150), operator(held_bytes=40)
    policy = Threshold(operators=(first, second), cpus=8, gpus=0, memory=100, buffer=2, unknown=0.0)
    assert (policy.admits(0), policy.admits(1)) == (False, True)
    second.held_bytes = 60
    assert not policy.admits(1)


def test_a_paced_source_spends_the_store_and_gets_it_back_with_time() -> None:
    """A store of 100 pays for two tasks that make 40 each; four free CPUs that need a second for ten bytes give back 40 in a second."""
    source = operator(ended=1, ended_bytes=40, ended_blocks=1, made_blocks=1, made_bytes=40)
    reader = operator(ended=1, ended_bytes=1, ended_blocks=1, busy_s=1.0, read_bytes=10, sent=1)
    policy = Paced(operators=(source, reader), cpus=4, gpus=0, memory=100, buffer=2, unknown=0.0)
    assert [policy.admits_at(0, 0.0) for _ in range(3)] == [True, True, False]
    assert not policy.admits_at(0, 0.4), "36 of 40"
    assert policy.admits_at(0, 0.6)
    assert policy.admits_at(1, 0.6), "others are not paced"
    assert not math.isinf(policy.left) and policy.left == pytest.approx(100 - 80 + 0.6 * 40 - 40)
