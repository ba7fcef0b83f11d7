"""Hand-made jobs and laws for the tests of the simulated world."""

from __future__ import annotations

from typing import Any

from tests.sim.fifo import Fifo
from windtunnel.model import Job, Stage, StageInput
from windtunnel.records.record import Recorder
from windtunnel.sim.costs.laws import StageLaw, StepLaw
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.plan import Cost

#: an engine without overheads: times can be computed by hand
FREE = EngineCost(
    engine="free", launch_s=0.0, done_s=0.0, block_s=0.0, task_s=0.0, fetch_block_s=0.0, emit_block_s=0.0, emit_bytes_per_s=0.0
)


def step(name: str = "a", *, per_batch: float = 0.0, per_row: float = 0.0, cv: float = 0.0, **more: Any) -> StepLaw:
    """A step with declared costs."""
    return StepLaw(operator=name, cost=Cost(per_batch_s=per_batch, per_row_s=per_row, cv=cv), **more)


def source(durations: list[float], *, size: int = 8, **more: Any) -> tuple[Job, tuple[StageLaw, ...]]:
    """One stage of independent tasks; a task of n rows takes n seconds (durations become rows of microseconds)."""
    rows = tuple((max(1, round(d * 1e6)), size) for d in durations)
    law = StageLaw(steps=(step(per_row=1e-6, row_bytes_out=1, rows_factor=0.0, **more),), source=rows)
    return Job(stages=(Stage(index=0, name="a", operators=("a",), inputs=(), partitions=len(rows)),)), (law,)


def two_stages(
    tasks: int, first: StepLaw, second: StepLaw, *, rows: int = 1, size: int = 8, partitions: int = 0, **second_stage: Any
) -> tuple[Job, tuple[StageLaw, ...]]:
    """A source stage and one that follows it, forward or (``partitions`` > 0) behind an exchange."""
    mode: Any = "partition" if partitions else "forward"
    stages = (
        Stage(index=0, name="a", operators=("a",), inputs=(), partitions=tasks, output_partitions=partitions),
        Stage(
            index=1, name="b", operators=("b",), inputs=(StageInput(stage=0, mode=mode),), partitions=partitions or None,
            **second_stage,
        ),
    )  # fmt: skip
    shares = (1.0 / partitions,) * partitions if partitions else ()
    return Job(stages=stages), (
        StageLaw(steps=(first,), source=((rows, size),) * tasks, shares=shares),
        StageLaw(steps=(second,)),
    )


def cluster(cpus: int = 1, nodes: int = 1, memory: int = 2**34, **more: Any) -> ClusterSpec:
    """Equal nodes."""
    return ClusterSpec(nodes=(NodeSpec(count=nodes, cpus=cpus, memory_bytes=memory, **more),))


def simulate(where: ClusterSpec, what: tuple[Job, tuple[StageLaw, ...]], model: Any = None, **more: Any) -> SimWorld:
    """Run and return the world; its recorder is ``world.journal.recorder``."""
    more.setdefault("cost", FREE)
    world = SimWorld(where, what[0], what[1], Recorder(), **more)
    world.run(model or Fifo())
    return world
