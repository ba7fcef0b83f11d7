"""The mechanisms of every simulated engine, what switches each off, and a small scenario in which that is seen.

``python -m tests.sim.mechanisms`` prints the table of ``docs/ablations.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.errors import OutOfMemory, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import from_document


def op(name: str, kind: str = "map", **more: Any) -> dict[str, Any]:
    """An operator of a second a row that makes a row of 1 MB of one."""
    return {"name": name, "kind": kind, "batch_rows": 1, "cost": {"per_row": "1s"}, "row_bytes_out": "1MB", **more}


DEVICE = {"resources": {"cpus": 0, "gpus": 1}}
NODE = {"count": 1, "cpus": 2, "memory": "16GiB", "gpus": {"count": 1, "memory": "0B"}, "nic": "1Gbit/s"}
MODEL = {"state": {"kind": "actor", "load": "1s"}}


def job(operators: list[dict[str, Any]], rows: int = 8, partitions: int = 0, faults: Any = (), **node: Any) -> dict[str, Any]:
    """A scenario on equal nodes."""
    return {
        "schema": 1, "name": "mechanism", "cluster": {"nodes": [{**NODE, **node}]},
        "dataset": {"rows": rows, "row_bytes": "1MB", "partitions": partitions or rows}, "operators": operators,
        "engines": [{"name": "bulk"}], "faults": list(faults),
    }  # fmt: skip


FAST = {"cost": {"per_row": "10ms"}}
SLOW_NET = {"count": 2, "nic": "8Mbit/s"}
SHUFFLE = [op("map"), op("sort", "sort", cost={"per_row": "100ms"})]
BIG = op("big", memory="400MB", cost={"per_row": "2s"})
FRAMES = op("load", "flat_map", rows_out=10.0, row_bytes_out="40MB")
VARIED = {"cost": {"per_row": "10ms", "cv": 1.0}}
SCENARIOS: dict[str, dict[str, Any]] = {
    "two stages": job([op("first"), op("second", resources={"cpus": 0.99})]),
    "same stages": job([op("first"), op("second")]),
    "many short": job([op("first", **FAST)], rows=200),
    "device": job([op("load", **FAST), op("infer", **DEVICE)], rows=40),
    "slow device": job([op("load", **FAST), op("infer", cost={"per_row": "500ms"}, row_bytes_out="8B", **DEVICE)], rows=60),
    "pool": job([op("load", **FAST), op("infer", concurrency=[1, 2], resources={"cpus": 1}, **MODEL)], rows=12, cpus=3),
    "actors": job([op("load"), op("infer", resources={"cpus": 1}, **MODEL)], rows=12),
    "device pool": job([op("load", **FAST), op("infer", concurrency=[2, 2], **DEVICE, **MODEL)], rows=16, **SLOW_NET),
    "varied device pool": job([op("load", **VARIED), op("infer", concurrency=[2, 2], **DEVICE, **MODEL)], rows=40, **SLOW_NET),
    "frames": job([FRAMES, op("infer", cost={"per_row": "50ms"}, **DEVICE)], rows=8),
    "unequal": job([op("load", "flat_map", rows_out=6.0, cost={"per_row": "3s"}),
                    op("infer", resources={"cpus": 0.99}, row_bytes_out="8B")], rows=12),
    "far apart": job([op("load", **VARIED), op("next", resources={"cpus": 0.99}, **VARIED)], rows=30, cpus=8, **{**SLOW_NET, "count": 3}),
    "three stages": job(
        [op(f"s{i}", **VARIED) for i in range(3)], rows=30, cpus=8, **{**SLOW_NET, "count": 3}
    ),
    "one source": job(
        [op("load", "flat_map", rows_out=8.0, **{**FAST, "row_bytes_out": "40MB"}), op("next", resources={"cpus": 0.99})],
        rows=1, count=2, nic="10Gbit/s",
    ),
    "unequal shuffle": job([op("map", **VARIED), op("sort", "sort", **FAST)], rows=400, partitions=40, count=3, nic="1Gbit/s"),
    "shuffle": job(SHUFFLE, rows=8, **SLOW_NET),
    "small shuffle": job([op("map", **FAST), op("next", resources={"cpus": 0.99})], rows=60),
    "slow disk": job(SHUFFLE, disk={"read": "1MB/s", "write": "1MB/s"}),
    "fetch": job([op("map", **FAST), op("sort", "sort", cost={"per_row": "400ms"})], rows=8, count=2, nic="8Mbit/s"),
    "memory": job([BIG], rows=6, cpus=4, memory="1GB"),
    "less memory": job([BIG], rows=6, cpus=4, memory="1207MB"),
    "kept results": job([op("load", **FAST), op("sort", "sort", **FAST)], rows=40),
    "lost node": job(
        [op("map"), op("next", resources={"cpus": 0.99})], rows=24, count=3,
        faults=[{"at": "5500ms", "kind": "node_lost", "target": "worker[1]"}],
    ),
    "killed worker": job([op("map")], rows=12, faults=[{"at": "3500ms", "kind": "worker_killed", "target": "worker[0]"}]),
    "straggler": job([op("map")], rows=12, count=2, faults=[{"at": "500ms", "kind": "straggler", "target": "worker[1]", "factor": 20.0}]),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mechanism:
    """``off`` switches it off; it is seen in ``counter`` of scenario ``where``, run with ``base``. ``status``: in how the run ends."""

    engine: str
    name: str
    off: dict[str, Any]
    where: str
    counter: str = "makespan_s"
    base: dict[str, Any] = field(default_factory=dict)


def _all(engines: str, name: str, off: dict[str, Any], where: str, counter: str = "makespan_s", **base: Any) -> list[Mechanism]:
    return [Mechanism(e, name, off, where, counter, base) for e in engines.split()]


MECHANISMS: list[Mechanism] = [
    *_all("bulk", "a task ahead", {"prefetch": False}, "many short"),
    *_all("streaming", "a task ahead", {"ahead": False}, "many short"),
    *_all("bulk streaming spark dask", "fusion of operators", {"fuse": False}, "same stages", "tasks"),
    *_all("flink", "operator chaining", {"chaining": False}, "same stages", "tasks"),
    *_all("mapreduce", "fusion of operators", {"fuse": False}, "same stages", "tasks"),
    *_all("bulk streaming ray dask spark mapreduce", "recomputation of lost blocks", {"recompute": False}, "lost node", "status"),
    *_all("streaming dask", "tasks beside their input", {"locality": False}, "far apart", "bytes_network"),
    *_all("ray", "tasks beside their input", {"locality": False}, "three stages", "bytes_network"),
    *_all("bulk", "tasks beside their input", {"locality": False}, "three stages", "bytes_network", fuse=False),
    *_all("spark", "reducers beside most of their input", {"locality": False}, "unequal shuffle", "bytes_network"),
    *_all("streaming dask", "downstream first", {"downstream_first": False}, "unequal", "peak_store_bytes"),
    *_all("ray", "downstream first", {"downstream_first": False}, "frames", "peak_store_bytes"),
    *_all("streaming", "backpressure", {"backpressure": False}, "slow device", "spilled_bytes", store_bytes="30MB"),
    *_all("ray", "backpressure", {"backpressure": False}, "slow device", "spilled_bytes", object_store="30MB"),
    *_all("flink", "backpressure", {"backpressure": False}, "slow device", "peak_store_bytes"),
    *_all("streaming ray", "autoscaling of pools", {"autoscale": False}, "pool"),
    *_all("streaming", "sharing of CPUs by stages", {"fixed": True}, "two stages"),
    *_all("streaming", "actors that give back idle CPUs", {"yielding": False}, "actors"),
    *_all("streaming ray", "block splitting", {"block_bytes": "1TiB"}, "frames", "peak_memory_bytes"),
    *_all("ray", "reservation for operators", {"op_reservation": 0.0}, "slow device", "peak_store_bytes", object_store="30MB"),
    *_all("ray", "reservation at all (threshold)", {"policy": "threshold"}, "slow device", object_store="30MB"),
    *_all("ray", "rules of the release", {"release": "2.40"}, "slow device", object_store="30MB"),
    *_all("ray", "a second until resources are known", {"limits_s": 0.0}, "many short"),
    *_all("ray", "the source's budget", {"budget_policy": False}, "frames", "peak_store_bytes", op_reservation=0.0),
    *_all("ray", "bound of a running task's blocks", {"generator_buffer": 1000}, "frames", object_store="900MB"),
    *_all("ray", "streaming generators", {"generator": False}, "frames", "peak_memory_bytes"),
    *_all("ray", "pipelining (materialised)", {"materialize": True}, "device"),
    *_all("ray", "memory monitor", {"memory_usage_threshold": 0.0}, "memory", "status"),
    *_all("ray", "rounds of the executor", {"overheads": {"round_s": 0.0}}, "many short"),
    *_all("ray", "choice of an actor's next task", {"tasks_in_flight": 0}, "varied device pool", "bytes_network"),
    *_all("ray", "fetching ahead", {"prefetch": False}, "device pool", locality=False),
    *_all("ray", "fusion of operators (off by default)", {"fuse": True}, "same stages", "tasks"),
    *_all("ray", "a process a device task", {"overheads": {"device_restart_s": 0.0}}, "device"),
    *_all("ray", "page cache", {"page_cache": False}, "slow disk", object_store="2MB"),
    *_all("bulk streaming", "page cache", {"page_cache": False}, "slow disk", store_bytes="2MB"),
    *_all("spark mapreduce", "page cache", {"page_cache": False}, "slow disk"),
    *_all("dask", "page cache", {"page_cache": False}, "slow disk", memory_target="2MB"),
    *_all("spark mapreduce", "work while the rest is fetched", {"overlap": False}, "fetch"),
    *_all("spark", "coalescing of small partitions", {"adaptive": False}, "small shuffle", "tasks", shuffle_partitions=30),
    *_all("spark", "speculation (off by default)", {"speculation": True}, "straggler"),
    *_all("spark", "a state a worker (not a task)", {"reload": True}, "actors"),
    *_all("spark", "files put together", {"bypass_merge_threshold": 0}, "shuffle", "bytes_concatenated"),
    *_all("spark flink mapreduce", "bridge to Python", {"overheads": {"bridge_bytes_per_s": 0.0, "bridge_row_s": 0.0}}, "two stages"),
    *_all("dask", "queuing of root tasks", {"queuing": False}, "unequal", "peak_store_bytes"),
    *_all("dask", "stealing", {"stealing": False}, "one source"),
    *_all("dask", "pause of full workers", {"memory_pause": 0.0}, "less memory", "pauses", memory_terminate=0.0),
    *_all("dask", "killing of full workers", {"memory_terminate": 0.0}, "memory", "status", memory_pause=0.0),
    *_all("dask", "spill beyond the target", {"memory_target": "16GiB"}, "kept results", "spilled_bytes", memory_target="10MB"),
    *_all("bulk streaming", "spill beyond the store", {"store_bytes": "8GiB"}, "kept results", "spilled_bytes", store_bytes="10MB"),
    *_all("ray", "spill beyond the store", {"object_store": "8GiB"}, "kept results", "spilled_bytes", object_store="10MB"),
    *_all("flink", "checkpoints (off by default)", {"checkpoint_s": 1.0}, "killed worker", "tasks", restart=True),
    *_all("flink", "state in checkpoints (none by default)", {"state_bytes": "500MB"}, "killed worker", "tasks", checkpoint_s=1.2),
    *_all("flink", "pause between checkpoints (none by default)", {"min_pause_s": 5.0}, "killed worker", "tasks", checkpoint_s=1.0),
    *_all("flink", "restart (only with checkpoints)", {"restart": False}, "killed worker", "status", checkpoint_s=1.0),
    *_all("mapreduce", "slow start", {"slowstart": 1.0}, "shuffle"),
    *_all("mapreduce", "copies of the output", {"replication": 1}, "shuffle", "bytes_network"),
    *_all("mapreduce", "a JVM a task", {"overheads": {"task_s": 0.0}}, "many short"),
    *_all("mapreduce", "merging beyond the sort buffer", {"overheads": {"merge_bytes": 0.0}}, "shuffle", "bytes_merged"),
]  # fmt: skip


def run(engine: str, options: dict[str, Any], where: str) -> dict[str, Any]:
    """Counters of a run, with its status."""
    scenario = from_document(SCENARIOS[where], f"{where}.toml")
    assert scenario.workload is not None
    recorder, status = Recorder(), "ok"
    overheads = [c.name for c in ENTRIES[engine].traits.constants if c.name in ("startup_s", "driver_memory_bytes")]
    small = {"merge_bytes": 0.5e6} if where == "shuffle" and engine == "mapreduce" else {}
    chosen = {**options, "overheads": {**dict.fromkeys(overheads, 0.0), **small, **options.get("overheads", {})}}
    if "block_bytes" in options and engine == "ray":
        chosen["block"] = chosen.pop("block_bytes")
    session = load_engine(f"sim:{engine}").open(scenario.cluster, chosen)
    try:
        session.run(scenario.workload.bind(Path(".")), recorder, Path("."))
    except OutOfMemory:
        status = "out of memory"
    except RunFailed:
        status = "failed"
    return {"spilled_bytes": 0, "bytes_merged": 0, "bytes_concatenated": 0, "pauses": 0, **recorder.counters, "status": status}


def table() -> str:
    """The table of the documentation."""
    seen = {"makespan_s": "makespan", "status": "how the run ends"}
    lines = ["| engine | mechanism | switched by | seen in |", "|---|---|---|---|"]
    for engine in ENTRIES:
        for m in MECHANISMS:
            if m.engine == engine:
                options = ", ".join(f"{_name(m, k)} = {_text(v)}" for k, v in m.off.items())
                what = seen.get(m.counter, m.counter.removesuffix("_bytes").replace("_", " "))
                lines.append(f"| `{engine}` | {m.name} | `{options}` | {what} |")
    return "\n".join(lines)


def _name(mechanism: Mechanism, key: str) -> str:
    return "block" if key == "block_bytes" and mechanism.engine == "ray" else key


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_text(v)}" for k, v in value.items()) + " }"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    print(table())
