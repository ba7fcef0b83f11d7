"""What forbids comparing runs (hosts, versions, options), and what a reader must be warned of (foreign load, unchecked output).

Pure; each difference is one sentence that names what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from windtunnel.records.record import RunRecord
from windtunnel.reports.arms import Key, by_label
from windtunnel.reports.verdicts import listed
from windtunnel.running.environment import host_facts, host_key
from windtunnel.spec.canonical import canonical_json

FOREIGN_CORES = 0.25  # median load of other programs above which a reader is warned


def place(record: RunRecord) -> dict[str, Any]:
    """The environment without what changes from run to run."""
    return {k: v for k, v in record.environment.items() if k != "load_average"}


def reasons_not_comparable(groups: Mapping[Key, Sequence[RunRecord]], titles: Mapping[Key, str]) -> tuple[str, ...]:
    """Why the runs may not be set against each other; empty when they may."""
    return (*_hosts([r for part in groups.values() for r in part if r.clock == "wall"]), *_mixtures(groups, titles))


def _hosts(real: Sequence[RunRecord]) -> tuple[str, ...]:
    hosts = {host_key(r.environment): host_facts(r.environment) for r in real}
    if len(hosts) < 2:
        return ()
    what = listed(_differing(list(hosts.values())))
    return (f"the real runs come from {len(hosts)} different hosts or sets of library versions, which differ in {what}",)


def _differing(hosts: Sequence[Mapping[str, str | None]]) -> list[str]:
    """Names of the facts and libraries that are not equal everywhere."""
    names = dict.fromkeys(name for facts in hosts for name in facts)
    differ = [n for n in names if len({facts.get(n) for facts in hosts}) > 1]
    return [n.removeprefix("libraries.").replace("_", " ") for n in differ]


def _mixtures(groups: Mapping[Key, Sequence[RunRecord]], titles: Mapping[Key, str]) -> tuple[str, ...]:
    """Labels that stand for more than one thing, so that their medians would mix what is different."""
    found = []
    for key, records in groups.items():
        for (_, label), part in by_label(records).items():
            kinds = {"engines": {r.engine for r in part}, "versions": {r.engine_version for r in part if r.engine_version}}
            kinds["options"] = {canonical_json(r.options) for r in part if r.status == "ok"}
            mixed = [name for name, values in kinds.items() if len(values) > 1]
            if mixed:
                found.append(f"{label} on {titles[key]} stands for runs with different {listed(mixed)}")
    return tuple(found)


def warnings(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """What does not forbid comparing but must be known."""
    found: list[str] = []
    foreign = [v for r in records if r.clock == "wall" for v in _values(r, "foreign_cpu_cores")]
    if foreign and float(np.median(foreign)) > FOREIGN_CORES:
        found.append(f"other programs used {float(np.median(foreign)):.1f} cores of this machine while the runs were measured")
    unverified = sorted({r.label for r in records if r.clock == "wall" and r.status == "ok" and not r.verified})
    if unverified:
        found.append(f"no oracle checked the output of {listed(unverified)}")
    return tuple(found)


def _values(record: RunRecord, name: str) -> list[float]:
    samples = record.samples
    values: list[float] = samples.filter(pc.equal(samples["name"].cast("string"), name))["value"].to_pylist()
    return values
