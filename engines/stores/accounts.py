"""What a record says of clients' work, the same in both worlds: spans of all operations, and counters of outcomes, rates and latencies."""

from __future__ import annotations

import numpy as np

from windtunnel.records.record import Recorder
from windtunnel.workloads.data.history import READ, WITNESS, Done, table_of

__all__ = ["Done", "note", "numbers", "table_of"]


def note(history: list[Done], recorder: Recorder, seconds: float) -> None:
    """Spans of all operations, and counters: outcomes and attempts of writes, rates and latencies by kind."""
    done = [d for d in history if d.role != WITNESS]
    for d in done:
        if d.end_s != float("inf"):
            recorder.span(
                "request", d.kind, d.start_s, d.end_s, partition=d.number, worker=d.client, attempt=d.attempts - 1, rows=d.rows
            )
    recorder.counters |= numbers(done, seconds)


def numbers(done: list[Done], seconds: float) -> dict[str, float]:
    """Counters of a history, the same in both worlds. ``conflicts``: attempts that were refused; rates are of the clients' whole time."""
    writes = [d for d in done if d.kind != READ]
    counts = {"acknowledged": "ok", "refused": "refused", "failed": "failed", "killed": "unknown"}
    found = {name: float(sum(d.outcome == outcome for d in writes)) for name, outcome in counts.items()}
    attempts = sum(d.attempts for d in writes)
    conflicts = sum(d.attempts - (d.outcome != "refused") for d in writes)
    found |= {
        "operations": float(len(writes)), "attempts": float(attempts), "conflicts": float(conflicts),
        "reads": float(len(done) - len(writes)),
        "conflict_share": conflicts / attempts if attempts else 0.0, "commits_per_s": found["acknowledged"] / seconds if seconds else 0.0,
    }  # fmt: skip
    for kind in sorted({d.kind for d in done}):
        took = [d.end_s - d.start_s for d in done if d.kind == kind and d.outcome == "ok"]
        if took:
            found |= {
                f"{kind}_p50_s": float(np.median(took)),
                f"{kind}_p99_s": float(np.percentile(took, 99)),
                f"{kind}_ok": float(len(took)),
            }
            found[f"{kind}_per_s"] = len(took) / seconds if seconds else 0.0
    return found
