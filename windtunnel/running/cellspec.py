"""One cell of an experiment as data: which workload, engine, options, budget and repetitions; what a child process is told.

The module owns run ids, which follow from the cell alone, and the parts of a record that are known before anything runs. It
starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from windtunnel.errors import InputError
from windtunnel.records.record import RunRecord
from windtunnel.registry import load_workload
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.canonical import digest, to_plain
from windtunnel.spec.cluster import ClusterSpec, DeviceSpec, DiskSpec, Fault, NetworkSpec, NodeSpec
from windtunnel.spec.workload import Workload

Clock = Literal["wall", "virtual"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadChoice:
    """A workload by name and parameters, or as a scenario document (one point of its sweep).

    A scenario point brings its own cluster and engines; None = those of the experiment.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    file: str = ""
    sweep: dict[str, Any] = field(default_factory=dict)
    cluster: ClusterSpec | None = None
    engines: tuple[EngineChoice, ...] | None = None

    def load(self) -> Workload:
        """The workload itself."""
        if self.document is None:
            workload: Workload = load_workload(self.name, **self.parameters)
            return workload
        from windtunnel.scenario.reading import from_document

        return from_document(self.document, self.file).workload


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSpec:
    """What one child process does. ``repetitions`` are numbered through all rounds of the experiment."""

    experiment: str
    workload: WorkloadChoice
    engine: EngineChoice
    cluster: ClusterSpec
    repetitions: tuple[int, ...]
    round: int
    seed: int
    data_root: str
    store_root: str
    cell: str
    warmup: bool = True
    marker: str = ""
    scratch: str = ""
    own_group: bool = False

    @property
    def clock(self) -> Clock:
        """Simulated engines are named ``sim:…``."""
        return "virtual" if self.engine.name.startswith("sim:") else "wall"

    def run_seed(self, repetition: int) -> int:
        """Simulated repetitions differ by their seed; real ones share the experiment's."""
        return self.seed + max(0, repetition) if self.clock == "virtual" else self.seed

    def run_id(self, repetition: int) -> str:
        """The id of a run; -1, -2, … are the warm-ups of this cell's round."""
        number = f"w{self.round}.{-repetition}" if repetition < 0 else f"r{repetition}"
        return f"{self.cell}-{self.clock}-s{self.run_seed(repetition)}-{number}"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> CellSpec:
        """Inverse of `to_json`. Raises InputError."""
        try:
            data = json.loads(text)
            data["cluster"] = cluster_from_plain(data["cluster"])
            data["engine"] = EngineChoice(**data["engine"])
            data["workload"] = WorkloadChoice(**{**data["workload"], "cluster": None, "engines": None})
            data["repetitions"] = tuple(data["repetitions"])
            return cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"the cell's specification is not valid: {error}") from error


def cell_digest(experiment: str, workload: Workload, engine: EngineChoice, cluster: ClusterSpec, sweep: Mapping[str, Any]) -> str:
    """Identity of a cell: equal cells of equal experiments have equal digests in every process."""
    return digest([experiment, workload.digest(), engine, cluster, dict(sweep)])


def cluster_from_plain(data: Mapping[str, Any]) -> ClusterSpec:
    """A cluster from the plain data of `dataclasses.asdict`."""
    nodes = tuple(
        NodeSpec(**{**node, "gpus": DeviceSpec(**node["gpus"]), "disk": DiskSpec(**node["disk"])}) for node in data["nodes"]
    )
    faults = tuple(Fault(**fault) for fault in data["faults"])
    return ClusterSpec(nodes=nodes, network=NetworkSpec(**data["network"]), address=data["address"], faults=faults)


def base_record(spec: CellSpec, workload: Workload, repetition: int, environment: dict[str, Any]) -> RunRecord:
    """A record of a run that has not happened: all that is known from the cell, status ``failed``."""
    return RunRecord(
        run_id=spec.run_id(repetition),
        cell=spec.cell,
        experiment=spec.experiment,
        workload=workload.name,
        workload_digest=workload.digest(),
        workload_spec=_plain(workload),
        scale=workload.dataset.scale,
        engine=spec.engine.name,
        engine_version="",
        label=spec.engine.label,
        options=dict(spec.engine.options),
        cluster=cluster_name(spec.cluster),
        cluster_spec=_plain(spec.cluster),
        clock=spec.clock,
        seed=spec.run_seed(repetition),
        repetition=repetition,
        warmup=repetition < 0,
        status="failed",
        reason="did not run",
        makespan_s=None,
        open_s=None,
        prepare_s=None,
        rows_out=None,
        peak_memory_bytes=None,
        verified=False,
        environment=environment,
        counters={},
        sweep=dict(spec.workload.sweep),
        scenario=spec.workload.document,
    )


def failure(record: RunRecord, status: Any, reason: str) -> RunRecord:
    """The record of a run that ended badly: no number survives."""
    return replace(record, status=status, reason=reason, makespan_s=None, verified=False)


def cluster_name(cluster: ClusterSpec) -> str:
    """Short text for people: ``2 × worker (8 CPUs)``, ``1 × here (2 CPUs, 1 × emulated:A10G)``."""
    return " + ".join(f"{n.count} × {n.type or n.name} ({n.cpus} CPUs{_devices(n.gpus)})" for n in cluster.nodes)


def _devices(spec: DeviceSpec) -> str:
    """Devices that are more than slots."""
    return f", {spec.count} × {spec.kind}" if spec.count and spec.kind != "slot" else ""


def _plain(value: object) -> dict[str, Any]:
    plain = to_plain(value)
    assert isinstance(plain, dict)
    return plain


def default_data_root() -> Path:
    """Where generated data live: ``$WINDTUNNEL_DATA``, else the folder ``data`` below the current one."""
    import os

    return Path(os.environ.get("WINDTUNNEL_DATA") or "data").absolute()
