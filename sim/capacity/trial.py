"""One simulated run of a scenario document, with what the planner needs to know of it: time, memory, use of each resource.

The run is that of `windtunnel simulate`: the same engine, options, seed and world. Use of resources is told by the volumes of work
that the lower bounds count, over what the cluster has in the time the run took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.engines.physical import compile_job
from windtunnel.errors import InputError, WindtunnelError
from windtunnel.records.document import quantities
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.running.cellspec import default_data_root
from windtunnel.scenario.reading import Scenario, from_document
from windtunnel.sim.costs.laws import stage_laws
from windtunnel.sim.judging.bounds import Volume, volumes
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How it ended. Bytes are of the fullest node; ``used``: busy share by resource; ``latency_s`` for serving."""

    status: str
    reason: str | None = None
    makespan_s: float = 0.0
    partitions: int = 0
    peak_store_bytes: float = 0.0
    store_bytes: float = 0.0
    peak_disk_bytes: float = 0.0
    disk_bytes: float = 0.0
    used: Mapping[str, float] = field(default_factory=dict)
    p99_s: float | None = None
    replica_cpu_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker process simulates. ``key`` comes back with the result; ``known``: what was simulated of it before; ``cpus`` tell how
    long it may take."""

    key: tuple[Any, ...]
    document: dict[str, Any]
    file: str
    seed: int
    calibration: str | None = None
    known: Trial | None = None
    cpus: float = 0.0


def run(order: Order) -> tuple[tuple[Any, ...], Trial]:
    """Simulate once. Raises InputError for input that no candidate could run."""
    try:
        scenario = from_document(order.document, order.file)
    except InputError as error:  # an operator or a deployment fits no node of this candidate
        return order.key, Trial(status="unsupported", reason=str(error))
    bound = scenario.workload.bind(default_data_root())
    session = _open(scenario, order)
    recorder = Recorder()
    try:
        session.prepare(bound)
        outcome = session.run(bound, recorder, Path("."))
    except InputError:
        raise
    except WindtunnelError as error:
        return order.key, Trial(status=error.status, reason=str(error))
    values = quantities(recorder, scenario.workload, outcome.rows or 0)
    return order.key, _trial(scenario, bound, recorder, values, order, session)


def engine_name(scenario: Scenario) -> str:
    """The simulated engine of the scenario's only choice, by its registered name."""
    name = scenario.engines[0].name
    return f"sim:{'ray-serve' if scenario.serving is not None and name == 'ray' else name}"


def _open(scenario: Scenario, order: Order) -> Any:
    extra = {} if order.calibration is None or scenario.serving is not None else {"calibration": order.calibration}
    engine: Any = load_engine(engine_name(scenario))
    options = {**extra, **scenario.engines[0].options, "seed": order.seed}
    return engine.open(scenario.cluster, {**options, "spans": options.get("spans", False)})


def _trial(
    scenario: Scenario, bound: BoundWorkload, recorder: Recorder, values: dict[str, float], order: Order, session: Any
) -> Trial:  # fmt: skip
    counters, cluster, makespan = recorder.counters, scenario.cluster, values["makespan_s"]
    common: dict[str, Any] = {"status": "ok", "makespan_s": makespan}
    if scenario.serving is not None:
        used = {"CPUs": counters.get("busy_cpu_s", 0.0) / (cluster.cpus * makespan)}
        if cluster.gpus:
            used["GPUs"] = counters.get("busy_gpu_s", 0.0) / (cluster.gpus * makespan)
        lost = sum(counters.get(f"requests_{n}", 0) for n in ("rejected", "timed_out", "failed"))
        if lost:
            return Trial(status="failed", reason=f"{lost:.0f} of {counters['requests_sent']:.0f} requests got no good answer")
        return Trial(
            **common, used=used, p99_s=values["latency_p99_s"], replica_cpu_s=_replica_cpus(scenario, recorder, makespan)
        )
    return Trial(
        **common,
        partitions=_partitions(bound),
        peak_store_bytes=counters.get("peak_store_bytes", 0.0),
        store_bytes=float(session.world.least_store_bytes),
        peak_disk_bytes=counters.get("peak_disk_bytes", 0.0),
        disk_bytes=float(min(n.disk.capacity_bytes for n in cluster.nodes)),
        used=shares(cluster, work(scenario, bound, order.calibration), counters, makespan),
    )


def _partitions(bound: BoundWorkload) -> int:
    return max((len(t.partition_rows) or len(t.paths) for t in bound.tables), default=1)


def work(scenario: Scenario, bound: BoundWorkload, calibration: str | None) -> list[tuple[float, float, Volume]]:
    """(CPUs, devices, volume) of each stage, as the operators were declared."""
    from windtunnel.sim.costs.measured import Calibration

    job = compile_job(bound, partitions=max(1, scenario.cluster.cpus), fuse=True)
    laws = stage_laws(job, bound, Calibration.load(Path(calibration)) if calibration else Calibration())
    return [(s.resources.cpus, min(s.resources.gpus, 1.0), v) for s, v in zip(job.stages, volumes(job, laws), strict=True)]


def shares(
    cluster: ClusterSpec, stages: list[tuple[float, float, Volume]], counters: Mapping[str, float], makespan_s: float
) -> dict[str, float]:
    """Busy share by resource: work over capacity × time; traffic over the sum of the links (each byte enters one)."""
    speed = max((n.gpus.speed for n in cluster.nodes if n.gpus.count), default=1.0)
    nics = sum(n.count * n.nic_bytes_per_s for n in cluster.nodes)
    writes = sum(n.count * n.disk.write_bytes_per_s for n in cluster.nodes)
    found = {"CPUs": sum(c * v.slot_s for c, _, v in stages) / (cluster.cpus * makespan_s)}
    if cluster.gpus:
        found["GPUs"] = sum(g * v.device_s for _, g, v in stages) / (speed * cluster.gpus * makespan_s)
    found["network"] = (counters.get("bytes_network", 0.0) + counters.get("bytes_remote", 0.0)) / (nics * makespan_s)
    found["disks"] = counters.get("bytes_disk", 0.0) / (writes * makespan_s)
    return found


def _replica_cpus(scenario: Scenario, recorder: Recorder, makespan_s: float) -> float:
    """CPU seconds (or device seconds, where a deployment has devices) that replicas held, over the run."""
    assert scenario.serving is not None
    total = 0.0
    for deployment in scenario.serving.deployments:
        weight = deployment.resources.gpus or deployment.resources.cpus
        steps = [(t, v) for name, t, v in recorder.samples if name == f"replicas:{deployment.name}"]
        ends = [t for t, _ in steps[1:]] + [makespan_s]
        total += weight * sum(v * max(0.0, min(e, makespan_s) - t) for (t, v), e in zip(steps, ends, strict=True))
    return total
