"""Plans of services: how many replicas on how many nodes keep the latency that was asked for, at the least price an hour.

The price of a candidate is known before anything is simulated, so candidates are simulated from the cheapest up until one keeps the
objective surely enough: none of a higher price is better. Of those that cost the same the surest is the plan. Replicas follow from the
offered load: a deployment that is asked ``r`` times a second for ``s`` seconds needs ``r s`` busy replicas at least (batches share
their fixed part), and is given that over a utilisation, of which several are tried. Nodes follow from replicas: as many as hold them.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windtunnel.engines.models.arrivals import trace_times
from windtunnel.errors import InputError
from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity import odds
from windtunnel.sim.capacity.answer import bottleneck, idle
from windtunnel.sim.capacity.bench import Bench, bench
from windtunnel.sim.capacity.estimate import Estimate
from windtunnel.sim.capacity.question import Candidate, Question, candidate_document
from windtunnel.sim.capacity.trial import Order
from windtunnel.spec.cluster import NodeSpec
from windtunnel.spec.serving import ArrivalSpec, Calls, DeploymentSpec, ServingSpec

LOADS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2)  # utilisations that replicas are counted for
ROUND = 4
SEEDS = 2
GROWTH = (2, 10)
WINDOW_S = 10.0  # peaks of a trace are counted over this


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A candidate: its grid entry, the replicas of each deployment, and its scenario."""

    candidate: Candidate
    replicas: Mapping[str, int]
    document: dict[str, Any]


# -- load and room --------------------------------------------------------------------------------------------------------


