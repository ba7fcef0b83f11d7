"""How long a candidate takes: simulated whole where that is quick, else at two sizes and carried on in a straight line.

A long job on equal partitions passes, after its start, into a steady state in which every further partition takes the same time:
throughput is that of the bottleneck. So the cluster is simulated as it is, on ``n`` and on ``2 n`` partitions of the true size,
and ``T(N) = T(2 n) + (T(2 n) - T(n)) / n * (N - 2 n)``. What start and end cost is in ``T(2 n)``. The line holds while nothing
fills up: where the object store still grows and would pass its limit, sizes are doubled until it is full (from then on the
engine spills or waits, and that is the regime that lasts); where disks would overflow, the candidate fails as the full run would.
How far the line is off is measured by doubling once more (`refined`), and is part of the interval.

A first look at half these sizes (``SCOUT`` in place of a number of times) is enough to drop a candidate that is far behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from windtunnel.errors import InputError
from windtunnel.scenario.reading import from_document
from windtunnel.sim.capacity.question import resized
from windtunnel.sim.capacity.trial import Order, Trial, run
from windtunnel.spec.units import format_bytes

WAVES = 3  # source tasks a slot at the smaller size
FEWEST = 24  # partitions at the smaller size
SCOUT = 0.5  # times the usual sizes
WHOLE = 1.5  # a job of up to so many times the larger size is simulated whole
MOST = 16_384  # partitions that are simulated at most while something still fills up
GROWS = 1.3  # a peak that is higher by this when the size doubles still grows
PER_DOUBLING = 0.01  # error assumed for each doubling beyond what was simulated, until `refined` measures it


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """``seconds`` at ``partitions`` of which ``simulated`` were; ``slope_s``: a partition more; ``size_error``: relative."""

    status: str
    reason: str | None = None
    seconds: float = math.inf
    partitions: int = 0
    simulated: int = 0
    simulated_s: float = 0.0
    slope_s: float = 0.0
    size_error: float = 0.0
    checked: bool = False
    used: Mapping[str, float] = field(default_factory=dict)
    p99_s: float | None = None
    replica_cpu_s: float = 0.0
    trial: Trial | None = None  # at the larger size

    @property
    def ok(self) -> bool:
        """Whether there is a time."""
        return self.status == "ok"

    @property
    def exact(self) -> bool:
        """Whether the whole job was simulated."""
        return self.simulated >= self.partitions

    def at(self, factor: float) -> float:
        """Seconds on ``factor`` times the partitions, along the same line; only for jobs that are not exact."""
        return self.seconds + self.slope_s * self.partitions * (factor - 1.0)


def assess(order: Order) -> tuple[tuple[Any, ...], Estimate]:
    """Estimate a candidate; ``order.key`` ends with how many times the usual sizes are simulated."""
    try:
        full = _shape(order)
    except InputError as error:
        return order.key, Estimate(status="unsupported", reason=str(error))
    partitions, slots, divisible = full
    usual = max(WAVES * slots, FEWEST)
    size = math.ceil(usual * order.key[-1])
    if not divisible or partitions <= 2 * WHOLE * max(size, usual):
        return order.key, whole(run(order)[1], partitions)
    return order.key, _extrapolated(order, partitions, size, scouting=size < usual)


def whole(trial: Trial, partitions: int) -> Estimate:
    """Of a job simulated whole."""
    if not trial.ok:
        return Estimate(status=trial.status, reason=trial.reason, partitions=partitions, simulated=partitions)
    return Estimate(
        status="ok", seconds=trial.makespan_s, partitions=partitions, simulated=partitions, simulated_s=trial.makespan_s,
        checked=True, used=trial.used, p99_s=trial.p99_s, replica_cpu_s=trial.replica_cpu_s,
    )  # fmt: skip


def _shape(order: Order) -> tuple[int, int, bool]:
    """(partitions, tasks that may run at once, whether fewer partitions are the same work in small)."""
    scenario = from_document(order.document, order.file)
    data, cluster = scenario.workload.dataset, scenario.cluster
    if scenario.serving is not None:
        return 1, 1, False
    slots = 1
    for op in scenario.workload.pipeline.operators:
        for need, have in ((op.resources.cpus, cluster.cpus), (op.resources.gpus, cluster.gpus)):
            if op.kind != "scan" and need > 0:
                slots = max(slots, int(have / need))
    declared = data.format == "generated" and data.skew == 0.0 and (data.rows or 0) >= data.partitions
    return data.partitions, slots, declared


def _extrapolated(order: Order, partitions: int, size: int, *, scouting: bool) -> Estimate:
    known = order.known
    small = known if known is not None and known.partitions == size else run(_of(order, size))[1]
    while True:
        large = run(_of(order, 2 * size))[1] if small.ok else small
        if not (small.ok and large.ok):
            failed = large if small.ok else small
            return Estimate(status=failed.status, reason=failed.reason, partitions=partitions, simulated=2 * size)
        if scouting or not fills_up(small, large, partitions):
            return straight(small, large, partitions)
        if 4 * size > min(MOST, partitions):
            break
        small, size = large, 2 * size
    if 4 * size > partitions:
        return whole(run(order)[1], partitions)
    return Estimate(
        status="unsupported", partitions=partitions, simulated=2 * size,
        reason=f"what lies between its stages still grows after {2 * size} of {partitions} partitions, and would pass the store's "
        f"{format_bytes(large.store_bytes)} a node: no size that was simulated tells what happens then",
    )  # fmt: skip


def _of(order: Order, partitions: int) -> Order:
    return replace(order, document=resized(order.document, partitions))


def projected(small: float, large: float, trial_sizes: tuple[int, int], partitions: int) -> float:
    """A peak on all partitions, in a straight line; as it is where it does not grow."""
    if large <= GROWS * small:
        return large
    n, m = trial_sizes
    return large + (large - small) * (partitions - m) / (m - n)


def fills_up(small: Trial, large: Trial, partitions: int) -> bool:
    """Whether the store grows from size to size, is not full yet, and would be before the end."""
    sizes = (small.partitions, large.partitions)
    end = projected(small.peak_store_bytes, large.peak_store_bytes, sizes, partitions)
    return large.peak_store_bytes < 0.9 * large.store_bytes < end


def straight(small: Trial, large: Trial, partitions: int) -> Estimate:
    """The line through two sizes, or the failure that it leads to."""
    n, m = small.partitions, large.partitions
    disk = projected(small.peak_disk_bytes, large.peak_disk_bytes, (n, m), partitions)
    if disk > large.disk_bytes:
        return Estimate(
            status="out_of_memory", partitions=partitions, simulated=m,
            reason=f"a disk of {format_bytes(large.disk_bytes)} would be full: the whole job would lay {format_bytes(disk)} on it",
        )  # fmt: skip
    slope = max(0.0, large.makespan_s - small.makespan_s) / (m - n)
    seconds = large.makespan_s + slope * (partitions - m)
    busy = {name: min(1.0, _steady(small, large, name)) for name in large.used}
    return Estimate(
        status="ok", seconds=seconds, partitions=partitions, simulated=m, simulated_s=large.makespan_s, slope_s=slope,
        size_error=PER_DOUBLING * math.log2(partitions / m), used=busy, trial=large,
    )  # fmt: skip


def _steady(small: Trial, large: Trial, name: str) -> float:
    """Busy share between the two sizes, where start and end no longer count."""
    span = large.makespan_s - small.makespan_s
    if span <= 0:
        return large.used[name]
    return max(0.0, large.used[name] * large.makespan_s - small.used.get(name, 0.0) * small.makespan_s) / span


def refined(first: Estimate, second: Estimate) -> Estimate:
    """The estimate of the doubled sizes, with the error that the first one had as the error of both."""
    if not (first.ok and second.ok):
        return second
    if second.exact:
        return second
    return replace(second, size_error=abs(first.seconds / second.seconds - 1.0), checked=True)
