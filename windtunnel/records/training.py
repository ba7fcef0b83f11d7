"""What a training loop went through, read off the spans of its steps: when its first batch came, and how long it waited for data.

Pure. The loop is the last operator of an ``ingest`` workload. It could step from the beginning of the run on, so that every second
up to its last step in which it does not step is a stall; the first batch's way is part of it, and told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from windtunnel.records.columns import chosen, numbers, rows
from windtunnel.records.record import RunRecord

_STEPS = ("step", "compute")  # of a loop in the driver, and of one that is an operator


@dataclass(frozen=True, slots=True)
class Training:
    """Seconds since the run began; ``steps_s`` were spent stepping over ``rows`` rows."""

    first_batch_s: float
    end_s: float
    steps_s: float
    rows: int

    @property
    def stall_s(self) -> float:
        """Waiting for data, from the run's beginning to the last step."""
        return max(0.0, self.end_s - self.steps_s)

    @property
    def stall_share(self) -> float:
        """Of the time until the last step."""
        return self.stall_s / self.end_s if self.end_s > 0 else 0.0

    @property
    def later_stall_s(self) -> float:
        """The stall after the first batch."""
        return max(0.0, self.stall_s - self.first_batch_s)

    @property
    def rows_per_s(self) -> float | None:
        """From the first batch on."""
        lasted = self.end_s - self.first_batch_s
        return self.rows / lasted if lasted > 0 else None


def steps(record: RunRecord) -> pa.Table | None:
    """Spans of the loop's steps; None for other workloads, bad runs, and records whose spans were left out."""
    counters = record.counters
    if record.workload_spec.get("kind") != "ingest" or record.status != "ok":
        return None
    if counters.get("spans_left_out") or counters.get("spans_dropped"):
        return None
    loop = record.workload_spec["pipeline"]["operators"][-1]["name"]
    found = chosen(chosen(record.spans, "operator", (loop,)), "kind", _STEPS)
    found = rows(found, numbers(found, "rows") > 0)
    return found if found.num_rows else None


def training(record: RunRecord) -> Training | None:
    """None where there are no `steps`."""
    found = steps(record)
    if found is None:
        return None
    starts, ends = numbers(found, "start_s"), numbers(found, "end_s")
    return Training(
        first_batch_s=float(starts.min()), end_s=float(ends.max()), steps_s=float((ends - starts).sum()),
        rows=int(numbers(found, "rows").sum()),
    )  # fmt: skip


def training_numbers(record: RunRecord) -> dict[str, float | None] | None:
    """The same as the object of a run's document."""
    found = training(record)
    if found is None:
        return None
    return {
        "first_batch_s": found.first_batch_s, "stall_s": found.stall_s, "stall_share": found.stall_share,
        "later_stall_s": found.later_stall_s, "rows_per_s": found.rows_per_s, "end_s": found.end_s,
    }  # fmt: skip
