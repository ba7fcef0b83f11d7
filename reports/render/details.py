"""Tables of what only some workloads have, as text, under the comparison of their group. Knows no record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windtunnel.reports.compare import Group
from windtunnel.spec.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Detail:
    """A table. ``clocks``: of each row, wall or virtual."""

    title: str
    hint: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    clocks: Sequence[str]


def _share(value: float) -> str:
    return f"{value:.0%}"


def _rate(value: float) -> str:
    return f"{value:,.0f}"


Column = tuple[str, str, Callable[[float], str]]
_FED: tuple[Column, ...] = (
    ("first batch", "first_batch_s", format_seconds), ("stall", "stall_s", format_seconds), ("of the time", "stall_share", _share),
    ("after the first", "later_stall_s", format_seconds), ("rows/s", "rows_per_s", _rate), ("last step", "end_s", format_seconds),
)  # fmt: skip
_LEGS: tuple[Column, ...] = (
    ("first leg", "first_leg_s", format_seconds), ("hand-over", "handover_s", format_seconds),
    ("planning the second", "second_plan_s", format_seconds), ("second leg", "second_leg_s", format_seconds),
    ("handed over", "handover_bytes", format_bytes), ("start of the first", "first_start_s", format_seconds),
    ("of the second", "second_start_s", format_seconds),
)  # fmt: skip
_KINDS: dict[str, tuple[str, str, tuple[Column, ...]]] = {
    "fed": (
        "Feeding the training loop",
        "stall: seconds in which the loop waits for data, from the beginning to its last step, the way of the first batch included; "
        "rows/s from the first batch on",
        _FED,
    ),
    "legs": (
        "From one engine to the other",
        "hand-over: writing the first one's answer, to Parquet on disk or to Arrow in shared memory; reading it is in the second leg. "
        "Both engines were started before the run",
        _LEGS,
    ),
}


def details(group: Group) -> list[Detail]:
    """The tables of a group, none for most."""
    found = []
    for kind, (title, hint, columns) in _KINDS.items():
        rows = [(row, row.details[kind]) for row in group.rows if kind in row.details]
        if rows:
            cells = [(row.label, *(form(told[name]) if name in told else "–" for _, name, form in columns)) for row, told in rows]
            clocks = [row.clock for row, _ in rows]
            found.append(Detail(title, hint, ("engine", *(head for head, _, _ in columns)), cells, clocks))
    return found
