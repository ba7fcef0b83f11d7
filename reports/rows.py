"""One configuration of a group as a row: medians over its good runs, how it stands against the baseline, how its runs ended.

Pure. A configuration without a good run is a row with its status and reason, and no number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from windtunnel.records.document import run_document
from windtunnel.records.record import RunRecord
from windtunnel.reports import metrics, stats
from windtunnel.reports.arms import Arms, baseline, good, is_aa, makespans
from windtunnel.reports.details import details


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration: ``n`` good runs; numbers are medians over them, None when there are none or the engine does not tell.

    ``against`` and ``of_best`` are ratios of medians of the makespan to the baseline and to the fastest of the same clock (A/A
    arms aside); below 1 is faster. ``sim_error`` of a simulated row: its median over the real one's, minus 1.
    ``serialization_s``, ``barrier_s`` and ``blocked_s`` are sums over workers or stages. ``details``: see `windtunnel.reports.details`.
    ``reason``: of the first bad run.
    """

    label: str
    engine: str
    version: str
    clock: str
    n: int
    statuses: dict[str, int]
    status: str
    reason: str | None
    verified: bool
    makespan_s: stats.Estimate | None
    runs_s: tuple[float, ...]
    fastest_s: float | None
    slowest_s: float | None
    against: stats.Estimate | None
    of_best: stats.Estimate | None
    verdict: str
    baseline: str
    sim_error: float | None
    sim_interval_s: tuple[float, float] | None
    open_s: float | None
    prepare_s: float | None
    first_output_s: float | None
    rows_per_s: float | None
    peak_memory_bytes: float | None
    spilled_bytes: float | None
    dead_letters: float | None
    cpu_utilization: float | None
    serialization_s: float | None
    barrier_s: float | None
    blocked_s: float | None
    cost_usd: float | None
    details: dict[str, dict[str, float]]
    options: dict[str, Any]
    aa: bool


def rows(arms: Arms, noise: float | None, errors: Mapping[str, float]) -> tuple[Row, ...]:
    """All configurations, real ones first, each clock by its median; ``errors`` of simulated cells."""
    found = [_row(part, arms, noise, errors) for part in arms.values()]
    return tuple(sorted(found, key=lambda r: (r.clock != "wall", r.makespan_s is None, median_s(r), r.label)))


def median_s(row: Row) -> float:
    """Seconds; 0 for a row without a result."""
    return row.makespan_s.value if row.makespan_s else 0.0


def _row(part: Sequence[RunRecord], arms: Arms, noise: float | None, errors: Mapping[str, float]) -> Row:
    fine, first, runs = good(part), part[0], makespans(part)
    base = baseline(arms, first.clock)
    against = stats.ratio_of(runs, makespans(arms.get((first.clock, base), ())))
    bad = next((r for r in part if r.status != "ok"), None)
    return Row(
        label=first.label,
        engine=first.engine,
        version=first.engine_version,
        clock=first.clock,
        n=len(runs),
        statuses=dict(Counter(r.status for r in part)),
        status=bad.status if bad else "ok",
        reason=bad.reason if bad else None,
        verified=bool(fine) and all(r.verified for r in fine),
        makespan_s=stats.median(runs) if runs else None,
        runs_s=runs,
        fastest_s=min(runs, default=None),
        slowest_s=max(runs, default=None),
        against=against,
        of_best=stats.ratio_of(runs, _best(arms, first.clock)),
        verdict=_standing(first, base, against, noise),
        baseline=base,
        sim_error=errors.get(first.cell) if first.clock == "virtual" else None,
        sim_interval_s=_interval(fine),
        details=details(fine),
        options=first.options,
        aa=is_aa(first.label),
        **_medians(fine),
    )


def _interval(records: Sequence[RunRecord]) -> tuple[float, float] | None:
    """Where the truth of simulated runs should lie, by the errors of cells that no fit had seen."""
    found = [ends for r in records if (ends := run_document(r).get("interval_s"))]
    return (float(np.median([low for low, _ in found])), float(np.median([high for _, high in found]))) if found else None


def _best(arms: Arms, clock: str) -> tuple[float, ...]:
    """Seconds of the configuration with the lowest median."""
    runs = [makespans(part) for (c, label), part in arms.items() if c == clock and not is_aa(label)]
    return min((r for r in runs if r), key=lambda r: float(np.median(r)), default=())


def _standing(record: RunRecord, base: str, against: stats.Estimate | None, noise: float | None) -> str:
    """A verdict, "baseline" or "no result"; simulated runs have no measuring noise."""
    if against is None:
        return "no result"
    if record.label == base:
        return "baseline"
    return stats.verdict(against, noise if record.clock == "wall" else None)


_MEASURES: dict[str, Callable[[RunRecord], float | None]] = {
    "open_s": lambda r: r.open_s,
    "prepare_s": lambda r: r.prepare_s,
    "first_output_s": metrics.first_output,
    "rows_per_s": metrics.rows_per_second,
    "peak_memory_bytes": lambda r: r.peak_memory_bytes,
    "spilled_bytes": metrics.spilled_bytes,
    "dead_letters": metrics.dead_letters,
    "cpu_utilization": metrics.cpu_utilization,
    "serialization_s": lambda r: metrics.seconds_of(r, "serialize", "deserialize"),
    "barrier_s": lambda r: metrics.seconds_of(r, "barrier"),
    "blocked_s": lambda r: metrics.seconds_of(r, "blocked"),
    "cost_usd": metrics.cost_usd,
}


def _medians(records: Sequence[RunRecord]) -> dict[str, Any]:
    return {name: _median(measure(r) for r in records) for name, measure in _MEASURES.items()}


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None
