"""What a finished search says: front, plan, next best, bottleneck, what to buy, what idles, and how the plan bears change.

The answer is plain data (the document of ``windtunnel plan --json``). What it needs beyond the search is simulated: one node
more, a disk or a network twice as fast, twice and ten times the data, the loss of a node.
"""

from __future__ import annotations

import math
from typing import Any

from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity.estimate import Estimate
from windtunnel.sim.capacity.planner import Option, Planner, Search
from windtunnel.sim.capacity.question import candidate_document
from windtunnel.sim.capacity.search import front

GROWTH = (2, 10)
MTBF_S = (24 * 3600.0, 30 * 24 * 3600.0)  # spot instances of a busy pool; ordinary machines
BUSY = 0.8  # a resource that is busy this much is the bottleneck
NEXT_BEST = 4


def answer(search: Search, planner: Planner) -> dict[str, Any]:
    """The whole answer. Infinite and unknown numbers are null."""
    question, chosen = search.question, search.recommended
    measured = [o for o in search.options if o.estimate.ok]
    order = front((o.cost_usd, o.estimate.seconds, o.candidate.number) for o in measured)
    by_number = {o.candidate.number: o for o in measured}
    objective = question.objective
    result: dict[str, Any] = {
        "schema": 1,
        "scenario": str(question.variants[0].document["name"]),
        "kind": "job",
        "objective": {"deadline_s": objective.deadline_s, "budget_usd": objective.budget_usd, "confidence": question.confidence},
        "candidates": {
            "asked": len(question.candidates), "simulated": search.simulated, "ruled_out_by_bounds": search.hopeless,
            "cannot_run": len(search.refused),
        },
        "notes": [*question.notes, *_refusals(search)],
        "front": [option_document(search, by_number[n]) for n in order],
        "recommended": None,
        "next_best": [],
        "closest": None,
    }  # fmt: skip
    if chosen is None:
        closest = next((o for o in search.options if o.estimate.ok), None)
        result["closest"] = closest and option_document(search, closest)
        return result
    others = [o for o in search.options if o.candidate != chosen.candidate and o.chance >= question.confidence and o.estimate.ok]
    result["recommended"] = option_document(search, chosen)
    result["next_best"] = [option_document(search, o) for o in others[:NEXT_BEST]]
    result["bottleneck"], result["idle"] = bottleneck(chosen.estimate.used), idle(chosen.estimate.used)
    result["buy_next"] = _buy_next(planner, chosen)
    result["sensitivity"] = _sensitivity(planner, chosen, others)
    result["extrapolation"] = _extrapolation(chosen)
    return result


def option_document(search: Search, option: Option) -> dict[str, Any]:
    """One plan with its numbers."""
    low, high = option.interval_s
    candidate, estimate, spread = option.candidate, option.estimate, option.spread
    return {
        "number": candidate.number,
        "engine": search.question.variants[candidate.variant].label, "shape": candidate.shape, "type": candidate.type,
        "nodes": candidate.count, "cpus": candidate.cpus, "gpus": candidate.gpus, "price_per_hour": candidate.price_per_hour,
        "makespan_s": estimate.seconds, "makespan_90_s": [low, high], "cost_usd": option.cost_usd,
        "chance": option.chance, "lower_bound_s": option.bound_s, "used": dict(estimate.used),
        "simulated_partitions": estimate.simulated, "partitions": estimate.partitions, "simulated_s": estimate.simulated_s,
        "checked": estimate.checked,
        "error": {
            "model": spread.law.sd, "bias": spread.law.mean, "cells": spread.law.cells, "seeds": spread.seeds, "size": spread.size,
            "distance": spread.distance, "sigma": spread.sigma,
        },
    }  # fmt: skip


def _refusals(search: Search) -> list[str]:
    """Why candidates have no time, one sentence a reason, those of whole engines first."""
    sentences: dict[str, None] = {}
    for option in search.options:
        if not option.estimate.ok:
            label = search.question.variants[option.candidate.variant].label
            sentences.setdefault(f"{label}, {option.candidate.shape}: {option.estimate.status}: {option.estimate.reason}", None)
    found = list(sentences)
    return [*found[:3], f"and {len(found) - 3} more that fail"] if len(found) > 4 else found


# -- where time goes ----------------------------------------------------------------------------------------------------


def bottleneck(used: dict[str, float] | Any) -> dict[str, Any]:
    """The busiest resource; where none is busy, waiting (for loads, the driver, the last tasks) takes the time."""
    name, share = max(used.items(), key=lambda item: item[1])
    return {"resource": name if share >= BUSY else "waiting", "busiest": name, "share": share}


def idle(used: dict[str, float] | Any) -> dict[str, float]:
    """Idle shares of the processors, which are what is paid for."""
    return {name: 1.0 - used[name] for name in ("CPUs", "GPUs") if name in used}


