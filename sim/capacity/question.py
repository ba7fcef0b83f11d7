"""What is asked of the planner, as data: variants of the work, clusters that may run it, and what must be met.

A *variant* is a scenario document with one engine and its options (a scenario's engines times its sweep; the systems of a published
table). A *candidate* is a variant on a number of equal nodes, or on the cluster that the scenario describes. The module makes
scenario documents of candidates and simulates nothing.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError, nearest
from windtunnel.scenario.reading import Scenario, assign, from_document
from windtunnel.spec.catalogue import InstanceType, read_catalogue, shipped
from windtunnel.spec.workload import Objective

#: numbers of nodes that are tried; dense where one node more matters
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """``document``: the scenario with this engine alone; ``base_cpus``, ``base_gpus``: of the cluster its pools were sized for.

    ``drawn``: durations vary, so that seeds matter.
    """

    label: str
    engine: str
    document: dict[str, Any]
    base_cpus: int
    base_gpus: int
    serving: bool
    drawn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """``number``: its place in the grid, which breaks ties. ``type`` None: the scenario's own cluster."""

    number: int
    variant: int
    type: str | None
    count: int
    cpus: int
    gpus: int
    price_per_hour: float

    @property
    def shape(self) -> str:
        """For people."""
        return "the scenario's cluster" if self.type is None else f"{self.count} × {self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``limit`` of time and money, how sure to be (``confidence``), and the grid. ``tolerance``: how far from the best the search
    may stop, as a share of the cost. ``gpu_speed``: seconds on the scenario's device over seconds on that kind."""

    variants: tuple[Variant, ...]
    candidates: tuple[Candidate, ...]
    objective: Objective
    confidence: float = 0.9
    tolerance: float = 0.02
    gpu_speed: Mapping[str, float]
    file: str
    seed: int
    calibration: str | None = None
    notes: tuple[str, ...] = ()

    def limit_s(self, candidate: Candidate) -> float:
        """Seconds within which the candidate keeps both the deadline and the budget; infinite without either."""
        limits = [self.objective.deadline_s or float("inf")]
        if self.objective.budget_usd is not None and candidate.price_per_hour > 0:
            limits.append(self.objective.budget_usd * 3600 / candidate.price_per_hour)
        return min(limits)

    @property
    def fastest(self) -> bool:
        """Whether time is what is left to minimise: a budget without a deadline, or no price anywhere."""
        objective = self.objective
        if objective.budget_usd is not None and objective.deadline_s is None:
            return True
        return not any(c.price_per_hour for c in self.candidates)


# -- the work -----------------------------------------------------------------------------------------------------------


def variants(document: dict[str, Any], file: str, engines: Sequence[str] = ()) -> tuple[Variant, ...]:
    """Every engine with every point of the sweep. Raises InputError for sweeps of the cluster, which is the planner's to choose."""
    base = copy.deepcopy(document)
    published = base.pop("published", None)
    if "faults" in base:
        raise InputError(f"{file}: a plan chooses the cluster, so that its faults have no target; remove [[faults]] (see mtbf)")
    for key in base.get("sweep", {}):
        if key.startswith("cluster"):
            raise InputError(f"{file}: sweep.{key}: the planner chooses the cluster; sweep options of engines or of the work")
    choices = _systems(published) if published else base.get("engines") or _all_engines(base)
    known = [c["name"] for c in choices]
    for name in engines:
        if name not in known and published:
            raise InputError(f"{file}: no engine {name!r} in that table{nearest(name, known)}")
    if engines and not published:
        choices = [c for c in choices if c["name"] in engines] + [{"name": n} for n in engines if n not in known]
    chosen = [c for c in choices if not engines or c["name"] in engines]
    found = [v for choice in chosen for v in _variants(base, choice, file)]
    labels = [v.label for v in found]
    if len(set(labels)) != len(labels):
        raise InputError(f"{file}: labels of engines must be unique: {', '.join(labels)}")
    return tuple(found)


def _variants(base: dict[str, Any], choice: dict[str, Any], file: str) -> list[Variant]:
    document = {**copy.deepcopy(base), "engines": [{k: v for k, v in choice.items() if k != "set"}]}
    for key, value in choice.get("set", {}).items():
        assign(document, key, value, file)
    found = []
    for point in from_document(document, file).expand():
        scenario = point.scenario
        label = scenario.engines[0].label
        if point.sweep:
            label += ", " + ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in point.sweep.items())
        plain = {**scenario.document, "engines": [{**scenario.document["engines"][0], "label": label}]}
        found.append(
            Variant(
                label=label, engine=scenario.engines[0].name, document=plain, base_cpus=scenario.cluster.cpus,
                base_gpus=scenario.cluster.gpus, serving=scenario.serving is not None,
                drawn=any(op.get("cost", {}).get("cv", 0) > 0 for op in plain.get("operators", ())),
            )
        )  # fmt: skip
    return found


def _systems(published: dict[str, Any]) -> list[dict[str, Any]]:
    """The systems of a published table as engines."""
    return [{"label": system, **copy.deepcopy(engine)} for system, engine in published.get("engines", {}).items()]


def _all_engines(document: dict[str, Any]) -> list[dict[str, Any]]:
    from windtunnel.engines.models.catalogue import ENTRIES

    return [{"name": "ray-serve"}] if "arrivals" in document else [{"name": name} for name in ENTRIES]


# -- the clusters -------------------------------------------------------------------------------------------------------


def types_of(document: dict[str, Any], file: str, catalogue: Path | None = None) -> dict[str, InstanceType]:
    """Types by name: those shipped, below those of the scenario's own catalogue and of ``catalogue``."""
    own = document.get("cluster", {}).get("catalogue")
    return {
        **shipped(),
        **(read_catalogue(Path(file).parent / own, quotes=False) if own else {}),
        **(read_catalogue(catalogue) if catalogue else {}),
    }


