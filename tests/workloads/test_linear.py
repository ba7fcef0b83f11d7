"""The judge of lake histories: it accepts every linear history and nothing else, told by hand, by random histories and by their mutants."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import WrongResult
from windtunnel.workloads.data.history import FINAL, READ, VERSION, WITNESS, Done, history_of, table_of
from windtunnel.workloads.data.linear import BASE, State, applied, judge

HOT, BASE_ROWS, ROWS = 4, 6, 10
KINDS = ("append", "upsert", "increment", "delete", "overwrite", "add_column")


def seen(state: State) -> dict[str, Any]:
    """What a reader sees of a state."""
    hot = [] if state.hot is None else [[*state.hot[1], state.hot[0], state.hot[2], state.hot[2]]]
    return {
        "batches": [[*tag, rows] for tag, rows in sorted(state.batches.items())],
        "hot": hot,
        "columns": sorted(state.columns),
    }


def done(kind: str, client: int, number: int, start_s: float, end_s: float, outcome: Any = "ok", saw: Any = None) -> Done:
    rows = {READ: 0, "append": ROWS, "overwrite": ROWS}.get(kind, HOT)
    return Done(
        role="x", client=client, number=number, kind=kind, start_s=start_s, end_s=end_s, outcome=outcome, rows=rows, seen=saw
    )


def first() -> State:
    return State({BASE: BASE_ROWS}, (HOT, BASE, 0))


def linear(
    seed: int, clients: int, each: int, versions: bool, kinds: tuple[str, ...] = KINDS, outcomes: tuple[int, ...] = (8, 1, 1)
) -> list[Done]:
    """A history with overlapping operations, each of which happens at once at a moment between its start and its end."""
    dice = random.Random(seed)
    writes = []
    for client in range(clients):
        now = 0.0
        for number in range(each):
            start = now + dice.random()
            now = start + dice.random()
            outcome = dice.choices(["ok", "refused", "unknown"], outcomes)[0]
            writes.append(done(dice.choice(kinds), client, number, start, now, outcome))
    state, states = first(), [first()]
    for d in sorted(writes, key=lambda d: dice.uniform(d.start_s, d.end_s)):
        if d.outcome == "refused" or (d.outcome == "unknown" and dice.random() < 0.5):
            continue
        state = applied(state, d)
        states.append(state)
    for d in writes:
        if d.outcome == "unknown":
            d.end_s = float("inf")
    marks = [witnessed(n, VERSION, s) for n, s in enumerate(states)]
    return [*writes, *(marks if versions else []), witnessed(len(marks), FINAL, state)]


def witnessed(number: int, kind: str, state: State) -> Done:
    return Done(role=WITNESS, client=-1, number=number, kind=kind, start_s=99, end_s=99, outcome="ok", seen=seen(state))


def judged(history: list[Done]) -> dict[str, int]:
    again = history_of(table_of(history))  # through the table, as the oracle gets it
    return {k: v for k, v in judge(again, hot_rows=HOT, base_rows=BASE_ROWS).counts.items() if v}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 8), st.booleans())
def test_linear_histories_are_accepted(seed: int, clients: int, each: int, versions: bool) -> None:
    kinds = KINDS if versions else ("append", "increment")
    assert judged(linear(seed, clients, each, versions, kinds)) == {}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_an_acknowledged_commit_that_never_came_is_told(seed: int, clients: int) -> None:
    history = linear(seed, clients, 6, versions=True, kinds=("append", "upsert"), outcomes=(1, 0, 0))
    marks = [d for d in history if d.role == WITNESS]
    for d in marks[-2:]:  # the last version and the last state
        d.seen = marks[-3].seen
    assert judged(history) == {"lost": 1}


def two_appends() -> list[Done]:
    after_one = applied(first(), done("append", 0, 0, 0, 1))
    after_two = applied(after_one, done("append", 1, 0, 2, 3))
    marks = [witnessed(n, VERSION, state) for n, state in enumerate((first(), after_one, after_two))]
    marks.append(witnessed(3, FINAL, after_two))
    return [done("append", 0, 0, 0, 1), done("append", 1, 0, 2, 3), *marks]


def test_an_order_against_the_clock_is_told() -> None:
    history = two_appends()
    assert judged(history) == {}
    history[0].start_s, history[0].end_s = 4, 5  # now the first version's append began after the second's had ended
    assert judged(history) == {"disorder": 1}


def test_a_refused_commit_that_is_there_is_told() -> None:
    history = two_appends()
    history[0].outcome = "refused"
    assert judged(history) == {"ghosts": 1}
    history[0].outcome = "unknown"
    assert judged(history) == {}


READS = [(0, 0.5, {}), (1, 0.5, {}), (0, 1.5, {"stale": 1}), (2, 1.5, {"disorder": 1}), (2, 2.5, {})]


@pytest.mark.parametrize(("saw", "start_s", "found"), READS)
def test_a_read_lies_between_what_was_acknowledged_before_it_and_what_was_begun(
    saw: int, start_s: float, found: dict[str, int]
) -> None:
    history = two_appends()
    history.append(done(READ, 5, 0, start_s, start_s + 0.1, saw=history[2 + saw].seen))
    assert judged(history) == found


def test_parts_of_commits_are_told() -> None:
    history = two_appends()
    part = copy.deepcopy(history[3].seen)
    part["batches"][1][2] = ROWS - 1
    history.append(done(READ, 5, 0, 0.5, 1.5, saw=part))
    mixed = copy.deepcopy(history[3].seen)
    mixed["hot"].append([7, 7, 2, 1, 1])
    history.append(done(READ, 5, 1, 0.5, 1.5, saw=mixed))
    assert judged(history) == {"torn": 2}


def test_counters_that_do_not_add_up_are_told() -> None:
    def of(value: int) -> dict[str, int]:
        end = State({BASE: BASE_ROWS}, (HOT, (0, 2), value))
        writes = [done("increment", 0, n, n, n + 0.5) for n in range(3)]
        unknown = done("increment", 1, 0, 0, float("inf"), "unknown")
        return judged([*writes, unknown, witnessed(0, FINAL, end)])

    assert [of(n) for n in (2, 3, 4, 5)] == [{"lost": 1}, {}, {}, {"duplicated": 1}]


def test_a_table_that_is_no_history_is_refused() -> None:
    with pytest.raises(WrongResult, match="columns"):
        history_of(table_of([]).select(["client"]))