def peak_rate(arrivals: ArrivalSpec) -> float:
    """Requests a second at the worst time; of a closed loop as many as its clients could send, unanswered work aside."""
    if arrivals.kind == "steps":
        return max(rate for _, rate in arrivals.steps)
    if arrivals.kind == "trace":
        counts = Counter(int(t // WINDOW_S) for t in trace_times(arrivals))
        return max(counts.values()) / WINDOW_S
    if arrivals.kind == "closed":
        raise InputError("a closed loop sends as fast as it is answered: a plan needs a rate, so arrivals of another kind")
    return (arrivals.rate_per_s or 0.0) * (1.0 + arrivals.swing)


def calls_a_request(serving: ServingSpec) -> dict[str, float]:
    """How often each deployment is called for one request."""
    by_name = {d.name: d for d in serving.deployments}
    found: Counter[str] = Counter()

    def visit(name: str) -> None:
        found[name] += 1
        for called in _names(by_name[name].calls):
            visit(called)

    visit(serving.deployments[0].name)
    return {d.name: float(found[d.name]) for d in serving.deployments}


def _names(calls: Calls) -> list[str]:
    return [n for c in calls for n in ([c] if isinstance(c, str) else _names(c))]


def busy_replicas(serving: ServingSpec, rate: float, overhead_s: float) -> dict[str, float]:
    """Replicas that are busy on average at that rate, by deployment."""
    calls = calls_a_request(serving)
    return {d.name: rate * calls[d.name] * (_seconds(d) + overhead_s) for d in serving.deployments}


def _seconds(deployment: DeploymentSpec) -> float:
    """Of a call in a full batch."""
    return deployment.cost.per_item_s + deployment.cost.per_call_s / deployment.batch.max_size


def nodes_for(serving: ServingSpec, replicas: Mapping[str, int], node: NodeSpec) -> int | None:
    """Nodes that hold the replicas, largest first into the first node with room; None where one fits no node."""
    free: list[list[float]] = []
    needs = [(d.resources.gpus, d.resources.cpus) for d in serving.deployments for _ in range(replicas[d.name])]
    for gpus, cpus in sorted(needs, reverse=True):
        if gpus > node.gpus.count or cpus > node.cpus:
            return None
        place = next((f for f in free if f[0] >= gpus - 1e-9 and f[1] >= cpus - 1e-9), None)
        if place is None:
            free.append(place := [float(node.gpus.count), float(node.cpus)])
        place[0] -= gpus
        place[1] -= cpus
    return max(1, len(free))


# -- candidates -----------------------------------------------------------------------------------------------------------


def services(question: Question, rate: float, factor: float = 1.0) -> list[Service]:
    """Every variant, type and load: the replicas they need and the fewest nodes that hold them; cheapest first.

    ``factor``: on so many times the rate.
    """
    counts = sorted({c.count for c in question.candidates})
    kinds = {(c.variant, c.type): c for c in reversed(question.candidates)}  # the smallest count of each
    found: dict[tuple[Any, ...], Service] = {}
    for (variant, kind), candidate in sorted(kinds.items(), key=lambda item: item[1].number):
        scenario = from_document(question.variants[variant].document, question.file)
        assert scenario.serving is not None
        grid = candidate_document(question, candidate)
        node = scenario.cluster.nodes[0] if kind is None else from_document_node(grid, question.file)
        busy = busy_replicas(scenario.serving, rate * factor, _overhead_s(grid, question.file))
        for load in LOADS:
            replicas = {n: max(1, math.ceil(b / load)) for n, b in busy.items()}
            least = nodes_for(scenario.serving, replicas, node)
            count = None if least is None else next((c for c in counts if c >= least), None)
            if count is None or (kind is None and count != candidate.count):
                continue
            service = _service(question, candidate, count, replicas, grid, factor)
            found.setdefault((variant, kind, count, tuple(replicas.items())), service)
    return sorted(found.values(), key=lambda s: (s.candidate.price_per_hour, s.candidate.number, sum(s.replicas.values())))


def from_document_node(document: dict[str, Any], file: str) -> NodeSpec:
    """The node of a grid entry, whatever its deployments need."""
    return from_document(document, file).cluster.nodes[0]


def _overhead_s(document: dict[str, Any], file: str) -> float:
    """CPU seconds that the engine's replica spends on a request beside the handler."""
    from windtunnel.registry import load_engine
    from windtunnel.sim.capacity.trial import engine_name

    scenario = from_document(document, file)
    engine: Any = load_engine(engine_name(scenario))
    settings = engine.open(scenario.cluster, {**scenario.engines[0].options, "seed": 0}).settings
    return float(settings.costs.replica_s)


def _service(
    question: Question, first: Candidate, count: int, replicas: Mapping[str, int], grid: dict[str, Any], factor: float
) -> Service:
    each = 1 if first.type is None else count / first.count
    candidate = Candidate(
        number=first.number, variant=first.variant, type=first.type, count=count, cpus=round(first.cpus * each),
        gpus=round(first.gpus * each), price_per_hour=first.price_per_hour * each,
    )  # fmt: skip
    document = copy.deepcopy(grid)
    if first.type is not None:
        document["cluster"]["nodes"][0]["count"] = count
    for deployment in document["deployments"]:
        deployment["replicas"] = replicas[deployment["name"]]
    faster(document["arrivals"], factor)
    return Service(candidate=candidate, replicas=replicas, document=document)


def faster(arrivals: dict[str, Any], factor: float) -> None:
    """So many times the rate; a trace is left as it is (its times say when, not how often)."""
    if "rate_per_s" in arrivals:
        arrivals["rate_per_s"] *= factor
    if "steps" in arrivals:
        arrivals["steps"] = [[t, r * factor] for t, r in arrivals["steps"]]


# -- the search -----------------------------------------------------------------------------------------------------------


class Search:
    """Simulates services and judges them."""

    def __init__(self, question: Question, place: Bench) -> None:
        self.question, self._bench = question, place
        self.measured: dict[int, tuple[Service, Estimate, odds.Spread]] = {}
        self._serial = 0

    def measure(self, services: list[Service], tag: str) -> list[int]:
        """Each with its seeds; numbers under which they are kept."""
        orders = []
        numbers = []
        for service in services:
            self._serial += 1
            numbers.append(self._serial)
            orders += [self._order(service, (tag, self._serial), seed) for seed in range(SEEDS + 1)]
        estimates = self._bench.estimates(orders)
        for i, (number, service) in enumerate(zip(numbers, services, strict=True)):
            replicas = estimates[i * (SEEDS + 1) : (i + 1) * (SEEDS + 1)]
            failed = next((e for e in replicas if not e.ok), None)
            law = odds.law_of(self.question.variants[service.candidate.variant].engine, serving=True)
            spread = odds.spread(law, service.candidate.cpus, seeds=[e.p99_s or 0.0 for e in replicas])
            self.measured[number] = service, failed or replicas[0], spread
        return numbers

    def _order(self, service: Service, tag: Any, seed: int) -> Order:
        return Order(
            key=(service.candidate.number, tag, seed, 1), document=service.document, file=self.question.file,
            seed=self.question.seed + seed,
        )  # fmt: skip

    def chance(self, number: int) -> float:
        """Probability of keeping the p99 and the budget (which is sure, at list price)."""
        service, estimate, spread = self.measured[number]
        objective = self.question.objective
        budget = objective.budget_usd
        if not estimate.ok or estimate.p99_s is None:
            return 0.0
        if budget is not None and service.candidate.price_per_hour * estimate.seconds / 3600 > budget:
            return 0.0
        return spread.within(estimate.p99_s, objective.p99_s or math.inf)

    def cheapest(self, services: list[Service], tag: str) -> tuple[int | None, int]:
        """(the best of the lowest price at which one keeps the objective, how many were looked at); services come cheapest first.

        Whoever pays for nodes may fill them: of equal prices the one that keeps the objective most surely is best.
        """
        looked = 0
        while looked < len(services):
            numbers = self.measure(services[looked : looked + ROUND], tag)
            looked += len(numbers)
            good = [n for n in numbers if self.keeps(n)]
            if good:
                price = min(self.price(n) for n in good)
                equal = [s for s in services[looked:] if s.candidate.price_per_hour <= price]
                looked += len(equal)
                good += [n for n in self.measure(equal, tag) if self.keeps(n)]
                return min((n for n in good if self.price(n) <= price), key=self.rank), looked
        return None, looked

    def keeps(self, number: int) -> bool:
        """Whether it keeps the objective surely enough."""
        return self.chance(number) >= self.question.confidence

    def price(self, number: int) -> float:
        """Dollars an hour."""
        return self.measured[number][0].candidate.price_per_hour

    def rank(self, number: int) -> tuple[float, float, float, int]:
        """Cheapest first, then the surest and the quickest (to a tenth of a per cent and two digits), then the fewest replicas."""
        service, estimate, _ = self.measured[number]
        p99_s = float(f"{estimate.p99_s or math.inf:.2g}")
        return self.price(number), -round(self.chance(number), 3), p99_s, sum(service.replicas.values())


def plan_serving(question: Question, jobs: int, progress: Callable[[str, int], None]) -> dict[str, Any]:
    """The answer for a serving scenario: see `windtunnel.sim.capacity.answer` for that of a job. Raises InputError."""
    scenario = from_document(question.variants[0].document, question.file)
    assert scenario.serving is not None
    if question.objective.p99_s is None:
        raise InputError(f"{question.file}: a plan of a service needs a latency to keep: [objective] p99, or --p99 50ms")
    rate = peak_rate(scenario.serving.arrivals)
    found = services(question, rate)
    if not found:
        raise InputError("no candidate holds the replicas that this rate needs: allow more nodes (--count) or larger types")
    with bench(jobs, progress) as place:
        search = Search(question, place)
        best, looked = search.cheapest(found, "search")
        if best is not None:
            search.cheapest(found[looked:], "search")  # the next best
        return _answer(search, found, best, rate)


def _answer(search: Search, found: list[Service], best: int | None, rate: float) -> dict[str, Any]:
    question = search.question
    searched = list(search.measured)
    good = sorted((n for n in searched if search.measured[n][1].ok), key=lambda n: search.measured[n][1].p99_s or math.inf)
    objective = question.objective
    result: dict[str, Any] = {
        "schema": 1, "scenario": str(question.variants[0].document["name"]), "kind": "serving",
        "objective": {"p99_s": objective.p99_s, "budget_usd": objective.budget_usd, "confidence": question.confidence},
        "peak_rate_per_s": rate,
        "candidates": {
            "asked": len(found), "simulated": len(searched), "ruled_out_by_bounds": 0, "cannot_run": 0,
        },
        "notes": list(question.notes), "front": [service_document(search, n) for n in _front(search, good)],
        "recommended": None, "next_best": [], "closest": None,
    }  # fmt: skip
    if best is None:
        result["closest"] = service_document(search, good[0]) if good else None
        return result
    service, estimate, spread = search.measured[best]
    result["recommended"] = service_document(search, best)
    result["document"] = service.document
    others = sorted((n for n in searched if n != best and search.keeps(n)), key=search.rank)
    result["next_best"] = [service_document(search, n) for n in others]
    result["bottleneck"], result["idle"] = bottleneck(estimate.used), idle(estimate.used)
    result["autoscaling"] = _autoscaling(search, best)
    result["sensitivity"] = {"input": [_growth(search, best, factor, rate) for factor in GROWTH]}
    result["extrapolation"] = {"cpus": service.candidate.cpus / spread.law.cpus, "checked_cpus": spread.law.cpus}
    return result


def _front(search: Search, good: list[int]) -> list[int]:
    """Price an hour against p99."""
    from windtunnel.sim.capacity.search import front

    points = ((search.measured[n][0].candidate.price_per_hour, search.measured[n][1].p99_s or math.inf, n) for n in good)
    return front(points)


def service_document(search: Search, number: int) -> dict[str, Any]:
    """One service with its numbers."""
    service, estimate, spread = search.measured[number]
    candidate = service.candidate
    assert estimate.p99_s is not None
    return {
        "number": number, "engine": search.question.variants[candidate.variant].label, "shape": candidate.shape,
        "type": candidate.type, "nodes": candidate.count, "cpus": candidate.cpus, "gpus": candidate.gpus,
        "price_per_hour": candidate.price_per_hour, "p99_s": estimate.p99_s, "p99_90_s": list(spread.interval(estimate.p99_s)),
        "chance": search.chance(number), "used": dict(estimate.used), "makespan_s": estimate.seconds,
        "replicas": {n: _bounds(d) for d in service.document["deployments"] for n in [d["name"]]},
        "error": {"model": spread.law.sd, "seeds": spread.seeds, "distance": spread.distance, "sigma": spread.sigma},
    }  # fmt: skip


def _bounds(deployment: dict[str, Any]) -> dict[str, int]:
    given = deployment["replicas"]
    return {"min": given["min"], "max": given["max"]} if isinstance(given, dict) else {"min": given, "max": given}


def _autoscaling(search: Search, best: int) -> dict[str, Any] | None:
    """The plan with replicas that follow the load, where the load changes: its p99, and the share of replica time it holds."""
    service, fixed, _ = search.measured[best]
    if service.document["arrivals"]["kind"] not in ("steps", "trace", "gamma", "diurnal"):
        return None
    document = copy.deepcopy(service.document)
    for deployment in document["deployments"]:
        most = service.replicas[deployment["name"]]
        if most > 1:
            deployment["replicas"] = {
                "min": 1, "max": most, "target_ongoing": 1, "upscale_delay": "5s", "downscale_delay": "60s",
            }  # fmt: skip
    scaled = Service(candidate=service.candidate, replicas=service.replicas, document=document)
    number = search.measure([scaled], "autoscaling")[0]
    estimate = search.measured[number][1]
    if not estimate.ok or not fixed.replica_cpu_s:
        return None
    share = estimate.replica_cpu_s / estimate.seconds / (fixed.replica_cpu_s / fixed.seconds)
    return {
        "p99_s": estimate.p99_s, "share": share, "price_per_hour": share * service.candidate.price_per_hour,
        "meets": search.keeps(number),
        "replicas": {d["name"]: _bounds(d) for d in document["deployments"]},
    }  # fmt: skip


def _growth(search: Search, best: int, factor: int, rate: float) -> dict[str, Any]:
    """The plan at a higher rate, and what would keep the objective then; a trace cannot be made faster."""
    service = search.measured[best][0]
    if service.document["arrivals"]["kind"] == "trace":
        return {"factor": factor, "p99_s": None, "shape": None, "price_per_hour": None}
    document = copy.deepcopy(service.document)
    faster(document["arrivals"], factor)
    grown = Service(candidate=service.candidate, replicas=service.replicas, document=document)
    busy = _overload(grown, search.question, rate * factor)
    estimate = None if busy else search.measured[search.measure([grown], f"x{factor}")[0]][1]
    then = search.cheapest(services(search.question, rate, factor), f"then x{factor}")[0]
    following = None if then is None else search.measured[then][0].candidate
    return {
        "factor": factor, "p99_s": estimate.p99_s if estimate is not None and estimate.ok else None,
        "shape": following and following.shape, "price_per_hour": following and following.price_per_hour,
    }  # fmt: skip


def _overload(service: Service, question: Question, rate: float) -> bool:
    """Whether more is asked of a deployment than its replicas can do: its queue would grow for ever."""
    scenario = from_document(service.document, question.file)
    assert scenario.serving is not None
    busy = busy_replicas(scenario.serving, rate, _overhead_s(service.document, question.file))
    return any(b >= service.replicas[n] for n, b in busy.items())
