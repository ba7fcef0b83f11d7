"""What changed between two versions of a scenario's file, in the words of the file. Pure functions of two documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windtunnel.reports.gate.series import Series, flat
from windtunnel.spec.strict import shorten

#: facts that a scenario's file states, so that an edited file explains their difference
STATED = ("workload", "cluster", "options", "rows")
MOST = 8  # changes that are listed


def edited(base: Series, new: Series) -> tuple[str, ...]:
    """Changes between two versions of one named scenario, a text each; empty where there is none, or no scenario of one name.

    Of the engines only the compared one counts: others have findings of their own.
    """
    if base.scenario is None or new.scenario is None or base.scenario.get("name") != new.scenario.get("name"):
        return ()
    before, after = (_leaves(s.scenario or {}, s.subject) for s in (base, new))
    return tuple(
        f"{name}: {shorten(before.get(name, 'absent'))} → {shorten(after.get(name, 'absent'))}".replace("'", "")
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )


def _leaves(document: Mapping[str, Any], subject: str) -> dict[str, str]:
    label = subject.rpartition(" · ")[2].removeprefix("simulated ")
    engines = [e for e in document.get("engines", ()) if isinstance(e, Mapping) and str(e.get("label", e.get("name"))) == label]
    return flat({**document, "engines": engines})


def listed(changes: tuple[str, ...]) -> str:
    """For people: the first of them."""
    more = len(changes) - MOST
    return "; ".join(changes[:MOST]) + (f"; and {more} more" if more > 0 else "")
