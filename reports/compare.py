"""Records → a comparison: groups of runs that may be compared, ratios with intervals, verdicts, effects. Pure; it draws nothing.

A group is one workload at one scale on one cluster (and one point of a sweep). Within it, real runs are compared with real runs
and simulated with simulated; `fidelity` puts the two side by side. Nothing is called faster below the noise floor of the group's
A/A arm, and a failed run is a row with its reason, never a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from windtunnel.reports import stats
from windtunnel.reports.fidelity import Fidelity, fidelity
from windtunnel.reports.metrics import cost_usd, counter, first_output, middle, rows_per_second
from windtunnel.reports.timeline import Timeline, timeline

from windtunnel.canonical import canonical_json
from windtunnel.environment import host_key
from windtunnel.errors import InputError, NotComparable
from windtunnel.record import RunRecord

AA_MARK = " (A/A)"
BASELINES = ("bulk", "sim:bulk")


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration in a group: ``n`` good runs; numbers are medians over them, None when there are none.

    ``against`` compares with the group's baseline of the same clock (ratio of medians of the makespan, below 1 is faster).
    ``sim_error`` of a simulated row: its median over the real one's, minus 1.
    """

    label: str
    engine: str
    version: str
    clock: str
    n: int
    status: str
    reason: str | None
    verified: bool
    makespan_s: stats.Estimate | None
    runs_s: tuple[float, ...]
    against: stats.Estimate | None
    verdict: str
    baseline: str
    sim_error: float | None
    open_s: float | None
    prepare_s: float | None
    first_output_s: float | None
    rows_per_s: float | None
    peak_memory_bytes: float | None
    spilled_bytes: float | None
    cost_usd: float | None
    options: dict[str, Any]
    aa: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that may be compared. ``noise``: fraction below which nothing is called a difference; None = no A/A arm."""

    workload: str
    description: str
    scale: float
    cluster: str
    sweep: dict[str, Any]
    rows: tuple[Row, ...]
    noise: float | None
    verdict: str

    @property
    def title(self) -> str:
        """Workload, scale and sweep point."""
        sweep = "".join(f", {key.rpartition('.')[2]} = {value}" for key, value in self.sweep.items())
        return f"{self.workload} at scale {self.scale:g}{sweep}"


@dataclass(frozen=True, slots=True)
class Effect:
    """How one choice changes the makespan, everything else equal. ``kind``: model (same local world) or engine (against bulk)."""

    kind: str
    workload: str
    label: str
    against: str
    ratio: stats.Estimate
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that a report shows; plain data, without tables of spans."""

    title: str
    verdicts: tuple[str, ...]
    groups: tuple[Group, ...]
    effects: tuple[Effect, ...]
    fidelity: Fidelity
    warnings: tuple[str, ...]
    environments: tuple[dict[str, Any], ...]
    clusters: tuple[dict[str, Any], ...]
    timelines: tuple[Timeline, ...]


def build(records: Iterable[RunRecord], *, strict: bool = False) -> Comparison:
    """Compare records; warm-ups are left out.

    Raises InputError without a measured record, and with ``strict`` NotComparable when real runs come from different hosts
    or library versions (else that is a warning).
    """
    measured = [r for r in records if not r.warmup]
    if not measured:
        raise InputError("there is no measured run to compare: the records hold warm-ups only")
    warnings = _warnings(measured)
    if strict and warnings:
        raise NotComparable(warnings[0])
    keys = dict.fromkeys(_key(r) for r in sorted(measured, key=lambda r: (r.workload, r.scale, r.cell, r.repetition)))
    parts = {key: [r for r in measured if _key(r) == key] for key in keys}
    found = fidelity(measured)
    groups = tuple(_group(part, found) for part in parts.values())
    wall = [r for r in measured if r.clock == "wall"]
    return Comparison(
        title=" · ".join(dict.fromkeys(r.experiment for r in measured)),
        verdicts=tuple(g.verdict for g in groups),
        groups=groups,
        effects=tuple(effect for group in groups for effect in _effects(group)),
        fidelity=found,
        warnings=warnings,
        environments=tuple({canonical_json(_place(r)): _place(r) for r in wall}.values()),
        clusters=tuple({canonical_json(r.cluster_spec): r.cluster_spec for r in measured}.values()),
        timelines=tuple(t for part in parts.values() for t in _timelines(part)),
    )


