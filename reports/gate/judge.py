"""Five verdicts on a change, a quantity each: better, same, worse, incomplete, not comparable. Pure functions of two lists of series.

* *Exact* quantities are those of simulated runs, and counted ones that are equal in all runs of BASE: any change beyond the
  ``tolerance`` is a verdict, whatever the machine was doing. Several seeds are compared seed by seed.
* *Timed* quantities are noisy. The effect is the median of the ratios NEW / BASE of the runs paired in their order (runs that were
  interleaved share their surroundings), its interval the percentile bootstrap of that median (Efron and Tibshirani 1993, ch. 13;
  2,000 seeded resamples, 95 %). With ``limit``, the smallest change that matters (10 %): *worse* when the interval leaves 1 out and
  the effect is beyond half the limit; *same* when the interval excludes a change of the limit; else nobody can tell, and the verdict
  is *incomplete* with the smallest effect that these runs could have shown. An A/A arm in BASE widens the interval to what it spans.
* Missing or failed runs, and facts that differ, are verdicts of their own; a gate with missing data never passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from windtunnel.errors import ExitCode
from windtunnel.reports import stats
from windtunnel.reports.gate.series import COUNTED, Series

Verdict = Literal["better", "same", "worse", "incomplete", "not comparable"]
Wall = Literal["advisory", "gate", "off"]
_ORDER: tuple[Verdict, ...] = ("worse", "incomplete", "not comparable", "better", "same")
#: which exit code wins when findings have several
_PRECEDENCE = (
    ExitCode.WRONG_RESULT, ExitCode.REGRESSION, ExitCode.INCOMPLETE, ExitCode.NOT_COMPARABLE, ExitCode.INVALID_MEASUREMENT,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``tolerance`` of exact quantities and ``limit`` of timed ones, as fractions; ``wall``: whether timed findings fail the gate.

    ``allow``: facts that may differ.
    """

    tolerance: float = 1e-6
    limit: float = 0.10
    wall: Wall = "advisory"
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict. ``change``: NEW over BASE minus 1, with its 95 % interval where it is an estimate (None: exact, or unknown).

    ``shows``: the smallest change that the runs could have shown, as a fraction; ``counts``: whether it decides the exit code.
    """

    subject: str
    quantity: str
    unit: str
    verdict: Verdict
    code: ExitCode
    base: float | None = None
    new: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    shows: float | None = None
    pairs: int = 0
    exact: bool = True
    counts: bool = True
    reason: str = ""


def judge(base: Sequence[Series], new: Sequence[Series], rules: Rules) -> tuple[Finding, ...]:
    """All findings, those that need a look first."""
    before, after = ({s.subject: s for s in side} for side in (base, new))
    found: list[Finding] = []
    for subject in sorted({*before, *after}):
        found += _subject(subject, before.get(subject), after.get(subject), rules)
    return tuple(
        sorted(found, key=lambda f: (_ORDER.index(f.verdict), not f.counts, -abs(f.change or 0.0), f.subject, f.quantity))
    )


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """The gravest of the codes that count; a gate without any finding is incomplete."""
    found = list(findings)
    codes = [f.code for f in found if f.counts]
    if not found:
        return ExitCode.INCOMPLETE
    return next((code for code in _PRECEDENCE if code in codes), ExitCode.OK)


def _subject(subject: str, base: Series | None, new: Series | None, rules: Rules) -> list[Finding]:
    if base is None or new is None:
        return [_no(subject, "incomplete", ExitCode.INCOMPLETE, f"it is missing in {'BASE' if base is None else 'NEW'}")]
    for side, name in ((new, "NEW"), (base, "BASE")):
        if side.bad:
            status, reason = next((b for b in side.bad if b[0] == "wrong_result"), side.bad[0])
            code = ExitCode.WRONG_RESULT if status == "wrong_result" and side is new else ExitCode.INCOMPLETE
            return [_no(subject, "incomplete", code, f"{len(side.bad)} run(s) of {name} ended as {status}: {reason}")]
    if differing := _differing(base, new, rules):
        return [_no(subject, "not comparable", ExitCode.NOT_COMPARABLE, f"they differ in {', '.join(differing)}")]
    names = [n for n in base.values if n in new.values]
    lost = [n for n in base.values if n not in new.values]
    found = [f for n in names if (f := _quantity(n, base, new, rules)) is not None]
    found += [_no(subject, "incomplete", ExitCode.INCOMPLETE, "NEW does not tell it", name) for name in lost]
    return found or [_no(subject, "incomplete", ExitCode.INCOMPLETE, "it has no number that both sides tell")]


def _no(subject: str, verdict: Verdict, code: ExitCode, reason: str, quantity: str = "") -> Finding:
    return Finding(subject=subject, quantity=quantity, unit="", verdict=verdict, code=code, reason=reason)


def _differing(base: Series, new: Series, rules: Rules) -> list[str]:
    names = sorted({*base.facts, *new.facts, "clock"} - set(rules.allow))
    return [n for n in names if (base.clock != new.clock if n == "clock" else base.facts.get(n) != new.facts.get(n))]


def _quantity(name: str, base: Series, new: Series, rules: Rules) -> Finding | None:
    if _is_exact(name, base):
        return _exact(name, base, new, rules)
    return _timed(name, base, new, rules) if rules.wall != "off" else None


def _is_exact(name: str, base: Series) -> bool:
    """Whether equal runs give equal values: simulated ones do, and counts of real runs that never varied in BASE."""
    return base.clock == "virtual" or (name in COUNTED and len(set(base.values[name])) == 1)


# -- exact ------------------------------------------------------------------------------------------------------------


def _exact(name: str, base: Series, new: Series, rules: Rules) -> Finding:
    """The worst run decides; runs are compared in their order, a seed each."""
    before, after = base.values[name], new.values[name]
    common: dict[str, Any] = {
        "subject": base.subject, "quantity": name, "unit": base.unit(name), "base": _median(before), "new": _median(after),
    }  # fmt: skip
    if base.clock == "virtual" and len(before) != len(after):
        reason = f"BASE has {len(before)} seeds, NEW {len(after)}"
        return Finding(**common, verdict="incomplete", code=ExitCode.INCOMPLETE, reason=reason)
    pairs = list(zip(before, after, strict=True)) if base.clock == "virtual" else [(before[0], value) for value in after]
    changes = [_change(b, a) for b, a in pairs]
    worst, best = max(changes), min(changes)
    change = worst if worst > rules.tolerance else best
    verdict: Verdict = "worse" if worst > rules.tolerance else "better" if best < -rules.tolerance else "same"
    code = ExitCode.REGRESSION if verdict == "worse" else ExitCode.OK
    return Finding(**common, verdict=verdict, code=code, change=change, shows=rules.tolerance, pairs=len(pairs))


def _change(base: float, new: float) -> float:
    """NEW over BASE minus 1; infinite where something came of nothing."""
    if base == 0:
        return 0.0 if new == 0 else float("inf")
    return new / base - 1


# -- timed ------------------------------------------------------------------------------------------------------------


def _timed(name: str, base: Series, new: Series, rules: Rules) -> Finding:
    before, after = base.values[name], new.values[name]
    pairs = min(len(before), len(after))
    common: dict[str, Any] = {
        "subject": base.subject, "quantity": name, "unit": base.unit(name), "base": _median(before), "new": _median(after),
        "exact": False, "counts": rules.wall == "gate", "pairs": pairs,
    }  # fmt: skip
    if min(*before, *after) <= 0:
        return Finding(**common, verdict="incomplete", code=ExitCode.INVALID_MEASUREMENT, reason="a duration is not above 0")
    found = _effect(before, after)
    if found.low is None or found.high is None:
        reason = f"{pairs} pair(s) of runs are too few to tell; {stats.LEAST_RUNS} are the least"
        return Finding(
            **common, verdict="incomplete", code=ExitCode.INVALID_MEASUREMENT, change=found.value - 1, reason=reason
        )  # fmt: skip
    floor = stats.noise_floor(before, base.again[name]) if base.again.get(name) else None
    low, high = (
        (found.low, found.high)
        if floor is None
        else (min(found.low, found.value / (1 + floor)), max(found.high, found.value * (1 + floor)))
    )
    shows = max(high / found.value, found.value / low) - 1
    verdict, code, reason = _tell(found.value, low, high, shows, pairs, rules.limit)
    told: dict[str, Any] = {"change": found.value - 1, "low": low - 1, "high": high - 1, "shows": shows}
    return Finding(**common, **told, verdict=verdict, code=code, reason=reason)


def _tell(value: float, low: float, high: float, shows: float, pairs: int, limit: float) -> tuple[Verdict, ExitCode, str]:
    if low > 1 and value > 1 + limit / 2:
        return "worse", ExitCode.REGRESSION, ""
    if high < 1 and value < 1 / (1 + limit / 2):
        return "better", ExitCode.OK, ""
    if high < 1 + limit:
        return "same", ExitCode.OK, ""
    reason = f"nobody can tell: {pairs} pairs show changes of {shows:.0%} and more here, and {limit:.0%} matter; make more runs"
    return "incomplete", ExitCode.INVALID_MEASUREMENT, reason


def _effect(before: Sequence[float], after: Sequence[float]) -> stats.Estimate:
    """Median of the ratios of paired runs, with its interval; of the medians where one side has runs that the other lacks."""
    if len(before) != len(after):
        return stats.ratio(after, before)
    return stats.median([a / b for b, a in zip(before, after, strict=True)])


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
