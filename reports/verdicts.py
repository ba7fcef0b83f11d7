"""What a group of rows shows, in one sentence each. Nothing is called faster that its interval and the noise floor do not show."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.reports import stats
from windtunnel.reports.rows import Row, median_s
from windtunnel.spec.units import format_seconds

_ENDED = {
    "out_of_memory": "ran out of memory",
    "timeout": "did not end in time",
    "invalid": "was not measured well enough to count",
    "unsupported": "cannot run it",
    "wrong_result": "gave a wrong result",
}


def sentence(title: str, rows: Sequence[Row], noise: float | None) -> str:
    """The verdict on a group: of its real runs, or of the simulated ones where nothing ran for real."""
    real = [r for r in rows if r.clock == "wall"]
    shown = real or list(rows)
    able = [r for r in shown if r.makespan_s is not None and not r.aa]
    parts = [_standing(able, noise if real else None), *_failures(shown)]
    return f"{title}{'' if real else ' (simulated)'}: {'; '.join(parts)}"


def _failures(rows: Sequence[Row]) -> list[str]:
    return [f"{r.label} {_ENDED.get(r.status, 'failed')}{_how_often(r)}" for r in rows if r.status != "ok"]


def _how_often(row: Row) -> str:
    bad = sum(row.statuses.values()) - row.statuses.get("ok", 0)
    return f" in {bad} of {sum(row.statuses.values())} runs" if row.n else ""


def _standing(able: Sequence[Row], noise: float | None) -> str:
    """Who leads, and by how much; rows come fastest first."""
    if not able:
        return "no engine has a result"
    if len(able) == 1:
        return f"{able[0].label} took {_seconds(able[0])}"
    few = [r for r in able if r.n < stats.LEAST_RUNS]
    enough = [r for r in able if r.n >= stats.LEAST_RUNS]
    if len(enough) < 2:
        return f"{able[0].label} has the lowest median, {_seconds(able[0])}, of too few runs to tell a difference"
    return "; ".join([_leader(enough, noise), *(f"too few runs of {r.label} ({_seconds(r)})" for r in few)])


def _leader(able: Sequence[Row], noise: float | None) -> str:
    best, others = able[0], able[1:]
    ties = [r for r in others if _verdict(best, r, noise) != "faster"]
    if ties:
        return _tie([best, *ties], [r for r in others if r not in ties], noise)
    return f"{best.label} is fastest, {_seconds(best)}: {_factors(best, others)}"


def _verdict(fast: Row, slow: Row, noise: float | None) -> str:
    found = stats.ratio_of(fast.runs_s, slow.runs_s)
    return stats.verdict(found, noise) if found else "no difference shown"


def _tie(level: Sequence[Row], rest: Sequence[Row], noise: float | None) -> str:
    low, high = _seconds(level[0]), _seconds(max(level, key=median_s))
    within = f"medians {low} to {high}" if low != high else f"median {low}"
    floor = f", noise floor {percent(noise)}" if noise else ""
    tail = f"; slower: {listed([f'{r.label} ({_seconds(r)})' for r in rest])}" if rest else ""
    return f"no difference shown between {listed([r.label for r in level])} ({within}{floor}){tail}"


def _factors(best: Row, others: Sequence[Row]) -> str:
    """Against the next and, where it is another one, against the baseline."""
    base = [r for r in others[1:] if r.label == best.baseline]
    return ", ".join(f"{factor(best, r)} faster than {r.label}" for r in (others[0], *base))


def factor(fast: Row, slow: Row) -> str:
    """How many times, with the interval: "2.1× (1.9 to 2.3)"."""
    found = stats.ratio_of(fast.runs_s, slow.runs_s)
    if found is None:
        return "–"
    times = stats.inverse(found)
    interval = "" if times.low is None or times.high is None else f" ({number(times.low)} to {number(times.high)})"
    return f"{number(times.value)}×{interval}"


def number(value: float) -> str:
    """Three significant digits: 1.03 stays 1.03, since 1.0 would hide it."""
    return f"{value:.3g}" if value < 1_000 else f"{value:.0f}"


def percent(fraction: float) -> str:
    """A noise floor: "12 %", or "2.4×" where two equal arms may lie more than twice apart."""
    return f"{fraction:.1%}" if fraction < 1 else f"{1 + fraction:.1f}×"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c" """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _seconds(row: Row) -> str:
    return format_seconds(median_s(row))