def _key(record: RunRecord) -> tuple[str, float, str, str]:
    return (record.workload, record.scale, canonical_json(record.cluster_spec), canonical_json(record.sweep))


def _place(record: RunRecord) -> dict[str, Any]:
    """The environment without what changes from run to run."""
    return {k: v for k, v in record.environment.items() if k != "load_average"}


def _warnings(records: Sequence[RunRecord]) -> tuple[str, ...]:
    found: list[str] = []
    hosts = {host_key(r.environment) for r in records if r.clock == "wall"}
    if len(hosts) > 1:
        found.append(f"not comparable: the real runs come from {len(hosts)} different hosts or sets of library versions")
    foreign = [v for r in records for name, _, v in _samples(r, "foreign_cpu_cores")]
    if foreign and float(np.median(foreign)) > 0.25:
        found.append(f"other programs used {float(np.median(foreign)):.1f} cores of this machine while the runs were measured")
    unverified = sorted({r.label for r in records if r.clock == "wall" and r.status == "ok" and not r.verified})
    if unverified:
        found.append(f"no oracle checked the output of {', '.join(unverified)}")
    return tuple(found)


def _samples(record: RunRecord, name: str) -> list[tuple[str, float, float]]:
    table = record.samples
    names = table["name"].to_pylist()
    if name not in names:
        return []
    values = table["value"].to_pylist()
    return [(n, 0.0, v) for n, v in zip(names, values, strict=True) if n == name]


# -- a group ----------------------------------------------------------------------------------------------------------


def _group(records: Sequence[RunRecord], found: Fidelity) -> Group:
    by_label = _by_label(records)
    noise = _noise(by_label)
    rows = tuple(_row(part, by_label, noise, found) for part in by_label.values())
    ordered = tuple(
        sorted(rows, key=lambda r: (r.clock != "wall", r.makespan_s is None, r.makespan_s.value if r.makespan_s else 0.0))
    )
    first = records[0]
    return Group(
        workload=first.workload,
        description=str(first.workload_spec.get("description", "")),
        scale=first.scale,
        cluster=first.cluster,
        sweep=first.sweep,
        rows=ordered,
        noise=noise,
        verdict=_sentence(first, ordered, noise),
    )


