"""Lower bounds: what no schedule can beat. Expected durations, whatever the model does and whoever it launches where.

The bound of a job is the largest of

* work law: seconds of work that need a resource, over the units of it that the cluster has (CPUs, devices, an operator's
  own limit of concurrency; sleeping tasks hold their slots too);
* bytes over bandwidth: the host links of the devices;
* critical path: a barrier waits for its inputs' last task, and that task takes its own time.

Work is counted with the fewest possible calls, so that no way of cutting blocks falls below it: a task that emits rows emits a
block at least, and whoever takes blocks as they are is called once a block. Where durations vary, the
bound holds for the mean of the runs, not for a lucky one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windtunnel.sim.laws import StageLaw, Work

from windtunnel.cluster import ClusterSpec
from windtunnel.model import Job, Stage


@dataclass(slots=True)
class Volume:
    """A stage's whole work: seconds on CPUs (or asleep) and on devices, rows and bytes out, bytes over the devices' links.

    ``blocks``: so many at least come out.
    """

    slot_s: float = 0.0
    device_s: float = 0.0
    longest_s: float = 0.0
    rows: float = 0.0
    bytes: float = 0.0
    moved: float = 0.0
    blocks: int = 1

    def add(self, work: Work) -> None:
        """Count a task."""
        slot = sum(s.seconds for s in work.steps if s.work_class != "device")
        device = sum(s.seconds for s in work.steps if s.work_class == "device")
        self.slot_s += slot
        self.device_s += device
        self.longest_s = max(self.longest_s, slot + device)
        self.rows += work.rows_out
        self.bytes += work.rows_out * work.row_bytes
        self.moved += work.moved_bytes


def volumes(job: Job, laws: Sequence[StageLaw]) -> list[Volume]:
    """The work of every stage."""
    result: list[Volume] = []
    for stage, law in zip(job.stages, laws, strict=True):
        volume = Volume()
        rows = sum(result[i.stage].rows for i in stage.inputs if i.mode != "broadcast")
        size = sum(result[i.stage].bytes for i in stage.inputs if i.mode != "broadcast")
        if law.source:
            works = [law.work(source_rows, source_bytes) for source_rows, source_bytes in law.source]
            for work in works:
                volume.add(work)
            volume.blocks = max(1, sum(1 for w in works if w.rows_out >= 1.0))
        elif any(i.mode == "partition" for i in stage.inputs):
            count = stage.partitions or 1
            volume.add(law.work(rows, size))
            largest = max(rows / count, min(rows, 1.0))
            volume.longest_s = law.work(largest, size / rows * largest if rows else 0.0).seconds
        else:
            blocks = max(result[i.stage].blocks for i in stage.inputs if i.mode == "forward")
            volume.add(law.work(rows, size, blocks))
            volume.blocks = blocks if all(s.rows_out(1.0) >= 1.0 and s.rows_exponent == 1.0 for s in law.steps) else 1
            volume.longest_s = law.work(min(rows, 1.0), min(rows, 1.0) and size / rows).seconds
        result.append(volume)
    return result


def lower_bound(job: Job, laws: Sequence[StageLaw], cluster: ClusterSpec, *, times: float = 1.0) -> float:
    """Seconds that a run of the job takes at least on this cluster.

    ``times``: of a job with so many times the source partitions, all of the same sizes; tasks do not get longer by that.
    """
    work = [_multiplied(v, times) for v in volumes(job, laws)]
    return max(_work_law(job.stages, work, cluster), _critical_path(job.stages, work, cluster))


def _multiplied(volume: Volume, times: float) -> Volume:
    return replace(volume, slot_s=volume.slot_s * times, device_s=volume.device_s * times, moved=volume.moved * times)


def _speed(cluster: ClusterSpec) -> float:
    return max((n.gpus.speed for n in cluster.nodes if n.gpus.count), default=1.0)


def _work_law(stages: Sequence[Stage], work: Sequence[Volume], cluster: ClusterSpec) -> float:
    speed = _speed(cluster)
    cpu = sum(s.resources.cpus * v.slot_s for s, v in zip(stages, work, strict=True))
    device = sum(min(s.resources.gpus, 1.0) * v.device_s / speed for s, v in zip(stages, work, strict=True))
    bounds = [cpu / cluster.cpus]
    if cluster.gpus:
        links = sum(n.count * n.gpus.count * n.gpus.pcie_bytes_per_s for n in cluster.nodes)
        bounds += [device / cluster.gpus, sum(v.moved for v in work) / links]
    for stage, volume in zip(stages, work, strict=True):
        if stage.concurrency is not None and stage.concurrency.maximum and stage.state.kind == "actor":
            bounds.append(stage.state.load_s + (volume.slot_s + volume.device_s / speed) / stage.concurrency.maximum)
    return max(bounds)


def _critical_path(stages: Sequence[Stage], work: Sequence[Volume], cluster: ClusterSpec) -> float:
    """Longest chain of last tasks."""
    speed = _speed(cluster)
    end: list[float] = []
    for stage, volume in zip(stages, work, strict=True):
        begin = max((end[i.stage] for i in stage.inputs), default=0.0)
        load = stage.state.load_s if stage.state.kind == "actor" else 0.0
        end.append(max(begin, load) + volume.longest_s / max(speed, 1.0))
    return end[-1]
