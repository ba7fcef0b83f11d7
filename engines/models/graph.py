"""What follows from a job's graph of stages alone: who reads whom as blocks come, and whose queues may hold back whom."""

from __future__ import annotations

from windtunnel.model import Job


def forward_readers(job: Job, index: int) -> tuple[int, ...]:
    """Stages that take the blocks of stage ``index`` as they come."""
    return tuple(r for r in job.consumers(index) if any(i.stage == index and i.mode == "forward" for i in job.stages[r].inputs))


def collected(job: Job, index: int) -> bool:
    """Whether the ids of a stage's blocks are needed later: a partition or broadcast reader, or the result."""
    readers = job.consumers(index)
    modes = (i.mode for r in readers for i in job.stages[r].inputs if i.stage == index)
    return not readers or any(m != "forward" for m in modes)


def pushes_back(job: Job, index: int) -> bool:
    """Whether queued output may hold a stage: all its readers take blocks as they come, and none waits for its kin."""
    readers = job.consumers(index)
    kin = _ancestors(job, index) | {index}
    for reader in _downstream(job, index):
        for needed in job.stages[reader].inputs:
            if needed.mode != "forward" and (_ancestors(job, needed.stage) | {needed.stage}) & kin and needed.stage != index:
                if reader in readers or _joins_later(job, reader, index):
                    return False
    return bool(readers) and all(i.mode == "forward" for r in readers for i in job.stages[r].inputs if i.stage == index)


def _joins_later(job: Job, reader: int, index: int) -> bool:
    """Whether ``reader`` takes, over forward edges only, what stage ``index`` emits."""
    sources = [i.stage for i in job.stages[reader].inputs if i.mode == "forward"]
    return any(s == index or _joins_later(job, s, index) for s in sources)


def _ancestors(job: Job, index: int) -> set[int]:
    direct = {i.stage for i in job.stages[index].inputs}
    return direct.union(*(_ancestors(job, s) for s in direct))


def _downstream(job: Job, index: int) -> list[int]:
    reached = {index}
    for stage in job.stages:
        if any(i.stage in reached for i in stage.inputs):
            reached.add(stage.index)
    return sorted(reached - {index})
