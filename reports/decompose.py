"""Why one arm takes longer than another on the same work: a sum of parts that is exact, and says how much it cannot explain. Pure.

The difference of two arms, start-up included, is the difference of their accounts (`windtunnel.reports.account`), part by part. An
engine has a model (Spark works in bulk, Ray streams), and the embedded pair shows what that model alone is worth, in one local
world: with both of `bulk` and `streaming` measured, their difference is the part ``model``, and every other part is what is left
when it is taken out of the difference of the accounts:

    part(A, B) = (A's part − B's part) − (the part of A's model − the part of B's model),  model(A, B) = T(model of A) − T(model of B)

The parts still add up to the difference. Two engines of one model differ by no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from windtunnel.records.record import RunRecord
from windtunnel.reports.account import PARTS, Account, Resource, account, binding
from windtunnel.reports.arms import good, is_aa
from windtunnel.reports.metrics import middle

Basis = Literal["measured", "lower bound", "upper bound", "one side", "rest"]

#: which of the embedded pair works as an engine does; the simulated engines of these names are built on the same two
MODELS = {
    "bulk": "bulk", "spark": "bulk", "mapreduce": "bulk",
    "streaming": "streaming", "ray": "streaming", "ray-core": "streaming", "flink": "streaming", "dask": "streaming",
    "daft": "streaming",
}  # fmt: skip
NAMES = {
    "start": "start-up", "model": "model", "loading": "loading models", "kernels": "kernels", "bridge": "bridge and serialization",
    "spill": "spill", "own": "the engine's own work", "scheduling": "scheduling", "idle": "idle slots", "unexplained": "unexplained",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds of the difference; ``basis``: how they are known ("one side": one arm does not tell it, and counts as 0).

    ``within_noise``: no larger than two equal arms may differ.
    """

    key: str
    name: str
    seconds: float
    basis: Basis
    within_noise: bool


@dataclass(frozen=True, slots=True)
class Decomposition:
    """``slower`` − ``faster`` in seconds, start-up included; ``parts`` add up to it.

    ``models``: those of (slower, faster), or None where the embedded pair was not measured beside them: then what the model makes
    lies in the other parts. ``resource``: the slots whose time is accounted for.
    """

    title: str
    slower: str
    faster: str
    slower_s: float
    faster_s: float
    parts: tuple[Part, ...]
    models: tuple[str, str] | None
    resource: Resource

    @property
    def difference_s(self) -> float:
        """The sum of the parts."""
        return self.slower_s - self.faster_s

    def share(self, *bases: Basis) -> float:
        """Share of the parts' sizes that is known in one of these ways."""
        sizes = sum(abs(p.seconds) for p in self.parts)
        return sum(abs(p.seconds) for p in self.parts if p.basis in bases) / sizes if sizes else 0.0


def decompositions(title: str, records: Sequence[RunRecord], noise: float | None) -> tuple[Decomposition, ...]:
    """Every real arm of a group against the fastest that may be compared with it, start-up included."""
    arms = _middles(records)
    fastest = min(arms.values(), key=lambda r: (_total(r), r.label), default=None)
    if fastest is None:
        return ()
    found = (decompose(title, arms, label, fastest.label, noise) for label in sorted(arms) if label != fastest.label)
    return tuple(sorted((d for d in found if d is not None), key=lambda d: d.difference_s))


def between(title: str, records: Sequence[RunRecord], a: str, b: str, noise: float | None) -> Decomposition | None:
    """Two arms by label, in whatever order; None where one has no good real run."""
    arms = _middles(records)
    if a not in arms or b not in arms or a == b:
        return None
    slow, fast = sorted((a, b), key=lambda label: -_total(arms[label]))
    return decompose(title, arms, slow, fast, noise)


def _middles(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """The middle run of each real arm whose work went through operators; A/A arms show nothing new."""
    arms: dict[str, list[RunRecord]] = {}
    for record in good([r for r in records if r.clock == "wall" and not is_aa(r.label)]):
        arms.setdefault(record.label, []).append(record)
    return {label: middle(part) for label, part in arms.items()}


def _total(record: RunRecord) -> float:
    return (record.open_s or 0.0) + (record.prepare_s or 0.0) + (record.makespan_s or 0.0)


def decompose(title: str, arms: Mapping[str, RunRecord], slower: str, faster: str, noise: float | None) -> Decomposition | None:
    """The difference of two arms, from the middle run of each; ``arms`` holds the embedded pair too, if it was measured."""
    resource = binding(arms[faster])
    pair = _accounts(arms[slower], arms[faster], resource)
    if pair is None:
        return None
    a, b = pair
    twins = _twins(arms, slower, faster)
    known = None if twins is None else _accounts(*twins, resource)
    model = dict.fromkeys(PARTS, 0.0) if known is None else {p: known[0].parts[p] - known[1].parts[p] for p in PARTS}
    seconds = {"start": a.start_s - b.start_s, "model": sum(model.values())}
    seconds |= {p: a.parts[p] - b.parts[p] - model[p] for p in PARTS}
    least = (noise or 0.0) * b.makespan_s
    return Decomposition(
        title=title, slower=slower, faster=faster, slower_s=a.start_s + a.makespan_s, faster_s=b.start_s + b.makespan_s,
        parts=tuple(_part(key, value, a, b, resource, least) for key, value in seconds.items() if abs(value) > 1e-9),
        models=None if twins is None or known is None else (twins[0].engine, twins[1].engine), resource=resource,
    )  # fmt: skip


def _accounts(slower: RunRecord, faster: RunRecord, resource: Resource) -> tuple[Account, Account] | None:
    a, b = account(slower, resource), account(faster, resource)
    return None if a is None or b is None else (a, b)


def _twins(arms: Mapping[str, RunRecord], slower: str, faster: str) -> tuple[RunRecord, RunRecord] | None:
    """The embedded engines that work as the two arms do; None where an arm has no such model or its twin was not measured."""
    found = []
    for label in (slower, faster):
        model = MODELS.get(arms[label].engine)
        if model == arms[label].engine:
            found.append(arms[label])
            continue
        twin = next((r for r in arms.values() if r.engine == model), None)
        if twin is None:
            return None
        found.append(twin)
    return found[0], found[1]


def _part(key: str, seconds: float, a: Account, b: Account, resource: Resource, least: float) -> Part:
    name = "device idle" if key == "idle" and resource == "gpus" else NAMES[key]
    return Part(key, name, seconds, _basis(key, a, b), key not in ("start", "unexplained") and abs(seconds) <= least)


def _basis(key: str, a: Account, b: Account) -> Basis:
    """A foreign engine tells the near side of its bridge only, and in one sum what it does beside kernels; or nothing of a part."""
    if key == "unexplained":
        return "rest"
    if key in PARTS and not (key in a.told and key in b.told):
        return "one side"
    if a.open and b.open:
        return "measured"
    return {"bridge": "lower bound", "own": "upper bound"}.get(key, "measured")  # type: ignore[return-value]
