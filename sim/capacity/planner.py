"""The planner of jobs with an end: bounds, search, refinement, and what there is to say about the plan that wins.

`windtunnel.sim.capacity.bench` simulates and remembers what was simulated; everything here is arithmetic on estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity import odds
from windtunnel.sim.capacity.bench import Bench
from windtunnel.sim.capacity.estimate import SCOUT, Estimate, refined
from windtunnel.sim.capacity.question import Candidate, Question, candidate_document, resized
from windtunnel.sim.capacity.search import best_first, explore, posts
from windtunnel.sim.capacity.trial import Order, Trial
from windtunnel.sim.judging.prediction import Law

FINALISTS = 6
SEEDS = 2  # more of them for the finalists
FRONT_COST = 4.0  # the front is filled in up to so many times the least cost
FRONT_SLACK = 0.05
FRONT_MOST = 24
REPLACEMENT_S = 120.0  # until a lost node is back, where its type has no start-up time
BEHIND = 0.15  # a first look at small sizes drops what is so far behind in time, and in cost
WHOLE = 1 << 20  # sizes so large that a job is simulated whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A candidate with its estimate. ``chance``: probability of keeping deadline and budget; ``bound_s``: no run is faster."""

    candidate: Candidate
    estimate: Estimate
    spread: odds.Spread
    chance: float
    bound_s: float

    @property
    def cost_usd(self) -> float:
        """List price over the estimated time."""
        return self.candidate.price_per_hour * self.estimate.seconds / 3600

    @property
    def interval_s(self) -> tuple[float, float]:
        """Where 9 of 10 runs should end."""
        return self.spread.interval(self.estimate.seconds)


@dataclass(slots=True)
class Search:
    """What the search found. ``recommended`` None: nothing meets the objective, ``options`` then begins with what comes closest."""

    question: Question
    options: list[Option]
    recommended: Option | None
    simulated: int
    hopeless: int
    left_out: int
    refused: dict[int, str]