def eligible(
    scenario: Scenario, types: Mapping[str, InstanceType], gpu_speed: Mapping[str, float], wanted: Sequence[str] = ()
) -> tuple[list[InstanceType], list[str]]:
    """The types that can run the work, and a sentence for each kind of device that is left out.

    A cost on a device holds for the kind it was declared for: other kinds need a speed. Types with devices are left out where no
    operator asks for one, unless they are wanted by name.
    """
    for name in wanted:
        if name not in types:
            raise InputError(f"there is no instance type {name!r}{nearest(name, types)}")
    pool = [types[n] for n in dict.fromkeys(wanted)] if wanted else list(types.values())
    if not _needs_devices(scenario):
        return [t for t in pool if wanted or not t.node.gpus.count], []
    pool = [t for t in pool if t.node.gpus.count]
    declared = {n.gpus.kind for n in scenario.cluster.nodes if n.gpus.count}
    if declared == {"slot"}:
        return pool, [
            "devices of every kind are taken to be as fast as the scenario's slots; --gpu-speed KIND=FACTOR says otherwise"
        ]
    known = declared | set(gpu_speed)
    left = sorted({t.node.gpus.kind for t in pool} - known)
    notes = [f"left out for want of a speed beside {', '.join(sorted(declared))}: {', '.join(left)} (--gpu-speed KIND=FACTOR)"]
    return [t for t in pool if t.node.gpus.kind in known], notes if left else []


def _needs_devices(scenario: Scenario) -> bool:
    if scenario.serving is not None:
        return any(d.resources.gpus > 0 for d in scenario.serving.deployments)
    return any(op.resources.gpus > 0 for op in scenario.workload.pipeline.operators)


def grid(
    variants: Sequence[Variant], types: Sequence[InstanceType], counts: Sequence[int], *, own: Scenario | None = None,
    most_gpus: int | None = None,
) -> tuple[Candidate, ...]:  # fmt: skip
    """Every variant on every number of every type, then on the scenario's ``own`` cluster. ``most_gpus``: at hand, in all."""
    found: list[Candidate] = []
    for variant, kind, count in itertools.product(range(len(variants)), types, counts):
        node = kind.node
        if most_gpus is not None and count * node.gpus.count > most_gpus:
            continue
        found.append(
            Candidate(
                number=len(found), variant=variant, type=kind.name, count=count, cpus=count * node.cpus,
                gpus=count * node.gpus.count, price_per_hour=count * node.price_per_hour_usd,
            )
        )  # fmt: skip
    if own is not None:
        cluster = own.cluster
        for variant in range(len(variants)):
            found.append(
                Candidate(
                    number=len(found), variant=variant, type=None, count=sum(n.count for n in cluster.nodes),
                    cpus=cluster.cpus, gpus=cluster.gpus, price_per_hour=cluster.price_per_hour_usd,
                )
            )  # fmt: skip
    return tuple(found)


# -- a candidate as a scenario ------------------------------------------------------------------------------------------


def candidate_document(question: Question, candidate: Candidate, node: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The scenario of a candidate: its cluster in place of the file's, pools of workers in proportion.

    ``node``: further keys of the node group, for what-if questions.
    """
    variant = question.variants[candidate.variant]
    document = copy.deepcopy(variant.document)
    document.pop("sweep", None)
    if candidate.type is None:
        for group in document["cluster"]["nodes"] if node else ():
            group.update(copy.deepcopy(dict(node or {})))
        return document
    group = {"name": "node", "type": candidate.type, "count": candidate.count, **(node or {})}
    speed = question.gpu_speed.get(_kind(question, candidate.type))
    if speed is not None:
        group["gpus"] = {"speed": speed}
    document["cluster"] = {**{k: v for k, v in document["cluster"].items() if k != "nodes"}, "nodes": [group]}
    _scale_pools(document, variant, candidate)
    return document


def _kind(question: Question, name: str) -> str:
    document = question.variants[0].document
    return _types(str(document.get("cluster", {}).get("catalogue") or ""), question.file)[name].node.gpus.kind


@cache
def _types(own: str, file: str) -> dict[str, InstanceType]:
    return types_of({"cluster": {"catalogue": own}} if own else {}, file)


def _scale_pools(document: dict[str, Any], variant: Variant, candidate: Candidate) -> None:
    """Pools of workers keep their share of the devices (or of the CPUs) of the cluster that the file describes."""
    for operator in document.get("operators", ()):
        bounds = operator.get("concurrency")
        if bounds is None:
            continue
        on_device = operator.get("resources", {}).get("gpus", 0) > 0
        before, now = (variant.base_gpus, candidate.gpus) if on_device else (variant.base_cpus, candidate.cpus)
        low, high = bounds if isinstance(bounds, list) else (bounds, bounds)
        scaled = [max(1, b * now // max(before, 1)) for b in (low, high)]
        operator["concurrency"] = scaled if isinstance(bounds, list) else scaled[1]


def resized(document: dict[str, Any], partitions: int | None = None, factor: float = 1.0) -> dict[str, Any]:
    """The same work on fewer partitions of the same size, or on ``factor`` times the data in partitions of the same size."""
    result = copy.deepcopy(document)
    if "dataset" not in result or not isinstance(result["dataset"], dict):
        result["scale"] = result.get("scale", 1.0) * factor
        return result
    data = result["dataset"]
    before = data.get("partitions", 1)
    after = partitions if partitions is not None else max(1, round(before * factor))
    data["rows"] = max(1, round(data["rows"] * after / before))
    data["partitions"] = after
    return result
