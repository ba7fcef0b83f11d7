"""Lower bounds of recorded jobs: their work over the slots that there are, and their longest chain of tasks and of the driver's time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from windtunnel.model import Job
from windtunnel.sim.costs.laws import StageLaw
from windtunnel.spec.cluster import ClusterSpec

Array = np.ndarray[Any, np.dtype[Any]]


def recorded_parts(job: Job, laws: Sequence[StageLaw], cluster: ClusterSpec) -> dict[str, float]:
    """Seconds that CPUs alone, and chains alone, make the job take at least. A task that waits holds its slots too."""
    slots = 0.0
    for stage, law in zip(job.stages, laws, strict=True):
        slots += stage.resources.cpus * sum(t.wait_s + t.cpu_s for t in law.told)
    return {
        "cpu": slots / cluster.cpus,
        "critical_path": float(max((e.max(initial=0.0) for e in chain_ends(job, laws)), default=0.0)),
    }


def chain_ends(job: Job, laws: Sequence[StageLaw]) -> list[Array]:
    """When each task of each stage ends at the earliest, with as many slots as there are tasks."""
    ends: list[Array] = []
    for stage, law in zip(job.stages, laws, strict=True):
        seconds = np.array([t.wait_s + t.cpu_s for t in law.told])
        whole = {i.stage for i in stage.inputs if i.mode == "whole"} | set(stage.after)
        opened = max((float(ends[s].max(initial=0.0)) for s in whole), default=0.0) + stage.delay_s
        begins = np.full(len(seconds), opened)
        for given in stage.inputs:
            if given.mode == "listed":
                theirs = ends[given.stage]
                for task, parts in enumerate(given.parts):
                    if parts:
                        begins[task] = max(begins[task], theirs[list(parts)].max())
        ends.append(begins + seconds)
    return ends
