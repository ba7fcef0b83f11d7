"""The list of workloads for people: name, kind, one sentence, default scale, size of the plan."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.registry import WORKLOADS, load_workload
from windtunnel.spec.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadInfo:
    """One line of the catalogue; ``scale`` is the default one."""

    name: str
    kind: str
    description: str
    scale: float
    operators: int
    verified: bool


def list_workloads() -> tuple[WorkloadInfo, ...]:
    """Every registered workload, in the order of the registry."""
    return tuple(_info(load_workload(name)) for name in WORKLOADS)


def _info(workload: Workload) -> WorkloadInfo:
    return WorkloadInfo(
        name=workload.name, kind=workload.kind, description=workload.description, scale=workload.dataset.scale,
        operators=len(workload.pipeline.operators), verified=workload.oracle is not None,
    )  # fmt: skip
