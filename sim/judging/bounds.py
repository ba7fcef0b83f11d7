"""Lower bounds: what no schedule can beat. Expected durations, whatever the model does and whoever it launches where.

A `Bound` has one part a resource, and the largest part is the bound of the job:

* ``cpu``, ``device``, ``workers:<operator>``: seconds of work that need a resource, over the units of it that the cluster has (an
  operator's own limit of concurrency too; sleeping tasks hold their slots);
* ``device_link``, ``remote_store``, ``disk_read``: bytes that must cross a link, over the bandwidth of all such links;
* ``network``: bytes of an exchange that cannot stay on the node where they were made, over the down links (`_network`);
* ``critical_path``: a barrier waits for its inputs' last task, and that task takes its own time.

Work is counted with the fewest possible calls, so that no way of cutting blocks falls below it: a task that emits rows emits a
block at least, and whoever takes blocks as they are is called once a block. Where durations vary, the
bound holds for the mean of the runs, not for a lucky one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.model import Job, Stage
from windtunnel.sim.costs.laws import StageLaw, Work
from windtunnel.sim.costs.many import works
from windtunnel.sim.judging.recorded_bounds import recorded_parts
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import Location

CRITICAL_PATH = "critical_path"
_MADE_HERE = Location()


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds that each resource alone would take, by its name; none of them is 0."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """What a run takes at least."""
        return max(self.parts.values(), default=0.0)

    @property
    def binds(self) -> str:
        """The resource with the largest part; of equal ones the first."""
        return max(self.parts, key=self.parts.__getitem__, default="")


@dataclass(slots=True)
class Volume:
    """A stage's whole work: seconds on CPUs (of these asleep) and on devices, rows and bytes out, bytes over the devices' links.

    ``blocks``: so many at least come out. ``longest_s``: of its longest task, which no two others can share.
    """

    slot_s: float = 0.0
    asleep_s: float = 0.0
    device_s: float = 0.0
    longest_s: float = 0.0
    rows: float = 0.0
    bytes: float = 0.0
    moved: float = 0.0
    read: float = 0.0
    blocks: int = 1

    def add(self, work: Work, speed: float = 1.0) -> None:
        """Count a task; devices are ``speed`` times as fast as declared."""
        slot, device = _seconds(work)
        self.slot_s += slot
        self.asleep_s += sum(s.seconds for s in work.steps if s.work_class == "sleep")
        self.device_s += device
        self.longest_s = max(self.longest_s, slot + device / speed)
        self.rows += work.rows_out
        self.bytes += work.rows_out * work.row_bytes
        self.moved += work.moved_bytes

    def add_all(self, law: StageLaw, speed: float) -> None:
        """Count all source tasks of a stage."""
        source = np.array(law.source, dtype=np.int64).reshape(-1, 2)
        tasks = works(law, source[:, 0], source[:, 1])
        slot, device = tasks.seconds_of("cpu", "sleep"), tasks.seconds_of("device")
        self.slot_s += float(slot.sum())
        self.asleep_s += float(tasks.seconds_of("sleep").sum())
        self.device_s += float(device.sum())
        self.longest_s = max(self.longest_s, float((slot + device / speed).max()))
        self.rows += float(tasks.rows_out.sum())
        self.bytes += float((tasks.rows_out * tasks.row_bytes).sum())
        self.moved += float(tasks.moved_bytes.sum())
        self.read = float(source[:, 1].sum())
        self.blocks = max(1, int((tasks.rows_out >= 1.0).sum()))


def _seconds(work: Work) -> tuple[float, float]:
    """On a CPU slot, and on a device."""
    device = sum(s.seconds for s in work.steps if s.work_class == "device")
    return sum(s.seconds for s in work.steps if s.work_class != "device"), device


def volumes(job: Job, laws: Sequence[StageLaw], speed: float = 1.0) -> list[Volume]:
    """The work of every stage; ``speed`` of the fastest device counts for the longest tasks only."""
    result: list[Volume] = []
    for stage, law in zip(job.stages, laws, strict=True):
        volume = Volume()
        rows = sum(result[i.stage].rows for i in stage.inputs if i.mode != "broadcast")
        size = sum(result[i.stage].bytes for i in stage.inputs if i.mode != "broadcast")
        if law.source:
            volume.add_all(law, speed)
        elif any(i.mode == "partition" for i in stage.inputs):
            count = stage.partitions or 1
            volume.add(law.work(rows, size))
            largest = max(rows / count, min(rows, 1.0))
            volume.longest_s = _task_s(law.work(largest, size / rows * largest if rows else 0.0), speed)
        else:
            blocks = max(result[i.stage].blocks for i in stage.inputs if i.mode == "forward")
            volume.add(law.work(rows, size, blocks))
            volume.blocks = blocks if all(s.rows_out(1.0) >= 1.0 and s.rows_exponent == 1.0 for s in law.steps) else 1
            volume.longest_s = _task_s(law.work(min(rows, 1.0), min(rows, 1.0) and size / rows), speed)
        result.append(volume)
    return result


def _task_s(work: Work, speed: float) -> float:
    slot, device = _seconds(work)
    return slot + device / speed


def bound(
    job: Job, laws: Sequence[StageLaw], cluster: ClusterSpec, *, location: Location = _MADE_HERE, times: float = 1.0
) -> Bound:
    """What each resource alone makes a run of the job take at least on this cluster.

    ``times``: of a job with so many times the source partitions, all of the same sizes; tasks do not get longer by that.
    """
    if job.recorded:
        return Bound({name: seconds for name, seconds in recorded_parts(job, laws, cluster).items() if seconds > 0.0})
    speed = max(_speed(cluster), 1.0)
    work = [_multiplied(v, times) for v in volumes(job, laws, speed)]
    parts = _work_laws(job.stages, work, cluster) | _inputs(work, cluster, location)
    parts["network"] = _network(job.stages, laws, work, cluster, times)
    parts[CRITICAL_PATH] = _critical_path(job.stages, laws, work, cluster, location)
    return Bound({name: seconds for name, seconds in parts.items() if seconds > 0.0})


def lower_bound(
    job: Job, laws: Sequence[StageLaw], cluster: ClusterSpec, *, location: Location = _MADE_HERE, times: float = 1.0
) -> float:
    """Seconds that a run takes at least: the largest part of `bound`."""
    return bound(job, laws, cluster, location=location, times=times).seconds


def _multiplied(volume: Volume, times: float) -> Volume:
    scaled = ("slot_s", "asleep_s", "device_s", "moved", "rows", "bytes", "read")
    return replace(volume, **{name: getattr(volume, name) * times for name in scaled})


def _speed(cluster: ClusterSpec) -> float:
    return max((n.gpus.speed for n in cluster.nodes if n.gpus.count), default=1.0)


def _cpu_s(stage: Stage, volume: Volume) -> float:
    """CPU seconds; who asks for no CPU keeps one busy all the same, but not while asleep."""
    needs = stage.resources.cpus or (0.0 if stage.resources.gpus > 0 else 1.0)
    return needs * (volume.slot_s - volume.asleep_s) + stage.resources.cpus * volume.asleep_s


def _work_laws(stages: Sequence[Stage], work: Sequence[Volume], cluster: ClusterSpec) -> dict[str, float]:
    speed = _speed(cluster)
    parts = {"cpu": sum(_cpu_s(s, v) for s, v in zip(stages, work, strict=True)) / cluster.cpus}
    if cluster.gpus:
        speeds = sum(n.count * n.gpus.count * n.gpus.speed for n in cluster.nodes)
        links = sum(n.count * n.gpus.count * n.gpus.pcie_bytes_per_s for n in cluster.nodes)
        parts["device"] = sum(min(s.resources.gpus, 1.0) * v.device_s for s, v in zip(stages, work, strict=True)) / speeds
        parts["device_link"] = sum(v.moved for v in work) / links
    for stage, volume in zip(stages, work, strict=True):
        if stage.concurrency is not None and stage.concurrency.maximum and stage.state.kind == "actor":
            seconds = (volume.slot_s + volume.device_s / speed) / stage.concurrency.maximum
            parts[f"workers:{stage.name}"] = stage.state.load_s + seconds
    return parts


# -- bytes ------------------------------------------------------------------------------------------------------------


def _inputs(work: Sequence[Volume], cluster: ClusterSpec, location: Location) -> dict[str, float]:
    """Source bytes over all disks, or over what all nodes may read from the remote store."""
    if location.kind == "generated":
        return {}
    name = "disk_read" if location.kind == "local" else "remote_store"
    rates = [
        n.disk.read_bytes_per_s if location.kind == "local" else _remote_rate(n.nic_bytes_per_s, location) for n in cluster.nodes
    ]
    return {name: sum(v.read for v in work) / sum(n.count * r for n, r in zip(cluster.nodes, rates, strict=True))}


def _remote_rate(nic: float, location: Location) -> float:
    return min(nic, location.bandwidth_per_node or nic)


def _network(
    stages: Sequence[Stage], laws: Sequence[StageLaw], work: Sequence[Volume], cluster: ClusterSpec, times: float
) -> float:
    """The largest of the exchanges.

    B bytes go evenly from every task to every partition, so that node j, which runs a share c_j of the consumers, must get
    B c_j bytes less what it made of them itself. In T seconds its n CPUs do at most n T of their work W, so that c_j is at most
    n T / W; with R the rate of all down links, B (1 - n T / W) is at most R T, which is solved for T. Without W all consumers may
    run on one node, and nothing must cross. What rounding may keep from being even is not counted.
    """
    nodes = sum(n.count for n in cluster.nodes)
    if nodes < 2:
        return 0.0
    rate = sum(n.count * n.nic_bytes_per_s for n in cluster.nodes) / max(cluster.network.oversubscription, 1.0)
    cpus = max(n.cpus for n in cluster.nodes)
    largest = 0.0
    for stage, volume in zip(stages, work, strict=True):
        for given in stage.inputs:
            made, tasks = work[given.stage], len(laws[given.stage].source) or stages[given.stage].partitions
            count, needs = stages[given.stage].output_partitions, _cpu_s(stage, volume)
            shares = laws[given.stage].shares
            if (
                given.mode != "partition"
                or tasks is None
                or made.rows <= 0
                or not needs
                or not shares
                or min(shares) < max(shares)
            ):
                continue
            even = 1.0 - tasks * count * times / made.rows
            if even > 0.0:
                largest = max(largest, even * made.bytes / (rate + made.bytes * cpus / needs))
    return largest


# -- chains -----------------------------------------------------------------------------------------------------------


def _critical_path(
    stages: Sequence[Stage], laws: Sequence[StageLaw], work: Sequence[Volume], cluster: ClusterSpec, location: Location
) -> float:
    """Longest chain of last tasks; a source's task takes as long as its bytes, too."""
    end: list[float] = []
    for stage, law, volume in zip(stages, laws, work, strict=True):
        begin = max((end[i.stage] for i in stage.inputs), default=0.0)
        load = stage.state.load_s if stage.state.kind == "actor" else 0.0
        longest = volume.longest_s
        if law.source and location.kind != "generated":
            longest = max(longest, max(size for _, size in law.source) / _fastest(cluster, location))
        end.append(max(begin, load) + longest)
    return end[-1]


def _fastest(cluster: ClusterSpec, location: Location) -> float:
    if location.kind == "local":
        return max(n.disk.read_bytes_per_s for n in cluster.nodes)
    return max(_remote_rate(n.nic_bytes_per_s, location) for n in cluster.nodes)
