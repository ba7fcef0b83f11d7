"""Which candidates are worth simulating: branch and bound on lower bounds. Pure: it is handed bounds and a way to measure.

A candidate is dropped only when a bound shows that it cannot win: its least cost is not below that of a plan that was already
found (less a stated tolerance), or it would be too late even without any overhead. So with tolerance 0 the result is that of
measuring all of them; with tolerance t it costs at most 1 + t times as much. Candidates are measured in rounds of a fixed size,
so that what is measured does not depend on how many run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from windtunnel.sim.capacity.question import Candidate

ROUND = 8
Measure = Callable[[Sequence[int]], Sequence[float]]


def best_first(bounds: Iterable[tuple[float, int]], measure: Measure, *, tolerance: float = 0.0, best: float = math.inf) -> float:
    """The least value found. ``bounds``: (least possible value, candidate); ``measure`` gives values, infinite where one does
    not do. Candidates whose bound is no better than the best so far over 1 + tolerance are left out."""
    todo = sorted((b, n) for b, n in bounds if b < math.inf)
    while todo:
        todo = [entry for entry in todo if entry[0] * (1.0 + tolerance) < best]
        now, todo = todo[:ROUND], todo[ROUND:]
        if now:
            best = min([best, *measure([number for _, number in now])])
    return best


def front(points: Iterable[tuple[float, float, int]]) -> list[int]:
    """Numbers of the points (cost, time, number) that no other beats in one and equals in the other; cheapest first."""
    kept: list[int] = []
    fastest = math.inf
    for _, seconds, number in sorted(points):
        if seconds < fastest:
            kept.append(number)
            fastest = seconds
    return kept


def explore(
    bounds: Iterable[tuple[float, float, int]], points: Callable[[], Sequence[tuple[float, float]]], measure: Measure, *,
    slack: float, most: int,
) -> int:  # fmt: skip
    """Fill in the front: measure candidates (least cost, least time, number) unless a measured point is within 1 + slack of both.

    At most ``most`` are measured; returns how many were left for that limit.
    """
    todo = sorted(b for b in bounds if b[0] < math.inf and b[1] < math.inf)
    while todo:
        found = points()
        todo = [b for b in todo if not any(c <= b[0] * (1 + slack) and t <= b[1] * (1 + slack) for c, t in found)]
        now, todo = todo[: min(ROUND, most)], todo[min(ROUND, most) :]
        if not now:
            return len(todo)
        most -= len(now)
        measure([number for _, _, number in now])
    return 0


def posts(numbers: Iterable[int], candidates: Sequence[Candidate], most: int | None = None) -> list[int]:
    """Of each engine on each type the smallest number of nodes, and others, each four times as many; the first ``most`` of them."""
    families: dict[tuple[int, str | None], list[int]] = {}
    for number in sorted(numbers, key=lambda n: candidates[n].count):
        chosen = families.setdefault((candidates[number].variant, candidates[number].type), [])
        if not chosen or candidates[number].count >= 4 * candidates[chosen[-1]].count:
            chosen.append(number)
    return [number for family in families.values() for number in family[:most]]
