"""Records → a comparison: groups of runs that may be compared, verdicts, effects, what forbids comparing. Pure; it draws nothing.

A group is one workload at one scale on one cluster (and one point of a sweep). Within it, real runs are compared with real runs
and simulated with simulated; `fidelity` puts the two side by side. Nothing is called faster below the noise floor of the group's
A/A arm, and a failed run is a row with its reason, never a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windtunnel.errors import InputError, NotComparable, nearest
from windtunnel.records.record import RunRecord
from windtunnel.records.serving import is_serving
from windtunnel.reports import arms, stats
from windtunnel.reports.decompose import Decomposition, between, decompositions
from windtunnel.reports.differences import place, reasons_not_comparable, warnings
from windtunnel.reports.fidelity import Fidelity, fidelity
from windtunnel.reports.metrics import middle
from windtunnel.reports.rows import Row, rows
from windtunnel.reports.screen import Screen, screen
from windtunnel.reports.services import Service, services
from windtunnel.reports.timeline import Timeline, thinned, timeline
from windtunnel.reports.verdicts import sentence
from windtunnel.spec.canonical import canonical_json


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that may be compared. ``noise``: fraction below which nothing is called a difference; None = no A/A arm anywhere."""

    title: str
    workload: str
    description: str
    scale: float
    cluster: str
    sweep: dict[str, Any]
    rows: tuple[Row, ...]
    noise: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Effect:
    """How one choice changes the makespan, everything else equal. ``kind``: model (same local world) or engine (against bulk).

    ``noise``: the noise floor of the group, as a fraction.
    """

    kind: str
    workload: str
    label: str
    against: str
    ratio: stats.Estimate
    noise: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a report shows; plain data, without tables of spans. What answers requests is in ``services``, all else in ``groups``.

    ``left_aside``: files that hold no record, ``not_comparable``: why its runs may not be set against each other; both lead the
    ``warnings``, too.
    """

    title: str
    verdicts: tuple[str, ...]
    groups: tuple[Group, ...]
    effects: tuple[Effect, ...]
    decompositions: tuple[Decomposition, ...]
    fidelity: Fidelity
    left_aside: tuple[str, ...]
    not_comparable: tuple[str, ...]
    warnings: tuple[str, ...]
    environments: tuple[dict[str, Any], ...]
    clusters: tuple[dict[str, Any], ...]
    timelines: tuple[Timeline, ...]
    screens: tuple[Screen, ...]
    services: tuple[Service, ...]


def build(
    records: Iterable[RunRecord], *, strict: bool = False, pair: tuple[str, str] | None = None, left_aside: Sequence[str] = ()
) -> Comparison:
    """Compare records; warm-ups are left out. ``pair``: two labels whose difference is taken apart, instead of each with the fastest.

    ``left_aside``: what was read beside them and holds no record, a sentence each. Raises InputError without a measured record, and
    with ``strict`` NotComparable when real runs come from different hosts or library versions, or when one label stands for different
    options (else the comparison says so).
    """
    everything = [r for r in records if not r.warmup]
    if not everything:
        raise InputError("there is no measured run to compare: the records hold warm-ups only")
    measured = [r for r in everything if not is_serving(r)]
    served = services([r for r in everything if is_serving(r)])
    parts = arms.by_group(measured)
    names = arms.titles(parts)
    _check_pair(measured, pair)
    whole = arms.by_group(everything)
    differences = reasons_not_comparable(whole, arms.titles(whole))
    if strict and differences:
        raise NotComparable("; ".join(differences))
    groups = _groups(parts, names, fidelity(measured))
    return Comparison(
        title=" · ".join(dict.fromkeys(r.experiment for part in whole.values() for r in part)),
        verdicts=(*(g.verdict for g in groups), *(f"{s.title}: {s.verdict}" for s in served)),
        groups=groups,
        effects=tuple(sorted((e for g in groups for e in _effects(g)), key=lambda e: e.kind != "model")),
        decompositions=tuple(d for g in groups for d in _decompositions(g, parts, names, pair)),
        fidelity=fidelity(measured),
        left_aside=tuple(left_aside),
        not_comparable=differences,
        warnings=(
            *(f"left aside: {why}" for why in left_aside),
            *(f"not comparable: {why}" for why in differences),
            *warnings(everything),
        ),
        environments=_distinct(place(r) for part in whole.values() for r in part if r.clock == "wall"),
        clusters=_distinct(r.cluster_spec for part in whole.values() for r in part),
        services=served,
        screens=tuple(s for s in (screen(names[key], part) for key, part in parts.items()) if s.strips),
        timelines=thinned([t for key, part in parts.items() for t in _timelines(names[key], part)]),
    )


def _check_pair(records: Sequence[RunRecord], pair: tuple[str, str] | None) -> None:
    known = {r.label for r in records if r.clock == "wall"}
    for label in pair or ():
        if label not in known:
            raise InputError(f"no real run is labelled {label!r}{nearest(label, known)}")


def _distinct(values: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple({canonical_json(v): v for v in values}.values())


def _groups(parts: Mapping[arms.Key, Sequence[RunRecord]], names: Mapping[arms.Key, str], found: Fidelity) -> tuple[Group, ...]:
    floors = arms.noise_floors(parts)
    return tuple(_group(names[key], part, floors[key], found) for key, part in parts.items())


def _group(title: str, records: Sequence[RunRecord], noise: float | None, found: Fidelity) -> Group:
    shown = rows(arms.by_label(records), noise, found.errors)
    first = records[0]
    return Group(
        title=title,
        workload=first.workload,
        description=str(first.workload_spec.get("description", "")),
        scale=first.scale,
        cluster=first.cluster,
        sweep=first.sweep,
        rows=shown,
        noise=noise,
        verdict=sentence(title, shown, noise),
    )


def _effects(group: Group) -> Iterator[Effect]:
    """streaming against bulk is the model; every other engine against bulk is the engine."""
    able = [r for r in group.rows if r.clock == "wall" and r.runs_s and not r.aa]
    base = next((r for r in able if r.engine == "bulk"), None)
    for row in able:
        found = stats.ratio_of(row.runs_s, base.runs_s) if base else None
        if base and found and row is not base:
            kind = "model" if row.engine in ("bulk", "streaming") else "engine"
            yield Effect(kind, group.title, row.label, base.label, found, group.noise, stats.verdict(found, group.noise))


def _decompositions(
    group: Group, parts: Mapping[arms.Key, Sequence[RunRecord]], names: Mapping[arms.Key, str], pair: tuple[str, str] | None
) -> tuple[Decomposition, ...]:
    records = [r for key, part in parts.items() if names[key] == group.title for r in part]
    if pair is None:
        return decompositions(group.title, records, group.noise)
    found = between(group.title, records, *pair, group.noise)
    return () if found is None else (found,)


def _timelines(title: str, records: Sequence[RunRecord]) -> Iterator[Timeline]:
    """The middle run of every configuration; A/A arms show nothing new."""
    for (_, label), part in sorted(arms.by_label(records).items(), key=lambda item: (item[0][0] != "wall", item[0][1])):
        if arms.good(part) and not arms.is_aa(label):
            yield timeline(title, middle(arms.good(part)))
