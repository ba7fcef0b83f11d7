"""The numbers of a serving run as scenarios promise them: read off one record, pure and without rounding.

The engine writes latencies, outcomes and replicas into counters and samples; what they mean is said in `docs/numbers.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from windtunnel.records.columns import rows, texts
from windtunnel.records.record import Recorder, RunRecord

LATENCIES = ("mean", "p50", "p90", "p99", "p999", "max")
OUTCOMES = ("ok", "rejected", "timed_out", "failed")
#: of runs that stream tokens: seconds to the first one, and for each one after it
TOKENS = ("ttft", "tpot")
#: what a serving run has beyond the others
KEYS = ("offered_per_s", "requests", "replicas")
_REPLICAS = "replicas:"


def is_serving(record: RunRecord) -> bool:
    """Whether the record's workload answers requests."""
    return record.workload_spec.get("serving") is not None


def serving_numbers(record: RunRecord) -> dict[str, Any]:
    """What replaces and extends the numbers of other runs."""
    counters = record.counters
    return {
        "first_output_s": counters.get("first_output_s"),
        "utilization": {"cpu": _share(record, "cpu"), "gpu": _share(record, "gpu")},
        **dict.fromkeys(("lower_bound_s", "bound_by", "of_optimum", "bounds_s")),
        "latency_s": {name: counters.get(f"latency_{name}_s") for name in LATENCIES},
        "throughput_per_s": counters.get("throughput_per_s"),
        "offered_per_s": counters.get("offered_per_s"),
        "requests": {name: round(counters.get(f"requests_{name}", 0)) for name in ("sent", *OUTCOMES)},
        "replicas": replicas_over_time(record),
        **{f"{name}_s": _statistics(record, name) for name in TOKENS if f"{name}_mean_s" in counters},
    }


def _statistics(record: RunRecord, name: str) -> dict[str, float | None]:
    return {part: record.counters.get(f"{name}_{part}_s") for part in LATENCIES}


def replicas_over_time(record: RunRecord) -> dict[str, list[list[float]]]:
    """By deployment: [seconds, replicas that take requests from then on], one at each change."""
    found: dict[str, list[list[float]]] = {d["name"]: [] for d in record.workload_spec["serving"]["deployments"]}
    mask = np.array([name.startswith(_REPLICAS) for name in texts(record.samples, "name")], dtype=bool)
    chosen = rows(record.samples, mask).to_pydict()
    for name, time, value in zip(chosen["name"], chosen["time_s"], chosen["value"], strict=True):
        steps = found.setdefault(name.removeprefix(_REPLICAS), [])
        if steps and steps[-1][0] == time:
            steps.pop()  # of changes at one time the last counts
        steps.append([time, round(value)])
    return found


def last_replicas(record: RunRecord) -> dict[str, str]:
    """For people: how many at the end, or ``1–8`` where the number changed."""
    shown = {}
    for name, steps in replicas_over_time(record).items():
        counts = [round(count) for _, count in steps] or [0]
        low, high = min(counts), max(counts)
        shown[name] = str(low) if low == high else f"{low}–{high}"
    return shown


def _share(record: RunRecord, kind: str) -> float | None:
    """Busy seconds over capacity × makespan; None without such a resource."""
    nodes = record.cluster_spec["nodes"]
    capacity = sum(n["count"] * (n["cpus"] if kind == "cpu" else n["gpus"]["count"]) for n in nodes)
    busy = record.counters.get(f"busy_{kind}_s")
    return busy / (capacity * record.makespan_s) if capacity and busy is not None and record.makespan_s else None


def serving_quantities(recorder: Recorder) -> dict[str, float]:
    """What a simulated run that is not stored is asked for: throughput, and latencies in seconds by name."""
    counters = recorder.counters
    return {
        "makespan_s": counters["virtual_makespan_s"],
        "throughput_per_s": counters["throughput_per_s"],
        **{f"latency_{name}_s": counters[f"latency_{name}_s"] for name in LATENCIES},
    }
