"""Numbers of one run, read off its record: pure functions, no rounding. A run that did not end well has none.

`windtunnel.records.document` defines what scenarios promise (first output, utilization, cost); here are the ones that only reports show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windtunnel.records.document import first_output_s, price_per_hour, utilization
from windtunnel.records.record import RunRecord

#: what a worker may spend its time on, in the order in which reports show it
KINDS = (
    "load", "query", "fetch", "deserialize", "compute", "step", "serialize", "emit", "spill", "queue", "barrier", "blocked", "launch",
    "session", "request",
)  # fmt: skip
POINTS = 120  # points of a curve


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over the time of a run: seconds since its start, values in the unit that the name of the curve says."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]


def worker_seconds(record: RunRecord) -> dict[str, float]:
    """Seconds of each kind of span, summed over workers, in the order of `KINDS`."""
    spans = record.spans
    table = pa.table({"kind": spans["kind"].cast("string"), "seconds": pc.subtract(spans["end_s"], spans["start_s"])})
    sums = table.group_by("kind").aggregate([("seconds", "sum")])
    found = dict(zip(sums["kind"].to_pylist(), sums["seconds_sum"].to_pylist(), strict=True))
    return {kind: float(found[kind]) for kind in KINDS if kind in found}


def first_output(record: RunRecord) -> float | None:
    """Seconds until the last operator first put something out; None for engines that show none of their insides."""
    return first_output_s(record) if _open_inside(record) else None


def rows_per_second(record: RunRecord) -> float | None:
    """Rows of the source tables over the makespan; None for a source of unknown size."""
    rows = source_rows(record)
    return rows / record.makespan_s if record.makespan_s and rows else None


def source_rows(record: RunRecord) -> int | None:
    """Rows that the data set declares."""
    rows = record.workload_spec["dataset"].get("rows")
    return int(rows) if rows else None


def cost_usd(record: RunRecord) -> float | None:
    """List price of the cluster for the time of the run; None where the cluster has no price."""
    price = price_per_hour(record)
    return price * record.makespan_s / 3600 if record.makespan_s and price else None


def dead_letters(record: RunRecord) -> float | None:
    """Rows that could not be processed and say why; None where the workload has no such rows."""
    return record.counters.get("dead_letters")


def spilled_bytes(record: RunRecord) -> int | None:
    """Bytes written to disk for want of memory; None for engines that do not count their tasks, and so not their spills."""
    if record.status != "ok" or not {"tasks", "spilled_bytes"} & record.counters.keys():
        return None
    return round(record.counters.get("spilled_bytes", 0))


def cpu_utilization(record: RunRecord) -> float | None:
    """Busy share of the CPUs by the record's own spans; None for engines that show none of their insides."""
    return utilization(record, "cpus") if _open_inside(record) else None


def seconds_of(record: RunRecord, *kinds: str) -> float | None:
    """Seconds of some kinds of spans, summed over workers or stages; None for engines that show none of their insides."""
    if not _open_inside(record):
        return None
    found = worker_seconds(record)
    return sum(found.get(kind, 0.0) for kind in kinds)


def _open_inside(record: RunRecord) -> bool:
    """Whether every task of a good run left its spans: a foreign leg of a pair leaves a query as one."""
    left_out = record.counters.get("spans_left_out") or record.counters.get("spans_dropped")
    kinds = worker_seconds(record)
    return record.status == "ok" and not left_out and "compute" in kinds and "query" not in kinds


def sampled(record: RunRecord, name: str) -> Curve:
    """Samples of a name, thinned to `POINTS` by the largest value of each interval (peaks survive)."""
    samples = record.samples
    chosen = samples.filter(pc.equal(samples["name"].cast("string"), name))
    return _thinned(chosen["time_s"].to_numpy(), chosen["value"].to_numpy())


def _thinned(times: np.ndarray, values: np.ndarray) -> Curve:
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    if len(times) <= POINTS:
        return Curve(tuple(times.tolist()), tuple(values.tolist()))
    starts = np.unique(np.linspace(0, len(times), POINTS, endpoint=False).astype(int))
    return Curve(tuple(times[starts].tolist()), tuple(np.maximum.reduceat(values, starts).tolist()))


def throughput(record: RunRecord) -> Curve:
    """Rows a second that source operators finished, over time: each span's rows spread evenly over it."""
    sources = [op["name"] for op in record.workload_spec["pipeline"]["operators"] if not op["inputs"]]
    names, kinds = record.spans["operator"].cast("string"), record.spans["kind"].cast("string")
    chosen = record.spans.filter(pc.and_(pc.is_in(names, value_set=pa.array(sources, pa.string())), pc.equal(kinds, "compute")))
    end = record.makespan_s or 0.0
    if chosen.num_rows == 0 or end <= 0:
        return Curve((), ())
    return _spread(chosen["start_s"].to_numpy(), chosen["end_s"].to_numpy(), chosen["rows"].to_numpy(), end)


def _spread(starts: np.ndarray, ends: np.ndarray, rows: np.ndarray, end: float) -> Curve:
    edges = np.linspace(0.0, end, POINTS // 2 + 1)
    width = edges[1] - edges[0]
    total = np.zeros(len(edges) - 1)
    for start, stop, count in zip(starts, np.maximum(ends, starts + 1e-9), rows, strict=True):
        overlap = np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0.0, None)
        total += overlap / (stop - start) * count
    return Curve(tuple((edges[:-1] + width / 2).tolist()), tuple((total / width).tolist()))


def middle(records: Sequence[RunRecord]) -> RunRecord:
    """Of good runs the one whose makespan is the (lower) median."""
    ordered = sorted(records, key=lambda r: (r.makespan_s or 0.0, r.run_id))
    return ordered[(len(ordered) - 1) // 2]
