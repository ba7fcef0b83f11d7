"""What a gate compares: one configuration's numbers, whoever measured them. Records and pytest-benchmark files become the same.

A `Series` holds the values of each quantity, one a run, and the facts that must be equal on both sides. Pure functions of plain
data; files are read here and checked, since they may come from anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.records.serving import is_serving
from windtunnel.records.store import Store
from windtunnel.reports.arms import is_aa
from windtunnel.running.environment import host_key
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """``values``: quantity → one number a good run, in the order of the runs. ``bad``: how runs ended that were not good, and why.

    ``clock`` is "virtual" for simulated runs, whose numbers have no noise. ``facts``: what must be equal for a comparison, by name.
    ``subject`` names the configuration for people; equal subjects are set against each other.
    """

    subject: str
    clock: str
    values: Mapping[str, tuple[float, ...]]
    bad: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # the A/A arm, where there is one

    def unit(self, quantity: str) -> str:
        """The unit of a quantity."""
        return self.units.get(quantity) or UNITS.get(quantity, "")


def read(path: Path) -> tuple[Series, ...]:
    """A results folder, or a file of pytest-benchmark or of `to_json`. Raises InputError with one sentence."""
    if path.is_dir():
        records = Store(path).records(warmup=False)
        if not records:
            raise InputError(
                f"there are no records in {str(path)!r}; a results folder holds runs/*.json, made by `windtunnel run`"
            )
        return of_records(records)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(document, dict) and "benchmarks" in document:
        return of_benchmarks(document, path)
    if isinstance(document, dict) and document.get("windtunnel") == "baseline":
        return of_json(document, path)
    raise InputError(f"{path} holds neither benchmarks of pytest-benchmark nor a baseline of windtunnel")


# -- records ----------------------------------------------------------------------------------------------------------


def of_records(records: Iterable[RunRecord]) -> tuple[Series, ...]:
    """Series of each configuration; the A/A arm of one goes beside it."""
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted((r for r in records if not r.warmup), key=lambda r: (r.repetition, r.run_id)):
        groups.setdefault(_subject(record), []).append(record)
    arms = {name: part for name, part in groups.items() if is_aa(part[0].label)}
    plain = {name: part for name, part in groups.items() if name not in arms}
    return tuple(_series(name, part, arms.get(f"{name} (A/A)", [])) for name, part in sorted(plain.items()))


def _subject(record: RunRecord) -> str:
    sweep = "".join(f", {name.rpartition('.')[2]} = {value}" for name, value in sorted(record.sweep.items()))
    world = "simulated " if record.clock == "virtual" else ""
    return f"{record.workload} at scale {record.scale:g}{told(record.cluster_spec, record.workload_spec)}{sweep} · {world}{record.label}"


def _series(subject: str, records: list[RunRecord], again: list[RunRecord]) -> Series:
    good = [r for r in records if r.status == "ok"]
    return Series(
        subject=subject,
        clock=records[0].clock,
        values=_values(good),
        bad=tuple((r.status, r.reason or "no reason given") for r in records if r.status != "ok"),
        facts=_facts(records),
        again=_values([r for r in again if r.status == "ok"]),
    )


def _values(records: list[RunRecord]) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for name in UNITS:
        values = [_value(r, name) for r in records]
        known = tuple(v for v in values if v is not None)
        if known and len(known) == len(values):
            found[name] = known
    return found


def _value(record: RunRecord, quantity: str) -> float | None:
    if quantity == "makespan_s" and is_serving(record):
        return None  # as long as its arrivals
    value = getattr(record, quantity) if quantity in ("makespan_s", "peak_memory_bytes") else record.counters.get(quantity)
    return None if value is None else float(value)


def _facts(records: list[RunRecord]) -> dict[str, str]:
    """Data and definition, cluster, options; of real runs the host and its libraries too (windtunnel itself is what is compared)."""
    first = records[0]
    facts = {
        "workload": _many(r.workload_digest for r in records),
        "cluster": digest(first.cluster_spec),
        "options": _many(canonical_json(r.options) for r in records if r.status == "ok"),
        "rows": _many(str(r.rows_out) for r in records if r.status == "ok"),
    }
    if first.clock == "wall":
        environment = {**first.environment, "libraries": _others(first.environment.get("libraries") or {})}
        facts["host"] = canonical_json([str(part) for part in host_key(environment)])
    return facts


def _others(libraries: Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in libraries.items() if name != "windtunnel"}


def _many(values: Iterable[str]) -> str:
    return " and ".join(sorted(set(values)))


# -- pytest-benchmark -------------------------------------------------------------------------------------------------


def of_benchmarks(document: Mapping[str, Any], path: Path) -> tuple[Series, ...]:
    """Series of a file that ``pytest --benchmark-json`` wrote, one a benchmark; its rounds are the runs."""
    machine = document.get("machine_info") or {}
    host = canonical_json([str((machine.get("cpu") or {}).get("brand_raw")), str(machine.get("python_version"))])
    try:
        return tuple(
            Series(
                subject=str(b.get("fullname") or b["name"]), clock="wall", values={"duration_s": _rounds(b["stats"])},
                facts={"host": host}, units={"duration_s": "s"},
            )
            for b in document["benchmarks"]
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not what pytest-benchmark writes: {type(error).__name__} at {error}") from error


def _rounds(stats: Mapping[str, Any]) -> tuple[float, ...]:
    """Seconds of each round; the median alone where rounds were not kept."""
    values = stats.get("data") or [stats["median"]]
    found = tuple(float(v) for v in values)
    if not all(math.isfinite(v) and v >= 0 for v in found):
        raise ValueError("a duration that is no number")
    return found


# -- baselines --------------------------------------------------------------------------------------------------------


def to_json(series: Iterable[Series]) -> dict[str, Any]:
    """A document for people and version control: the counted and simulated numbers of each series, sorted."""
    return {
        "windtunnel": "baseline",
        "schema": 1,
        "series": {
            s.subject: {
                "clock": s.clock,
                "facts": {name: value if len(value) <= 64 else digest(value) for name, value in sorted(s.facts.items())},
                "bad": [list(pair) for pair in s.bad],
                "values": {name: list(values) for name, values in sorted(s.values.items())},
            }
            for s in sorted(series, key=lambda s: s.subject)
        },
    }


def of_json(document: Mapping[str, Any], path: Path) -> tuple[Series, ...]:
    """The series of a `to_json` document."""
    try:
        if document["schema"] != 1:
            raise InputError(f"{path} is a baseline of schema {document['schema']!r}; this version reads schema 1")
        return tuple(
            Series(
                subject=str(name), clock=str(s["clock"]), facts={str(k): str(v) for k, v in s["facts"].items()},
                values={str(k): tuple(float(v) for v in values) for k, values in s["values"].items()},
                bad=tuple((str(a), str(b)) for a, b in s["bad"]),
            )
            for name, s in document["series"].items()
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no baseline that windtunnel wrote: {type(error).__name__} at {error}") from error


def short(series: Series) -> Series:
    """With long facts as digests, so that a series read from a baseline equals the one it was made of."""
    (back,) = of_json(to_json([series]), Path("baseline.json"))
    return back