class Planner:
    """One search. ``bench`` simulates."""

    def __init__(self, question: Question, bench: Bench) -> None:
        self.question, self._bench = question, bench
        self.bound_s, self.refused = bench.bounds(question)
        self._estimates: dict[int, Estimate] = {}
        self._behind: set[int] = set()  # those left at a first look
        self._seeds: dict[int, list[float]] = {}
        self._limit = {c.number: question.limit_s(c) for c in question.candidates}

    # -- pieces ---------------------------------------------------------------------------------------------------------

    def order(
        self, candidate: Candidate, *, times: float = 1, seed: int = 0, document: dict[str, Any] | None = None, tag: Any = None,
        known: Trial | None = None,
    ) -> Order:  # fmt: skip
        """What to simulate for a candidate, with the sizes ``times`` as large and another seed."""
        question = self.question
        return Order(
            key=(candidate.number, tag, seed, times), document=document or candidate_document(question, candidate),
            file=question.file, seed=question.seed + seed, calibration=question.calibration, known=known, cpus=candidate.cpus,
        )  # fmt: skip

    def option(self, number: int) -> Option:
        """A measured candidate."""
        candidate, estimate = self.question.candidates[number], self._estimates[number]
        spread = self._spread(candidate, estimate)
        return Option(
            candidate=candidate, estimate=estimate, spread=spread, bound_s=self.bound_s[number],
            chance=spread.within(estimate.seconds, self._limit[number]) if estimate.ok else 0.0,
        )  # fmt: skip

    def _law(self, candidate: Candidate) -> Law:
        return odds.law_of(self.question.variants[candidate.variant].engine, self.question.calibration)

    def _spread(self, candidate: Candidate, estimate: Estimate) -> odds.Spread:
        return odds.spread(
            self._law(candidate), candidate.cpus, size=estimate.size_error, seeds=self._seeds.get(candidate.number, ())
        )

    def value(self, candidate: Candidate, seconds: float) -> float:
        """What is minimised: dollars, or seconds."""
        return seconds if self.question.fastest else candidate.price_per_hour * seconds / 3600

    def hopeless(self, number: int) -> bool:
        """Whether even the lower bound would be too late too often."""
        least = odds.spread(self._law(self.question.candidates[number]), self.question.candidates[number].cpus)
        return least.within(self.bound_s[number], self._limit[number]) < self.question.confidence

    # -- the search -----------------------------------------------------------------------------------------------------

    def floor_s(self, number: int) -> float:
        """Seconds below which a candidate is not expected: its bound, or more where the engine was simulated on other numbers of these
        nodes. It is taken to come no closer to its bound than the closest of those; with tolerance 0 nothing is."""
        asked, candidates = self.question.candidates[number], self.question.candidates
        if not self.question.tolerance:
            return self.bound_s[number]
        kin = (n for n in self._estimates if (candidates[n].variant, candidates[n].type) == (asked.variant, asked.type))
        closest = min((self._estimates[n].seconds / self.bound_s[n] for n in kin), default=1.0)
        return self.bound_s[number] * max(1.0, closest)

    def measure(self, numbers: Sequence[int]) -> list[float]:
        """Simulate candidates; the value of each, infinite where it does not keep the limits surely enough."""
        chosen = [self.question.candidates[n] for n in numbers if n not in self._estimates]
        for candidate, scout in zip(chosen, self._bench.estimates([self.order(c, times=SCOUT) for c in chosen]), strict=True):
            self._estimates[candidate.number] = scout
        closer = [c for c in chosen if not self._estimates[c.number].exact and self._close(c)]
        self._behind |= {c.number for c in chosen if not self._estimates[c.number].exact} - {c.number for c in closer}
        return self.closely([c.number for c in closer], numbers)

    def closely(self, numbers: Sequence[int], asked: Sequence[int] | None = None) -> list[float]:
        """Simulate candidates at the usual sizes, whatever a first look said; values as `measure` has them, of those ``asked`` for."""
        candidates = [self.question.candidates[n] for n in numbers]
        orders = [
            self.order(c, known=self._estimates[c.number].trial if c.number in self._estimates else None) for c in candidates
        ]
        for candidate, estimate in zip(candidates, self._bench.estimates(orders), strict=True):
            self._estimates[candidate.number] = estimate
        options = [self.option(n) for n in (numbers if asked is None else asked)]
        return [self.value(o.candidate, o.estimate.seconds) if self._meets(o) else math.inf for o in options]

    def _close(self, candidate: Candidate) -> bool:
        """Whether more than the first look is worth it: no other that meets the objective is far better in cost and in time."""
        scout = self.option(candidate.number)
        if not scout.estimate.ok:
            return False
        cost, seconds = scout.cost_usd * (1 - BEHIND), scout.estimate.seconds * (1 - BEHIND)
        others = (self.option(n) for n in self._estimates if n != candidate.number)
        return not any(o.cost_usd <= cost and o.estimate.seconds <= seconds and self._meets(o) for o in others)

    def _meets(self, option: Option) -> bool:
        return option.estimate.ok and option.chance >= self.question.confidence

    def run(self) -> Search:
        """Find the best, fill in the front around it, and look closer at the finalists."""
        question = self.question
        lost = {n for n in self.bound_s if self.hopeless(n)}
        hopeful = [n for n in self.bound_s if n not in lost]
        candidates = question.candidates
        best = math.inf
        for some in (posts(hopeful, candidates, 2) if question.tolerance else hopeful), hopeful:
            floors = [(self.value(candidates[n], self.floor_s(n)), n) for n in some if n not in self._estimates]
            best = best_first(floors, self.measure, tolerance=question.tolerance, best=best)
        left = 0
        if best < math.inf:
            left = self._fill_front(posts(hopeful, candidates) if question.tolerance else hopeful, best)
            recommended = self._settle()
        else:
            recommended = None
        if recommended is None:
            self._closest()
        options = sorted((self.option(n) for n in self._estimates), key=self._rank)
        return Search(
            question=question, options=options, recommended=recommended, simulated=len(self._estimates), hopeless=len(lost),
            left_out=left, refused=self.refused,
        )  # fmt: skip

    def _rank(self, option: Option) -> tuple[bool, float, int]:
        meets = self._meets(option)
        limit = self._limit[option.candidate.number]
        far = option.estimate.seconds / limit if limit < math.inf else option.estimate.seconds
        return not meets, self.value(option.candidate, option.estimate.seconds) if meets else far, option.candidate.number

    def _fill_front(self, hopeful: Sequence[int], best: float) -> int:
        """Measure what might stand on the front of cost against time, up to a multiple of the least cost."""
        candidates = self.question.candidates
        ceiling = math.inf if self.question.fastest else FRONT_COST * best
        edges = [
            (candidates[n].price_per_hour * self.floor_s(n) / 3600, self.floor_s(n), n)
            for n in hopeful
            if n not in self._estimates
        ]

        def points() -> list[tuple[float, float]]:
            return [(o.cost_usd, o.estimate.seconds) for n in self._estimates if (o := self.option(n)).estimate.ok]

        return explore([e for e in edges if e[0] <= ceiling], points, self.measure, slack=FRONT_SLACK, most=FRONT_MOST)

    def _settle(self) -> Option | None:
        """Refine the best few until one that is refined meets the objective and no unrefined one is better."""
        looked: set[int] = set()
        while True:
            meeting = sorted((o for n in self._estimates if self._meets(o := self.option(n))), key=self._rank)
            numbers = [o.candidate.number for o in meeting[:FINALISTS]]
            todo = [n for n in numbers if n not in looked and (n not in self._behind or n == numbers[0])]
            if not todo:
                return meeting[0] if meeting else None
            self._refine(todo)
            looked |= set(todo)

    def _refine(self, numbers: Sequence[int]) -> None:
        """Double the sizes, which measures the error of the line, and draw other seeds."""
        candidates = [self.question.candidates[n] for n in numbers]
        straight = [c for c in candidates if not self._estimates[c.number].exact]
        second = self._bench.estimates([self.order(c, times=2, known=self._estimates[c.number].trial) for c in straight])
        drawn = [c for c in candidates if self.question.variants[c.variant].drawn or self.question.calibration]
        others = self._bench.estimates([self.order(c, seed=s) for c in drawn for s in range(1, SEEDS + 1)])
        for i, candidate in enumerate(drawn):
            first = self._estimates[candidate.number].seconds
            replicas = [e.seconds for e in others[i * SEEDS : (i + 1) * SEEDS] if e.ok]
            self._seeds[candidate.number] = [first, *replicas]
        for candidate, estimate in zip(straight, second, strict=True):
            self._estimates[candidate.number] = refined(self._estimates[candidate.number], estimate)

    def _closest(self) -> None:
        """Nothing meets the objective: look at what might come closest, and refine it."""
        limit = {n: (self._limit[n] if self._limit[n] < math.inf else 1.0) for n in self.bound_s}

        def share(numbers: Sequence[int]) -> list[float]:
            self.measure(numbers)
            return [self._estimates[n].seconds / limit[n] for n in numbers]

        best_first([(b / limit[n], n) for n, b in self.bound_s.items()], share, tolerance=max(self.question.tolerance, 0.0))
        ranked = sorted((self.option(n) for n in self._estimates if self._estimates[n].ok), key=self._rank)
        self._refine([o.candidate.number for o in ranked[:1]])

    # -- questions about one plan ---------------------------------------------------------------------------------------

    def what_if(self, option: Option, changes: Sequence[tuple[str, dict[str, Any] | None, float]]) -> dict[str, Estimate]:
        """The plan again with keys of its nodes changed, or on so many times the data: (name, node keys, factor)."""
        orders = []
        for name, node, factor in changes:
            document = candidate_document(self.question, option.candidate, node)
            if factor != 1.0:
                document = resized(document, factor=factor)
            orders.append(self.order(option.candidate, document=document, tag=name))
        return {c[0]: e for c, e in zip(changes, self._bench.estimates(orders), strict=True)}

    def look_at(self, candidate: Candidate) -> Option:
        """A candidate beside the grid or not yet measured."""
        self.measure([candidate.number])
        return self.option(candidate.number)

    def node_loss(self, option: Option) -> tuple[Estimate | None, Estimate | None]:
        """(estimate with the last node lost half-way and back after its start, the same without), at the simulated size."""
        candidate, estimate = option.candidate, option.estimate
        if candidate.type is None:
            return None, None
        document = candidate_document(self.question, candidate)
        if not estimate.exact:
            document = resized(document, estimate.simulated)
        node = from_document(document, self.question.file).cluster.nodes[0]
        at = estimate.simulated_s / 2
        target = f"node[{candidate.count - 1}]"
        faults = [
            {"at": at, "kind": "node_lost", "target": target},
            {"at": at + max(node.startup_s, REPLACEMENT_S), "kind": "node_joins", "target": target},
        ]
        orders = [
            self.order(candidate, document={**document, "faults": faults}, tag="node lost", times=WHOLE),
            self.order(candidate, document=document, tag="no loss", times=WHOLE),
        ]
        lost, base = self._bench.estimates(orders)
        return lost, base