def _by_label(records: Sequence[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        found.setdefault((record.clock, record.label), []).append(record)
    return found


def _makespans(records: Iterable[RunRecord]) -> tuple[float, ...]:
    return tuple(r.makespan_s for r in records if r.status == "ok" and r.makespan_s is not None)


def _noise(by_label: dict[tuple[str, str], list[RunRecord]]) -> float | None:
    floors = []
    for (clock, label), part in by_label.items():
        arm = by_label.get((clock, label.removesuffix(AA_MARK)))
        if label.endswith(AA_MARK) and arm and _makespans(arm) and _makespans(part):
            floors.append(stats.noise_floor(_makespans(arm), _makespans(part)))
    return max((f for f in floors if f is not None), default=None)


def _baseline(by_label: dict[tuple[str, str], list[RunRecord]], clock: str) -> str:
    """bulk where it ran, else the first configuration that has a good run."""
    good = [label for (c, label), part in by_label.items() if c == clock and _makespans(part) and not label.endswith(AA_MARK)]
    return next((label for label in good if by_label[clock, label][0].engine in BASELINES), good[0] if good else "")


def _row(
    part: Sequence[RunRecord], by_label: dict[tuple[str, str], list[RunRecord]], noise: float | None, found: Fidelity
) -> Row:
    good = [r for r in part if r.status == "ok"]
    bad = next((r for r in part if r.status != "ok"), None)
    verified = bool(good) and all(r.verified for r in good)
    first, runs = part[0], _makespans(part)
    base = _baseline(by_label, first.clock)
    against = stats.ratio(runs, _makespans(by_label[first.clock, base])) if runs and base else None
    shown = stats.verdict(against, noise if first.clock == "wall" else None) if against else "no result"
    return Row(
        label=first.label,
        engine=first.engine,
        version=first.engine_version,
        clock=first.clock,
        n=len(runs),
        status=bad.status if bad else "ok",
        reason=bad.reason if bad else None,
        verified=verified,
        makespan_s=stats.median(runs) if runs else None,
        runs_s=runs,
        against=against,
        verdict="baseline" if first.label == base else shown,
        baseline=base,
        sim_error=found.error_of(first),
        open_s=_median(r.open_s for r in good),
        prepare_s=_median(r.prepare_s for r in good),
        first_output_s=_median(first_output(r) for r in good),
        rows_per_s=_median(rows_per_second(r) for r in good),
        peak_memory_bytes=_median(r.peak_memory_bytes for r in good),
        spilled_bytes=_median(counter(r, "spilled_bytes") for r in good),
        cost_usd=_median(cost_usd(r) for r in good),
        options=first.options,
        aa=first.label.endswith(AA_MARK),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None


def _sentence(record: RunRecord, rows: Sequence[Row], noise: float | None) -> str:
    """The verdict on a group."""
    real = [r for r in rows if r.clock == "wall"] or list(rows)
    good = [r for r in real if r.makespan_s is not None and not r.aa]
    failed = [f"{r.label} {_ended(r.status)}" for r in real if r.status != "ok"]
    tail = f"; {', '.join(failed)}" if failed else ""
    name = Group(record.workload, "", record.scale, "", record.sweep, (), None, "").title
    if not good:
        return f"{name}: no engine has a result{tail}"
    if len(good) == 1:
        return f"{name}: {good[0].label} took {_seconds(good[0])}{tail}"
    return f"{name}: {_standing(good, noise)}{tail}"


def _standing(good: Sequence[Row], noise: float | None) -> str:
    """Who leads, and by how much; rows come fastest first."""
    best, second, slowest = good[0], good[1], good[-1]
    ties = [r for r in good[1:] if stats.verdict(stats.ratio(best.runs_s, r.runs_s), noise) != "faster"]
    if not ties:
        text = f"{best.label} is fastest, {_seconds(best)}: {factor(second, best)} faster than {second.label}"
    elif any(stats.verdict(stats.ratio(best.runs_s, r.runs_s), noise) == "too few runs" for r in ties):
        return f"{best.label} has the lowest median, {_seconds(best)}, of too few runs to tell a difference"
    else:
        text = f"no difference shown between {_listed([best, *ties])}, about {_seconds(best)}"
    if slowest not in (best, second, *ties):
        text += f"; {slowest.label} is slowest, {_seconds(slowest)}"
    return text


def _listed(rows: Sequence[Row]) -> str:
    return f"{', '.join(r.label for r in rows[:-1])} and {rows[-1].label}"


def factor(slow: Row, fast: Row) -> str:
    """How many times, with the interval: "2.1× (1.9 to 2.3)"."""
    found = stats.ratio(slow.runs_s, fast.runs_s)
    interval = "" if found.low is None else f" ({found.low:.2g} to {found.high:.2g})"
    return f"{found.value:.2g}×{interval}"


def _seconds(row: Row) -> str:
    from windtunnel.units import format_seconds

    return format_seconds(row.makespan_s.value if row.makespan_s else None)


def _ended(status: str) -> str:
    return {
        "out_of_memory": "ran out of memory", "timeout": "did not end in time", "unsupported": "cannot run it",
        "wrong_result": "gave a wrong result",
    }.get(status, "failed")  # fmt: skip


# -- effects ----------------------------------------------------------------------------------------------------------


def _effects(group: Group) -> Iterable[Effect]:
    """streaming against bulk is the model; every other engine against bulk is the engine."""
    rows = {r.label: r for r in group.rows if r.clock == "wall" and r.runs_s and not r.aa}
    base = next((r for r in rows.values() if r.engine == "bulk"), None)
    if base is None:
        return
    for row in rows.values():
        if row.label != base.label:
            found = stats.ratio(row.runs_s, base.runs_s)
            kind = "model" if row.engine in ("bulk", "streaming") else "engine"
            yield Effect(kind, group.title, row.label, base.label, found, stats.verdict(found, group.noise))


def _timelines(records: Sequence[RunRecord]) -> Iterable[Timeline]:
    """The middle run of every configuration; A/A arms show nothing new."""
    for (_, label), part in sorted(_by_label(records).items(), key=lambda item: (item[0][0] != "wall", item[0][1])):
        good = [r for r in part if r.status == "ok"]
        if good and not label.endswith(AA_MARK):
            yield timeline(middle(good))
