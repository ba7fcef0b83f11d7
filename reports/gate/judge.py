"""Verdicts on a change, a quantity each: better, same, worse, incomplete, not comparable. Pure functions of two lists of series.

* *Exact* quantities are those of simulated runs, and counted ones that are equal in all runs of BASE: any change beyond the
  ``tolerance`` is a verdict, whatever the machine was doing. Several seeds are compared seed by seed.
* *Timed* quantities are noisy. The effect is the median of the ratios NEW / BASE of the runs paired in their order (runs that were
  interleaved share their surroundings), its interval the percentile bootstrap of that median (Efron and Tibshirani 1993, ch. 13;
  2,000 seeded resamples, 95 %). With ``limit``, the smallest change that matters (10 %): *worse* when the interval leaves 1 out and
  the effect is beyond half the limit; *same* when the interval excludes a change of the limit; else nobody can tell, and the verdict
  is *incomplete* with the smallest effect that these runs could have shown. An A/A arm in BASE widens the interval to what it spans.
* Missing or failed runs, and facts that differ, are verdicts of their own; a gate with missing data never passes. Two versions of one
  named scenario are a comparison, not a difference that forbids it: what was edited is listed as *changed*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from windtunnel.errors import ExitCode
from windtunnel.reports import stats
from windtunnel.reports.gate.series import COUNTED, UNREADABLE, Series
from windtunnel.reports.gate.versions import STATED, edited, listed
from windtunnel.spec.strict import shorten

Verdict = Literal["better", "same", "worse", "incomplete", "not comparable", "changed"]
Wall = Literal["advisory", "gate", "off"]
_ORDER: tuple[Verdict, ...] = ("worse", "incomplete", "not comparable", "changed", "better", "same")
#: which exit code wins when findings have several
_PRECEDENCE = (
    ExitCode.WRONG_RESULT, ExitCode.REGRESSION, ExitCode.INCOMPLETE, ExitCode.NOT_COMPARABLE, ExitCode.INVALID_MEASUREMENT,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``tolerance`` of exact quantities and ``limit`` of timed ones, as fractions; ``wall``: whether timed findings fail the gate.

    ``allow``: facts that may differ, by name or by what their names begin with ("host" for "host.python").
    """

    tolerance: float = 1e-6
    limit: float = 0.10
    wall: Wall = "advisory"
    allow: tuple[str, ...] = ()

    def allows(self, fact: str) -> bool:
        """Whether a fact may differ."""
        return any(fact == name or fact.startswith(f"{name}.") for name in self.allow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict. ``change``: NEW over BASE minus 1 (None: unknown, or of nothing), with its 95 % interval where it is an estimate.

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
    found: list[Finding] = []
    for before, after in _pairs(base, new):
        found += _subject(before, after, rules)
    return tuple(
        sorted(found, key=lambda f: (_ORDER.index(f.verdict), not f.counts, -abs(f.change or 0.0), f.subject, f.quantity))
    )


def _pairs(base: Sequence[Series], new: Sequence[Series]) -> list[tuple[Series | None, Series | None]]:
    """Series of one subject; of the others those of one key, which an edited scenario keeps; those that stand alone."""
    before, after = ({s.subject: s for s in side} for side in (base, new))
    both = before.keys() & after.keys()
    pairs: list[tuple[Series | None, Series | None]] = [(before[name], after[name]) for name in both]
    left, right = ({s.key or s.subject: s for name, s in side.items() if name not in both} for side in (before, after))
    pairs += [(left.get(key), right.get(key)) for key in left.keys() | right.keys()]
    return sorted(pairs, key=lambda pair: (pair[1] or pair[0]).subject)  # type: ignore[union-attr]


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """The gravest of the codes that count; a gate without any finding is incomplete."""
    found = list(findings)
    codes = [f.code for f in found if f.counts]
    if not found:
        return ExitCode.INCOMPLETE
    return next((code for code in _PRECEDENCE if code in codes), ExitCode.OK)


def _subject(base: Series | None, new: Series | None, rules: Rules) -> list[Finding]:
    for side in (new, base):
        if side is not None and side.bad and side.bad[0][0] == UNREADABLE:
            where = "NEW" if side is new else "BASE"
            return [_no(side.subject, "incomplete", ExitCode.INCOMPLETE, f"left aside in {where}: {side.bad[0][1]}")]
    if base is None or new is None:
        known = base or new
        assert known is not None
        return [_no(known.subject, "incomplete", ExitCode.INCOMPLETE, f"it is missing in {'BASE' if base is None else 'NEW'}")]
    for side, name in ((new, "NEW"), (base, "BASE")):
        if side.bad:
            status, reason = next((b for b in side.bad if b[0] == "wrong_result"), side.bad[0])
            code = ExitCode.WRONG_RESULT if status == "wrong_result" and side is new else ExitCode.INCOMPLETE
            return [_no(new.subject, "incomplete", code, f"{len(side.bad)} run(s) of {name} ended as {status}: {reason}")]
    changes = edited(base, new)
    if differing := _differing(base, new, rules, STATED if changes else ()):
        return [_no(new.subject, "not comparable", ExitCode.NOT_COMPARABLE, _forbidden(differing, base, new))]
    names = [n for n in dict.fromkeys((*base.values, *new.values)) if base.of(n) and new.of(n)]
    lost = [n for n in base.values if not new.of(n)]
    found = [f for n in names if (f := _quantity(n, base, new, rules)) is not None]
    found += [_no(new.subject, "incomplete", ExitCode.INCOMPLETE, "NEW does not tell it", name) for name in lost]
    if not found:
        return [_no(new.subject, "incomplete", ExitCode.INCOMPLETE, "it has no number that both sides tell")]
    return [*found, *([_edited(new.subject, changes)] if changes else [])]


def _no(subject: str, verdict: Verdict, code: ExitCode, reason: str, quantity: str = "") -> Finding:
    return Finding(subject=subject, quantity=quantity, unit="", verdict=verdict, code=code, reason=reason)


def _edited(subject: str, changes: tuple[str, ...]) -> Finding:
    return Finding(
        subject=subject, quantity="scenario", unit="", verdict="changed", code=ExitCode.OK, counts=False, reason=listed(changes)
    )


# -- what must be equal -----------------------------------------------------------------------------------------------


def _differing(base: Series, new: Series, rules: Rules, meant: Sequence[str]) -> list[tuple[str, str, str]]:
    """(fact, BASE's, NEW's) of what differs or is not told, and was neither meant nor allowed."""
    names = dict.fromkeys((*base.facts, *new.facts))
    told = [(n, _told(base, n), _told(new, n)) for n in names if n not in meant and not rules.allows(n)]
    if not rules.allows("clock"):
        told.append(("clock", base.clock, new.clock))
    if base.seeds and len(base.seeds) == len(new.seeds) and not rules.allows("seeds"):
        told.append(("seeds", str(list(base.seeds)), str(list(new.seeds))))
    return [(n, before, after) for n, before, after in told if before != after or before == _UNTOLD]


_UNTOLD = "not told"


def _told(series: Series, fact: str) -> str:
    value = series.facts.get(fact, "absent")
    return _UNTOLD if value is None else value


def _forbidden(differing: Sequence[tuple[str, str, str]], base: Series, new: Series) -> str:
    """Which fields differ, and the option that compares in spite of them."""
    shown = []
    for name, before, after in differing:
        fields = _fields(base.parts.get(name, {}), new.parts.get(name, {}))
        shown.append(f"{name} ({fields or f'{_brief(before)} | {_brief(after)}'})")
    flags = " ".join(dict.fromkeys(f"--allow {name.partition('.')[0]}" for name, _, _ in differing))
    return f"they differ in {', '.join(shown)}; {flags} compares in spite of it"


def _fields(before: dict[str, str] | Any, after: dict[str, str] | Any) -> str:
    """The fields behind a fact that differ, where both sides tell them."""
    if not before or not after:
        return ""
    names = [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]
    return listed(tuple(f"{n}: {_brief(before.get(n, 'absent'))} | {_brief(after.get(n, 'absent'))}" for n in names))


def _brief(text: str) -> str:
    return shorten(text)[1:-1]


# -- a quantity -------------------------------------------------------------------------------------------------------


def _quantity(name: str, base: Series, new: Series, rules: Rules) -> Finding | None:
    if _is_exact(name, base):
        return _exact(name, base, new, rules)
    return _timed(name, base, new, rules) if rules.wall != "off" else None


def _is_exact(name: str, base: Series) -> bool:
    """Whether equal runs give equal values: simulated ones do, and counts of real runs that never varied in BASE."""
    return base.clock == "virtual" or (name in COUNTED and len(set(base.of(name))) == 1)


# -- exact ------------------------------------------------------------------------------------------------------------


def _exact(name: str, base: Series, new: Series, rules: Rules) -> Finding:
    """The worst run decides; runs are compared in their order, a seed each."""
    before, after = base.of(name), new.of(name)
    common: dict[str, Any] = {
        "subject": new.subject, "quantity": name, "unit": new.unit(name), "base": _median(before), "new": _median(after),
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
    told = change if math.isfinite(change) else None
    return Finding(**common, verdict=verdict, code=code, change=told, shows=rules.tolerance, pairs=len(pairs))


def _change(base: float, new: float) -> float:
    """NEW over BASE minus 1; infinite where something came of nothing."""
    if base == 0:
        return 0.0 if new == 0 else float("inf")
    return new / base - 1


# -- timed ------------------------------------------------------------------------------------------------------------


def _timed(name: str, base: Series, new: Series, rules: Rules) -> Finding:
    before, after = base.of(name), new.of(name)
    pairs = min(len(before), len(after))
    common: dict[str, Any] = {
        "subject": new.subject, "quantity": name, "unit": new.unit(name), "base": _median(before), "new": _median(after),
        "exact": False, "counts": rules.wall == "gate", "pairs": pairs,
    }  # fmt: skip
    if not any((*before, *after)):
        return Finding(**common, verdict="same", code=ExitCode.OK, change=0.0)
    if min(*before, *after) <= 0:
        reason = "some of its values are 0, so that there is no ratio"
        return Finding(**common, verdict="incomplete", code=ExitCode.INVALID_MEASUREMENT, reason=reason)
    found = _effect(before, after)
    if found.low is None or found.high is None:
        why = "".join(f"; {few}" for few in dict.fromkeys((base.few, new.few)) if few)
        reason = f"{pairs} pair(s) of runs are too few to tell; {stats.LEAST_RUNS} are the least{why}"
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
