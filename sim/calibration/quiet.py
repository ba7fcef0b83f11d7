"""Which measured runs were left alone by others on the machine. Knows records and their samples of foreign CPU, no costs.

The parent of every real cell samples how many cores processes that are not its own kept busy. A run beside a busy neighbour
tells more of the neighbour than of the engine; where enough quieter runs exist, it is left out. A neighbour on the same host but
outside this virtual machine is seen by nobody here: the same kernels then take a third longer for a minute. Such noise only ever
slows down, so of several sessions of one cell the fastest stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import pyarrow.compute as pc

from windtunnel.records.record import RunRecord

FOREIGN = "foreign_cpu_cores"  # the sample that the parent of a cell takes
QUIET_CORES = 0.25  # a run is quiet when others kept at most so much of a core busy, on average


def foreign_cores(record: RunRecord) -> float:
    """Cores that others kept busy during the run, on average; 0 where nobody looked."""
    samples = record.samples
    values = samples.filter(pc.equal(samples["name"].cast("string"), FOREIGN))["value"].to_numpy()
    return float(np.mean(values)) if len(values) else 0.0


def is_quiet(record: RunRecord, limit: float = QUIET_CORES) -> bool:
    """Whether others left the machine to this run."""
    return foreign_cores(record) <= limit


def quiet(
    records: Iterable[RunRecord], group: Callable[[RunRecord], Hashable], *, keep: float = 0.0, limit: float = QUIET_CORES
) -> list[RunRecord]:
    """The quiet runs of each group, in their order; at least the quietest ``keep`` (a share of the group, and one run)."""
    groups: dict[Hashable, list[RunRecord]] = {}
    given = list(records)
    for record in given:
        groups.setdefault(group(record), []).append(record)
    chosen: set[str] = set()
    for members in groups.values():
        chosen.update(r.run_id for r in _quietest(members, keep, limit))
    return [r for r in given if r.run_id in chosen]


def _quietest(members: Sequence[RunRecord], keep: float, limit: float) -> Sequence[RunRecord]:
    ranked = sorted(members, key=lambda r: (foreign_cores(r), r.run_id))
    least = max(1, round(keep * len(ranked)))
    calm = sum(1 for r in ranked if foreign_cores(r) <= limit)
    return ranked[: max(least, calm)]


def sessions(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Runs of one process together: those of a session share the times that opening and preparing took."""
    found: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        found.setdefault((record.cell, record.engine, record.open_s, record.prepare_s), []).append(record)
    return list(found.values())


def median_makespan(records: Sequence[RunRecord]) -> float:
    """The middle of their makespans."""
    return float(np.median([r.makespan_s or 0.0 for r in records]))


def fastest_session(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of the session with the lowest median, among those that have as good as the most runs (a lone run may be luck)."""
    found = sessions(records)
    most = max(len(s) for s in found)
    return min((s for s in found if 2 * len(s) >= most), key=median_makespan)


def settled(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Of each cell the runs of its fastest session."""
    cells: dict[str, list[RunRecord]] = {}
    for record in records:
        cells.setdefault(record.cell, []).append(record)
    return [r for members in cells.values() for r in fastest_session(members)]
