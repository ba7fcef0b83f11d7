"""What a plan says to people: the sentences of an answer, from plain data. Nothing is simulated."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from windtunnel.commands.plan_tables import closest_sentence, money, sentences, table_of
from windtunnel.spec.units import format_chance, format_seconds

CHOSEN: dict[str, Any] = {
    "number": 0, "engine": "ray", "shape": "3 × m6i.xlarge", "type": "m6i.xlarge", "nodes": 3, "cpus": 12, "gpus": 0,
    "price_per_hour": 0.6, "makespan_s": 100.0, "makespan_90_s": [80.0, 120.0], "cost_usd": 2.0, "chance": 0.936,
    "used": {"CPUs": 0.9}, "error": {"model": 0.1, "sigma": 0.12},
}  # fmt: skip
JOB: dict[str, Any] = {
    "kind": "job", "scenario": "x", "objective": {"deadline_s": 130.0, "budget_usd": None, "confidence": 0.9}, "notes": [],
    "candidates": {"asked": 9, "simulated": 4, "ruled_out_by_bounds": 2, "cannot_run": 0}, "front": [CHOSEN], "recommended": CHOSEN,
    "next_best": [], "closest": None, "bottleneck": {"resource": "CPUs", "busiest": "CPUs", "share": 0.9}, "idle": {"CPUs": 0.1},
    "buy_next": [{"what": "disks twice as fast", "saves_s": 0.5, "costs_usd": 0.0}],
    "sensitivity": {
        "input": [{"factor": 2, "makespan_s": 200.0, "reason": None, "cost_usd": 4.0, "chance": 0.01, "nodes_in_proportion": 6}],
        "price": {"rise": 0.25, "then": "2 × m7a.xlarge"},
        "failures": {"one_loss_s": 30.0, "reason": None, "rates": [{"mtbf_s": 86400.0, "losses": 0.1, "makespan_s": 103.0, "chance": 0.9}]},
    },
    "extrapolation": {"partitions": 1.0, "cpus": 0.5, "checked_cpus": 24, "size_error": 0.0, "distance_error": 0.0},
}  # fmt: skip


def said(*changes: tuple[str, Any]) -> str:
    """All sentences of the answer with these values at these dotted keys."""
    result = copy.deepcopy(JOB)
    for key, value in changes:
        place: Any = result
        *way, last = key.split(".")
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    return "\n".join(sentences(result))


def test_an_answer_in_sentences() -> None:
    text = said()
    assert (
        "plan: ray on 3 × m6i.xlarge: 100 s (80 s to 120 s in 9 of 10 runs), $2.00; it keeps the objective with probability 94 %"
        in text
    )
    assert "bottleneck: CPUs, 90% busy" in text
    assert "buy next: nothing that was tried (disks twice as fast) saves 1 % of the time" in text
    assert "× 2: 200 s, $4.00, chance 1 % (about 6 nodes would keep it)" in text
    assert "best until its price rises by 25%, then 2 × m7a.xlarge" in text
    assert "the loss of one costs 30 s; one failure a node every 24 h (0.1 expected): 103 s" in text


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_no_more_nodes_are_named_than_the_plan_has(nodes: int) -> None:
    """Of a plan that keeps twice the data as it is."""
    text = said(("sensitivity.input.0.nodes_in_proportion", nodes), ("sensitivity.input.0.chance", 0.95))
    assert "chance 95 %" in text
    assert "would keep it" not in text


@pytest.mark.parametrize("rise", [0.0, 0.004, -1e-9])
def test_a_rival_of_the_same_price_is_told_as_one(rise: float) -> None:
    text = said(("sensitivity.price.rise", rise))
    assert "2 × m7a.xlarge costs the same" in text
    assert "rises by 0" not in text and "-0%" not in text
    assert "rises by 1%" in said(("sensitivity.price.rise", 0.0051))


def test_what_ends_with_a_node_is_a_sentence() -> None:
    reason = "the loss of the only node ends the job, which begins anew"
    text = said(("sensitivity.failures", {"one_loss_s": None, "reason": reason, "rates": []}))
    assert f"if nodes fail: {reason}" in text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "under 1 %"),
        (0.0049, "under 1 %"),
        (0.006, "1 %"),
        (0.936, "94 %"),
        (0.994, "99 %"),
        (0.996, "over 99 %"),
        (1.0, "over 99 %"),
    ],
)
def test_no_probability_is_0_or_100(share: float, text: str) -> None:
    assert format_chance(share) == text


def test_what_rounding_leaves_of_nothing_is_nothing() -> None:
    assert format_seconds(9.75e-23) == "0 s" == format_seconds(0.0) == format_seconds(-1e-12)
    assert format_seconds(2e-9) == "0.002 µs"
    assert format_seconds(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7200.0, "2 h"), (7199.0, "120 min"), (600.0, "10 min"), (599.0, "599 s"), (1.0, "1 s"), (0.9994, "999 ms"), (1e-3, "1 ms"),
     (0.9994e-3, "999 µs"), (-3.0, "-3 s")],
)  # fmt: skip
def test_seconds_have_three_digits_and_a_unit_that_fits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("dollars", "text"), [(1234.5, "$1,234"), (999.99, "$999.99"), (0.995, "$0.99"), (0.9949, "$0.9949"), (0.00123, "$0.0012")]
)
def test_money_has_the_digits_that_matter(dollars: float, text: str) -> None:
    assert money(dollars) in (text, text.replace("0.99", "1.00"))


def test_what_comes_closest_is_told_with_its_chance() -> None:
    result = {**JOB, "recommended": None, "closest": {**CHOSEN, "chance": 0.0}}
    assert closest_sentence(result) == (
        "no candidate keeps a deadline of 130 s with probability 90%; closest: ray on 3 × m6i.xlarge, 100 s, $2.00, chance under 1 %"
    )
    assert "none of those simulated ended well" in closest_sentence({**result, "closest": None})
    assert "closest" in [row[-1] for row in table_of(result)[1]]
