"""A run as the JSON object that scenarios promise ("What comes out"): metrics read off one record, pure and without rounding.

Numbers of a run that did not end well are null, never zero.
"""

from __future__ import annotations

from typing import Any

from windtunnel.records.columns import chosen, numbers, texts
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.records.serving import KEYS, is_serving, serving_numbers, serving_quantities
from windtunnel.records.training import training_numbers
from windtunnel.spec.workload import Workload

_PART = "bound_s:"  # counters: the bound by each resource
_COUNTED = {"cpus": "busy_cpu_s", "gpus": "busy_device_s"}
_BUSY = ("compute", "load", "serialize", "deserialize")


def scenario_document(name: str, records: tuple[RunRecord, ...]) -> dict[str, Any]:
    """The whole document of ``--json``; warm-ups are left out."""
    return {"schema": 1, "scenario": name, "runs": [run_document(r) for r in records if not r.warmup]}


def run_document(record: RunRecord) -> dict[str, Any]:
    """One run."""
    head = {
        "engine": record.engine.removeprefix("sim:"), "label": record.label, "clock": record.clock, "sweep": record.sweep,
        "seed": record.seed, "status": record.status, "reason": record.reason,
    }  # fmt: skip
    return {
        **head,
        **(_numbers(record) if record.status == "ok" else _nulls(record)),
        "run_id": record.run_id,
        "verified": record.verified,
    }


def _nulls(record: RunRecord) -> dict[str, Any]:
    names = (
        "makespan_s", "first_output_s", "rows_out", "utilization", "peak_memory_bytes", "spilled_bytes", "bytes_moved",
        "cost_usd", "prediction", "interval_s", "lower_bound_s", "bound_by", "of_optimum", "bounds_s", "latency_s", "throughput_per_s",
    )  # fmt: skip
    return dict.fromkeys((*names, *KEYS) if is_serving(record) else names)


def _numbers(record: RunRecord) -> dict[str, Any]:
    common = _common(record)
    return {**common, **serving_numbers(record)} if is_serving(record) else {**common, **_batch(record)}


def _common(record: RunRecord) -> dict[str, Any]:
    makespan, counters = record.makespan_s or 0.0, record.counters
    return {
        "makespan_s": record.makespan_s,
        "rows_out": record.rows_out,
        "peak_memory_bytes": record.peak_memory_bytes,
        "spilled_bytes": round(counters.get("spilled_bytes", 0)),
        "bytes_moved": {kind: round(counters.get(f"bytes_{kind}", 0)) for kind in ("network", "bridge", "pcie")},
        "cost_usd": price_per_hour(record) * makespan / 3600,
        "prediction": prediction(record),
    }


def prediction(record: RunRecord) -> dict[str, Any] | None:
    """How sure a simulated time is: with probability 0.9 the truth is between ``low`` and ``high`` times it.

    ``cells`` real ones, ``held_out`` by a calibration of this host or ``published``, told it; ``error`` is their median error, and
    ``own`` of them are of the same engine (None in records of before).
    """
    counters = record.counters
    if "interval_low" not in counters:
        return None
    return {
        "share": 0.9, "low": counters["interval_low"], "high": counters["interval_high"],
        "error": counters["interval_error"], "cells": round(counters["interval_cells"]),
        "of": "held_out" if counters.get("interval_held_out") else "published",
        "own": round(counters["interval_own"]) if "interval_own" in counters else None,
    }  # fmt: skip


def _batch(record: RunRecord) -> dict[str, Any]:
    makespan, sure = record.makespan_s or 0.0, prediction(record)
    bound = record.counters.get("lower_bound_s", 0.0)  # the truth does not beat it either
    return {
        "interval_s": None if sure is None else [max(makespan * sure["low"], min(bound, makespan)), makespan * sure["high"]],
        "first_output_s": first_output_s(record),
        "utilization": {"cpu": utilization(record, "cpus"), "gpu": utilization(record, "gpus")},
        **bound_numbers(record),
        "latency_s": None,
        **({} if (trained := training_numbers(record)) is None else {"training": trained}),
        "throughput_per_s": record.rows_out / makespan if record.rows_out is not None and makespan > 0 else None,
    }


def bound_numbers(record: RunRecord) -> dict[str, Any]:
    """The lower bound of a simulated run: seconds, the resource that binds, bound over makespan, seconds by resource."""
    bound, makespan = record.counters.get("lower_bound_s"), record.makespan_s
    parts = {name.removeprefix(_PART): seconds for name, seconds in record.counters.items() if name.startswith(_PART)}
    return {
        "lower_bound_s": bound,
        "bound_by": max(parts, key=parts.__getitem__, default=None),
        "of_optimum": bound / makespan if bound is not None and makespan else None,
        "bounds_s": parts or None,
    }


def quantities(recorder: Recorder, workload: Workload, rows_out: int) -> dict[str, float]:
    """What a simulated run that is not stored is asked for: makespan, first output, rows a second."""
    if workload.serving is not None:
        return serving_quantities(recorder)
    last = workload.pipeline.output.name
    ends = [s[6] for s in recorder.spans if s[1] == last and s[0] == "emit"]
    makespan = recorder.counters["virtual_makespan_s"]
    return {
        "makespan_s": makespan,
        "first_output_s": min(ends, default=makespan),
        "throughput_per_s": rows_out / makespan,
        "source_rows_per_s": (workload.dataset.rows or 0) / makespan,
    }


def first_output_s(record: RunRecord) -> float | None:
    """When the first task of the last operator ended; None without such a span."""
    operators = record.workload_spec["pipeline"]["operators"]
    last = operators[-1]["name"]
    spans = record.spans
    mine = chosen(spans, "operator", (last,))
    ends = numbers(chosen(mine, "kind", ("emit",)), "end_s")
    if not len(ends):
        ends = numbers(mine, "end_s")
    return float(ends.min()) if len(ends) else None


def utilization(record: RunRecord, resource: str) -> float | None:
    """Busy share of a resource: seconds of work × what each operator occupies, over capacity × makespan; lost work is none.

    Simulated runs have counted it. None without such a resource, or where spans were left out of the record.
    """
    capacity = _capacity(record, resource)
    counted = record.counters.get(_COUNTED[resource])
    if capacity and record.makespan_s and "busy_cpu_s" in record.counters:
        return min((counted or 0.0) / (capacity * record.makespan_s), 1.0)
    if not capacity or not record.makespan_s or record.counters.get("spans_left_out") or record.counters.get("spans_dropped"):
        return None
    busy = _busy_seconds(record)
    weights = {op["name"]: float(op["resources"][resource]) for op in record.workload_spec["pipeline"]["operators"]}
    return sum(weights.get(name, 0.0) * seconds for name, seconds in busy.items()) / (capacity * record.makespan_s)


def _busy_seconds(record: RunRecord) -> dict[str, float]:
    spans = chosen(record.spans, "kind", _BUSY)
    seconds = (numbers(spans, "end_s") - numbers(spans, "start_s")).tolist()
    found: dict[str, float] = {}
    for name, spent in zip(texts(spans, "operator"), seconds, strict=True):
        found[name] = found.get(name, 0.0) + spent
    return found


def _capacity(record: RunRecord, resource: str) -> float:
    nodes = record.cluster_spec["nodes"]
    return float(sum(n["count"] * (n["cpus"] if resource == "cpus" else n["gpus"]["count"]) for n in nodes))


def price_per_hour(record: RunRecord) -> float:
    """List price of the cluster of a record."""
    return float(sum(n["count"] * n["price_per_hour_usd"] for n in record.cluster_spec["nodes"]))
