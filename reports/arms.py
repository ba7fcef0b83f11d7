"""Which runs belong together: groups that may be compared, configurations within them, their A/A arms and noise floors.

Pure functions of records. The module decides what is set against what; it draws no conclusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from windtunnel.records.record import RunRecord
from windtunnel.reports import stats
from windtunnel.spec.canonical import canonical_json
from windtunnel.spec.devices import told as on_devices

AA_MARK = " (A/A)"
BASELINES = ("bulk", "sim:bulk")

Key = tuple[str, float, str, str, str]
Arms = dict[tuple[str, str], list[RunRecord]]  # by (clock, label)


def key_of(record: RunRecord) -> Key:
    """What must be equal for runs to be compared: workload, scale, cluster, point of a sweep, and the whole specification."""
    cluster, sweep, spec = map(canonical_json, (record.cluster_spec, record.sweep, record.workload_spec))
    return (record.workload, record.scale, cluster, sweep, spec)


def by_group(records: Iterable[RunRecord]) -> dict[Key, list[RunRecord]]:
    """Records of each group; groups by name and scale, runs in the order in which they were made."""
    found: dict[Key, list[RunRecord]] = {}
    for record in sorted(
        records, key=lambda r: (r.workload, r.scale, key_of(r), r.clock != "wall", r.label, r.cell, r.repetition, r.run_id)
    ):
        found.setdefault(key_of(record), []).append(record)
    return found


def by_label(records: Iterable[RunRecord]) -> Arms:
    """Records of each configuration of a group."""
    found: Arms = {}
    for record in records:
        found.setdefault((record.clock, record.label), []).append(record)
    return found


def good(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs that ended well and have a makespan."""
    return [r for r in records if r.status == "ok" and r.makespan_s is not None]


def makespans(records: Iterable[RunRecord]) -> tuple[float, ...]:
    """Seconds of the good runs."""
    return tuple(r.makespan_s for r in good(records) if r.makespan_s is not None)


def is_aa(label: str) -> bool:
    """Whether a label names the second of two equal arms."""
    return label.endswith(AA_MARK)


def noise_floor(arms: Arms) -> float | None:
    """The noise floor of a group: the largest over its A/A arms, as a fraction; None without one of enough runs."""
    floors = []
    for (clock, label), part in arms.items():
        first, again = makespans(arms.get((clock, label.removesuffix(AA_MARK)), ())), makespans(part)
        if is_aa(label) and first and again:
            floors.append(stats.noise_floor(first, again))
    return max((f for f in floors if f is not None), default=None)


def noise_floors(groups: Mapping[Key, Sequence[RunRecord]]) -> dict[Key, float | None]:
    """The noise floor of each group; where its own A/A arm is missing or failed, the largest of the other groups."""
    own = {key: noise_floor(by_label(part)) for key, part in groups.items()}
    worst = max((f for f in own.values() if f is not None), default=None)
    return {key: worst if floor is None else floor for key, floor in own.items()}


def baseline(arms: Arms, clock: str) -> str:
    """The label that others are set against: bulk where it ran, else the first with a good run; "" without one."""
    labels = [label for (c, label), part in arms.items() if c == clock and makespans(part) and not is_aa(label)]
    return next((label for label in labels if arms[clock, label][0].engine in BASELINES), labels[0] if labels else "")


def titles(groups: Mapping[Key, Sequence[RunRecord]]) -> dict[Key, str]:
    """A short name of each group, longer only where two would be called the same."""
    first = {key: part[0] for key, part in groups.items()}
    names = {key: _title(record) for key, record in first.items()}
    for detail in (_cluster, _partitions, _digest):
        told = list(names.values())
        names = {key: name + detail(first[key]) if told.count(name) > 1 else name for key, name in names.items()}
    return names


def _title(record: RunRecord) -> str:
    sweep = "".join(f", {name.rpartition('.')[2]} = {value}" for name, value in record.sweep.items())
    return f"{record.workload} at scale {record.scale:g}{on_devices(record.cluster_spec, record.workload_spec)}{sweep}"


def _cluster(record: RunRecord) -> str:
    return f", {record.cluster}"


def _partitions(record: RunRecord) -> str:
    return f", {record.workload_spec.get('dataset', {}).get('partitions')} partitions"


def _digest(record: RunRecord) -> str:
    return f", specification {record.workload_digest[:8]}"
