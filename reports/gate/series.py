"""What a gate compares: one configuration's numbers, whoever measured them. Records and pytest-benchmark files become the same.

A `Series` holds the values of each quantity, one a run, and the facts that must be equal on both sides. Pure functions of plain
data; `files` reads them from folders and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from windtunnel.records.record import RunRecord
from windtunnel.records.serving import is_serving
from windtunnel.reports.arms import is_aa
from windtunnel.running.environment import host_facts
from windtunnel.spec.canonical import canonical_json, digest
from windtunnel.spec.devices import told

#: quantity → unit; smaller is better in all of them
UNITS = {
    "makespan_s": "s", "latency_p50_s": "s", "latency_p99_s": "s", "peak_memory_bytes": "B", "peak_store_bytes": "B",
    "bytes_network": "B", "bytes_remote": "B", "bytes_disk": "B", "bytes_merged": "B", "bytes_shm": "B", "spilled_bytes": "B",
    "tasks": "tasks", "retries": "tasks", "blocks": "blocks", "blocks_lost": "blocks", "loads": "loads", "workers_lost": "workers",
    "dead_letters": "rows", "requests_rejected": "requests", "requests_timed_out": "requests", "requests_failed": "requests",
}  # fmt: skip
#: what a noisy machine changes
TIMED = ("makespan_s", "latency_p50_s", "latency_p99_s", "peak_memory_bytes", "requests_rejected", "requests_timed_out")
COUNTED = tuple(name for name in UNITS if name not in TIMED)
UNREADABLE = "unreadable"  # how a file "ended" that holds no record


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """``values``: quantity → one number a good run, in the order of the runs. ``bad``: how runs ended that were not good, and why.

    ``clock`` is "virtual" for simulated runs, whose numbers have no noise. ``facts``: what must be equal for a comparison, by name;
    None: the source does not tell it. ``parts``: the fields behind a fact, to say which of them differ. ``subject`` names the
    configuration for people. Equal ``subject`` or else equal ``key`` are set against each other: a scenario's points keep their key
    when the file is edited. ``scenario``: its document. ``seeds`` of simulated runs. ``few``: why there is one value a quantity.
    """

    subject: str
    clock: str
    values: Mapping[str, tuple[float, ...]]
    bad: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str | None] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # the A/A arm, where there is one
    key: str = ""
    scenario: Mapping[str, Any] | None = None
    seeds: tuple[int, ...] = ()
    few: str = ""

    def unit(self, quantity: str) -> str:
        """The unit of a quantity."""
        return self.units.get(quantity) or UNITS.get(quantity, "")

    def of(self, quantity: str) -> tuple[float, ...]:
        """The values of a quantity; runs that count their tasks and do not count this had none of it."""
        counts = quantity in COUNTED and "tasks" in self.values
        return self.values.get(quantity) or ((0.0,) * len(self.values["tasks"]) if counts else ())


def unreadable(subject: str, why: str) -> Series:
    """What stands for a file that holds no record."""
    return Series(subject=subject, clock="", values={}, bad=((UNREADABLE, why),))


def of_records(records: Iterable[RunRecord]) -> tuple[Series, ...]:
    """Series of each configuration; the A/A arm of one goes beside it."""
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted((r for r in records if not r.warmup), key=lambda r: (r.repetition, r.run_id)):
        groups.setdefault(_subject(record), []).append(record)
    arms = {name: part for name, part in groups.items() if is_aa(part[0].label)}
    plain = {name: part for name, part in groups.items() if name not in arms}
    return tuple(_series(name, part, arms.get(f"{name} (A/A)", [])) for name, part in sorted(plain.items()))


def _subject(record: RunRecord) -> str:
    devices = told(record.cluster_spec, record.workload_spec)
    return f"{record.workload} at scale {record.scale:g}{devices}{_sweep(record)} · {_world(record)}{record.label}"


def _key(record: RunRecord) -> str:
    """What a configuration of a scenario keeps whatever is edited in its file."""
    return "" if record.scenario is None else f"{record.scenario['name']}{_sweep(record)} · {_world(record)}{record.label}"


def _sweep(record: RunRecord) -> str:
    return "".join(f", {name.rpartition('.')[2]} = {value}" for name, value in sorted(record.sweep.items()))


def _world(record: RunRecord) -> str:
    return "simulated " if record.clock == "virtual" else ""


def _series(subject: str, records: list[RunRecord], again: list[RunRecord]) -> Series:
    good = [r for r in records if r.status == "ok"]
    first = records[0]
    return Series(
        subject=subject,
        clock=first.clock,
        values=_values(good),
        bad=tuple((r.status, r.reason or "no reason given") for r in records if r.status != "ok"),
        facts=_facts(records),
        parts={"workload": flat(first.workload_spec), "cluster": flat(first.cluster_spec), "options": flat(first.options)},
        again=_values([r for r in again if r.status == "ok"]),
        key=_key(first),
        scenario=first.scenario,
        seeds=tuple(r.seed for r in good) if first.clock == "virtual" else (),
    )


def _values(records: list[RunRecord]) -> dict[str, tuple[float, ...]]:
    """A count that some runs lack and others have is 0 in those that count at all."""
    found: dict[str, tuple[float, ...]] = {}
    for name in UNITS:
        values = [_value(r, name) for r in records]
        if any(v is not None for v in values):
            values = [0.0 if v is None and name in COUNTED and "tasks" in r.counters else v for v, r in zip(values, records)]
        known = tuple(v for v in values if v is not None)
        if known and len(known) == len(values):
            found[name] = known
    return found


def _value(record: RunRecord, quantity: str) -> float | None:
    if quantity == "makespan_s" and is_serving(record):
        return None  # as long as its arrivals
    value = getattr(record, quantity) if quantity in ("makespan_s", "peak_memory_bytes") else record.counters.get(quantity)
    return None if value is None else float(value)


def _facts(records: list[RunRecord]) -> dict[str, str | None]:
    """Data and definition, cluster, options; of real runs the host and its libraries too (windtunnel itself is what is compared)."""
    first = records[0]
    facts: dict[str, str | None] = {
        "workload": _many(r.workload_digest for r in records),
        "cluster": _many(digest(r.cluster_spec) for r in records),
        "options": _many(canonical_json(r.options) for r in records if r.status == "ok"),
        "rows": _many(str(r.rows_out) for r in records if r.status == "ok"),
    }
    if first.clock == "wall":
        hosts = [host_facts(r.environment) for r in records]
        names = dict.fromkeys(name for told in hosts for name in told)
        facts |= {f"host.{n}": _told(told.get(n) for told in hosts) for n in names if n != "libraries.windtunnel"}
    return facts


def _told(values: Iterable[str | None]) -> str | None:
    known = list(values)
    return None if None in known else _many(v for v in known if v is not None)


def _many(values: Iterable[str]) -> str:
    return " and ".join(sorted(set(values)))


def flat(value: Any, path: str = "") -> dict[str, str]:
    """The leaves of an object by dotted path; items of a list that have a name or label by that."""
    if isinstance(value, Mapping):
        pairs = [(k, v) for k, v in value.items() if not str(k).startswith("_") and k != "type"]
        return {p: t for k, v in pairs for p, t in flat(v, f"{path}.{k}" if path else str(k)).items()}
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) for v in value):
        names = [str(v.get("label") or v.get("name") or i) for i, v in enumerate(value)]
        return {p: t for n, v in zip(names, value, strict=True) for p, t in flat(v, f"{path}.{n}" if path else n).items()}
    return {path: value if isinstance(value, str) else canonical_json(value)}