def _buy_next(planner: Planner, chosen: Option) -> list[dict[str, Any]]:
    """What a change of the cluster would bring: seconds and dollars less (or more), by simulation."""
    node = _node(planner, chosen)
    changes: list[tuple[str, dict[str, Any] | None, float]] = [
        (
            "disks twice as fast",
            {"disk": {"read": 2 * node.disk.read_bytes_per_s, "write": 2 * node.disk.write_bytes_per_s}},
            1.0,
        ),
        ("network twice as fast", {"nic": 2 * node.nic_bytes_per_s}, 1.0),
        ("twice the memory", {"memory": 2 * node.memory_bytes}, 1.0),
    ]
    found = [_change(name, estimate, chosen, 1.0) for name, estimate in planner.what_if(chosen, changes).items()]
    more = [
        c for c in planner.question.candidates
        if c.variant == chosen.candidate.variant and c.type == chosen.candidate.type and c.count > chosen.candidate.count
    ]  # fmt: skip
    if more:
        larger = planner.look_at(more[0])
        extra = more[0].count - chosen.candidate.count
        name = f"{extra} more node{'s' if extra > 1 else ''} ({more[0].shape})"
        found.insert(0, _change(name, larger.estimate, chosen, more[0].count / chosen.candidate.count))
    return sorted((f for f in found if f["saves_s"] is not None), key=lambda f: -f["saves_s"])


def _change(name: str, estimate: Estimate, chosen: Option, price: float) -> dict[str, Any]:
    if not estimate.ok:
        return {"what": name, "saves_s": None, "costs_usd": None}
    before = chosen.estimate.seconds
    cost = chosen.candidate.price_per_hour * price * estimate.seconds / 3600
    return {"what": name, "saves_s": before - estimate.seconds, "costs_usd": cost - chosen.cost_usd}


def _node(planner: Planner, option: Option) -> Any:
    return from_document(candidate_document(planner.question, option.candidate), planner.question.file).cluster.nodes[0]


# -- how the plan bears change ------------------------------------------------------------------------------------------


def _sensitivity(planner: Planner, chosen: Option, others: list[Option]) -> dict[str, Any]:
    growth = planner.what_if(chosen, [(f"{f} times the data", None, float(f)) for f in GROWTH])
    limit = planner.question.limit_s(chosen.candidate)
    grown = []
    for factor, estimate in zip(GROWTH, growth.values(), strict=True):
        seconds = estimate.seconds if estimate.ok else None
        grown.append({
            "factor": factor, "makespan_s": seconds, "reason": estimate.reason,
            "cost_usd": None if seconds is None else chosen.candidate.price_per_hour * seconds / 3600,
            "chance": None if seconds is None else chosen.spread.within(seconds, limit),
            "nodes_in_proportion": None if seconds is None or limit == math.inf else _nodes_needed(chosen, seconds, limit),
        })  # fmt: skip
    return {"input": grown, "price": _price(planner, chosen, others), "failures": _failures(planner, chosen)}


def _nodes_needed(chosen: Option, seconds: float, limit: float) -> int:
    """Nodes that keep the limit as surely as the plan does, if more nodes are faster in proportion."""
    low, high = chosen.spread.interval(1.0)
    room = limit / high
    return max(chosen.candidate.count, math.ceil(chosen.candidate.count * seconds / room)) if low > 0 else chosen.candidate.count


def _price(planner: Planner, chosen: Option, others: list[Option]) -> dict[str, Any] | None:
    """The rise of the plan's price at which the next type takes its place."""
    rivals = [o for o in others if o.candidate.type != chosen.candidate.type and o.cost_usd > 0]
    if not rivals or not chosen.cost_usd:
        return None
    rival = min(rivals, key=lambda o: o.cost_usd)
    return {"rise": rival.cost_usd / chosen.cost_usd - 1.0, "then": rival.candidate.shape}


def _failures(planner: Planner, chosen: Option) -> dict[str, Any]:
    """What the loss of one node costs (simulated half-way, the node back after its start), and so what rates of it cost."""
    if chosen.candidate.count == 1:
        return {"one_loss_s": None, "reason": "the loss of the only node ends the job, which begins anew", "rates": []}
    lost, base = planner.node_loss(chosen)
    if lost is None or base is None:
        return {"one_loss_s": None, "reason": "nothing was simulated on the scenario's own cluster", "rates": []}
    if not (lost.ok and base.ok):
        return {"one_loss_s": None, "reason": f"the loss of one ends the job: {lost.reason or base.reason}", "rates": []}
    one = max(0.0, lost.seconds - base.seconds)
    rates = []
    for mtbf in MTBF_S:
        losses = chosen.candidate.count * chosen.estimate.seconds / mtbf
        seconds = chosen.estimate.seconds + losses * one
        limit = planner.question.limit_s(chosen.candidate)
        rates.append({"mtbf_s": mtbf, "losses": losses, "makespan_s": seconds, "chance": chosen.spread.within(seconds, limit)})
    return {"one_loss_s": one, "reason": None, "rates": rates}


def _extrapolation(chosen: Option) -> dict[str, Any]:
    """How far the plan is from what was simulated and from what the model was compared on."""
    estimate, spread = chosen.estimate, chosen.spread
    return {
        "partitions": estimate.partitions / max(1, estimate.simulated), "cpus": chosen.candidate.cpus / spread.law.cpus,
        "checked_cpus": spread.law.cpus, "size_error": spread.size, "distance_error": spread.distance,
    }  # fmt: skip
