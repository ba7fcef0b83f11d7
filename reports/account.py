"""Where the slots of a run spent its time, read off its record: seconds a slot, which add up to the makespan. Pure.

A run of T seconds on W slots has T × W slot-seconds. The account says what they went to, each divided by W:

* the embedded engines tell all of it in spans: loads, kernels, their own operators, moving rows (fetch, serialize, emit), spilling,
  queueing; what no span covers, a slot was idle;
* a foreign engine tells seconds in kernels, and CPU seconds around them (a lower bound of its bridge), through the notes of its
  processes; its own statistics where it has some; and the CPU that its processes used, which was sampled from outside. CPU that is
  neither in kernels nor in the bridge is its own work: operators, the far side of the bridge, scheduling. What is left, it waited.

Slots are CPUs; where an operator needs a device, the account of the devices can be asked for instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from windtunnel.records.record import RunRecord

Resource = Literal["cpus", "gpus"]
#: parts of a makespan, in the order in which reports show them
PARTS = ("loading", "kernels", "bridge", "spill", "own", "scheduling", "idle", "unexplained")
_MOVES = ("fetch", "deserialize", "serialize", "emit")
_LEAST_SAMPLES = 3  # of CPU, below which they say nothing


@dataclass(frozen=True, slots=True)
class Account:
    """``parts``: seconds a slot, by the names of `PARTS`, adding up to ``makespan_s``. ``told``: the parts that were measured.

    ``start_s``: opening and preparing the engine, before the run. ``open``: all of it comes from spans.
    """

    label: str
    open: bool
    start_s: float
    makespan_s: float
    parts: dict[str, float]
    told: frozenset[str]


def account(record: RunRecord, resource: Resource = "cpus") -> Account | None:
    """The account of a good run; None without a makespan or without such slots."""
    slots = capacity(record, resource)
    if record.status != "ok" or not record.makespan_s or not slots:
        return None
    inside = _is_open(record)
    told = _spans(record, resource) if inside else _notes(record, resource)
    parts = dict.fromkeys(PARTS, 0.0) | {name: seconds / slots for name, seconds in told.items()}
    rest = record.makespan_s - sum(parts.values())
    left = "idle" if inside or resource == "gpus" else "unexplained"  # a device without a kernel is idle, whoever drives it
    parts[left] += rest
    start = (record.open_s or 0.0) + (record.prepare_s or 0.0)
    return Account(record.label, inside, start, record.makespan_s, parts, frozenset((*told, left)))


def capacity(record: RunRecord, resource: Resource) -> float:
    """Slots of the cluster."""
    nodes = record.cluster_spec["nodes"]
    return float(sum(n["count"] * (n["cpus"] if resource == "cpus" else n["gpus"]["count"]) for n in nodes))


def binding(record: RunRecord) -> Resource:
    """The busier of the CPUs and the devices."""
    cpus, gpus = account(record, "cpus"), account(record, "gpus")
    return "gpus" if gpus is not None and (cpus is None or _busy(gpus) > _busy(cpus)) else "cpus"


def _busy(found: Account) -> float:
    return sum(found.parts[p] for p in ("loading", "kernels", "bridge", "own")) / found.makespan_s


# -- embedded engines -------------------------------------------------------------------------------------------------


def _is_open(record: RunRecord) -> bool:
    """Whether every task left its spans: a foreign leg of a pair leaves a query as one."""
    kinds = set(record.spans["kind"].unique().cast("string").to_pylist())
    return "compute" in kinds and "query" not in kinds and not record.counters.get("spans_dropped")


def _spans(record: RunRecord, resource: Resource) -> dict[str, float]:
    """Slot-seconds by part; those of an operator count in the resource that it needs."""
    operators = {op["name"]: op for op in record.workload_spec["pipeline"]["operators"]}
    spans = record.spans
    table = (
        spans.select([]).append_column("kind", spans["kind"].cast("string")).append_column("op", spans["operator"].cast("string"))
    )
    table = table.append_column("seconds", pc.subtract(spans["end_s"], spans["start_s"]))
    sums = table.group_by(["kind", "op"]).aggregate([("seconds", "sum")])
    found = dict.fromkeys(("loading", "kernels", "bridge", "spill", "own", "scheduling"), 0.0)
    for kind, name, seconds in zip(
        sums["kind"].to_pylist(), sums["op"].to_pylist(), sums["seconds_sum"].to_pylist(), strict=True
    ):
        part = _part(kind, operators.get(name))
        if part is not None and _occupies(operators.get(name), resource):
            found[part] += float(seconds)
    return found


def _part(kind: str, operator: dict[str, Any] | None) -> str | None:
    if kind == "compute":
        return "kernels" if operator is not None and _is_kernel(operator) else "own"
    if kind in _MOVES:
        return "bridge"
    return {"load": "loading", "spill": "spill", "queue": "scheduling", "launch": "scheduling"}.get(kind)


def _is_kernel(operator: dict[str, Any]) -> bool:
    """Whether all engines call the same function for it: user code, or a declared cost."""
    kernel = operator.get("kernel", {})
    return "function" in kernel or "cost" in kernel


def _occupies(operator: dict[str, Any] | None, resource: Resource) -> bool:
    """Exchanges and such, without an operator of their own, run on CPUs."""
    needs = {} if operator is None else operator.get("resources", {})
    return float(needs.get("gpus", 0.0)) > 0 if resource == "gpus" else float(needs.get("cpus", 1.0)) > 0


# -- foreign engines --------------------------------------------------------------------------------------------------


def _notes(record: RunRecord, resource: Resource) -> dict[str, float]:
    """Slot-seconds by part, as far as an engine tells."""
    counters = record.counters
    operators = [op for op in record.workload_spec["pipeline"]["operators"] if _occupies(op, resource)]
    found = {
        "kernels": sum(counters.get(f"kernel_s:{op['name']}", 0.0) for op in operators),
        "loading": counters.get("load_s", 0.0),
    }
    if resource == "gpus":
        return found
    if "bridge_s" in counters or "exchange_s" in counters:
        found["bridge"] = counters.get("bridge_s", 0.0) + counters.get("exchange_s", 0.0)
    for part, name in (("spill", "spill_s"), ("scheduling", "scheduling_s")):
        if name in counters:
            found[part] = counters[name]
    if (used := _cpu_seconds(record)) is not None:
        found["own"] = max(0.0, used - counters.get("kernel_cpu_s", 0.0) - counters.get("bridge_s", 0.0))
    if (free := _free_seconds(record, found)) is not None:
        found["idle"] = free
    return found


def _cpu_seconds(record: RunRecord) -> float | None:
    """CPU that the engine's processes used during the run, by samples; None with too few of them."""
    samples = record.samples
    values = samples.filter(pc.equal(samples["name"].cast("string"), "cpu_cores"))["value"].to_numpy()
    return float(np.mean(values)) * (record.makespan_s or 0.0) if len(values) >= _LEAST_SAMPLES else None


def _free_seconds(record: RunRecord, found: dict[str, float]) -> float | None:
    """Slot-seconds without a task, where the engine counts the seconds of its tasks; never more than what else is left."""
    if "task_s" not in record.counters:
        return None
    total = capacity(record, "cpus") * (record.makespan_s or 0.0)
    free = max(0.0, total - record.counters["task_s"] - found.get("scheduling", 0.0))
    return min(free, max(0.0, total - sum(found.values())))
