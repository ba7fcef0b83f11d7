"""What a simulated run used of its cluster over time: CPUs, devices, links, disks, driver, memory, queues. Spans are not needed.

The world appends to the lists of a `Meter`; here is which row stands for what, and what the averages are called in the record:

* ``use:<resource>``: the share in use of what the cluster had of it at that time, 0 … 1: lost nodes do not count;
* ``hot:<resource>``: the same of the busiest node, for links, disks, memory and store of clusters of at most `MOST_NODES` nodes
  (of more, up links are left out: all bytes that leave arrive);
* ``lost:cpu``, ``lost:device``: shares spent on work that was cut short, or that had been done before;
* ``queue_bytes:<stage>``: bytes made for a stage and not yet released; ``spill_bytes_per_s``.

Each is an average from its time to the next sample's, or to the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.sim.world.meter import Meter, Numbers
from windtunnel.sim.world.tasks import SHARED

if TYPE_CHECKING:
    from windtunnel.records.record import Recorder
    from windtunnel.sim.hardware.network import Network
    from windtunnel.sim.hardware.node import Node
    from windtunnel.sim.world.tasks import Spent, StageRun, TaskRun, Worker
    from windtunnel.sim.world.wave import Course

MOST_NODES = 64  # with more nodes, links and disks are not told apart
_HIDDEN = ("away", "away:device")
_TOGETHER = 16_384  # of more tasks in a wave, several are taken together
BY_NODE = ("nic_up", "nic_down", "disk_read", "disk_write", "remote_store", "memory", "store")


class Usage:
    """The rows of a cluster and a job. ``next_s``: when the world should call `look`."""

    def __init__(self, nodes: Sequence[Node], stages: Sequence[StageRun], network: Network, startup_s: float) -> None:
        self._nodes = nodes
        self._memories, self._stores = [n.memory for n in nodes], [n.store for n in nodes]
        self._each = len(nodes) if len(nodes) <= MOST_NODES else 1
        self.first: dict[str, int] = {}
        self._rows: dict[str, slice] = {}
        self._capacity: list[float] = []
        self._away: dict[int, float] = {}  # nodes that are gone, and since when
        self._devices_away: list[float] = []
        self._lay_out(nodes, stages, network.core_bytes_per_s)
        self.meter = Meter(len(self._capacity))
        self.log = self.meter.log
        self._queues = [s for s in stages if s.queue_row >= 0]
        self._startup_s = startup_s
        self.next_s = self._looked_s = self._driver_s = 0.0
        self._watch(network)

    def _lay_out(self, nodes: Sequence[Node], stages: Sequence[StageRun], core: float) -> None:
        for name in ("cpu", "device", "lost:cpu", "lost:device", "away:device"):
            self._row(name, [0.0])  # what there is of them comes and goes with the nodes
        self._row("driver", [1.0])
        rates = [
            (s.nic_bytes_per_s, s.nic_bytes_per_s, s.disk.read_bytes_per_s, s.disk.write_bytes_per_s, n.remote_bytes_per_s,
             float(n.memory.limit), float(n.store.limit), 1.0) for n in nodes for s in (n.spec,)
        ]  # fmt: skip
        for name, column in zip((*BY_NODE, "away"), zip(*rates, strict=True), strict=True):
            self._row(name, list(column) if self._each > 1 else [sum(column)])
        self._row("network_core", [core])
        self._row("spill_bytes_per_s", [1.0])
        for stage in stages:
            pool = stage.spec.concurrency
            stage.pool_row = stage.queue_row = -1
            if pool is not None and pool.maximum and stage.spec.state.kind == "actor":
                stage.pool_row = self._row(f"workers:{stage.name}", [float(pool.maximum)])
        for reader in reversed(stages):
            for given in reader.spec.inputs:
                stages[given.stage].queue_row = self._row(f"queue_bytes:{reader.name}", [1.0])
        for stage in stages:
            weight, asleep, devices_each = stage.weight, stage.spec.resources.cpus, stage.spec.resources.gpus
            stage.uses = {"cpu": (0, weight), "sleep": (0, asleep), "device": (1, devices_each)}

    def _row(self, name: str, capacities: list[float]) -> int:
        if name not in self.first:
            self.first[name] = len(self._capacity)
            self._capacity += capacities
            self._rows[name] = slice(self.first[name], len(self._capacity))
        return self.first[name]

    def row(self, name: str, node: int) -> int:
        """The row of a node's resource."""
        return self.first[name] + (node if self._each > 1 else 0)

    def _watch(self, network: Network) -> None:
        """Whoever shares a resource appends to the log himself."""
        cpu, down, *shared = (self.first[name] for name in ("cpu", "nic_down", "disk_read", "disk_write", "remote_store"))
        for i, node in enumerate(self._nodes):
            place = i if self._each > 1 else 0
            node.watch(self.log, (cpu, shared[0] + place, shared[1] + place, shared[2] + place))
        count = len(self._nodes)
        if self._each > 1:
            links = [*range(self.first["nic_up"], self.first["nic_up"] + count), *range(down, down + count)]
        else:  # of very many nodes the sums of both directions are the same
            links = [-1] * count + [down] * count
        network.watch(self.log, [*links, self.first["network_core"]])

    # -- looking at what has no stretches of its own -------------------------------------------------------------------

    def look(self, now: float, driver_s: float) -> None:
        """Memory, store and queues are taken to have been since the last look as they are now.

        ``driver_s``: seconds that the driver was busy until now.
        """
        since, log = self._looked_s, self.log
        if now > since:
            if self._each == 1:
                held = [(sum([m.used for m in self._memories]), sum([s.used for s in self._stores]))]
            else:
                held = [(n.memory.used, n.store.used) for n in self._nodes]
            for i, (memory, store) in enumerate(held):
                log += (self.row("memory", i), since, now, memory * (now - since))
                log += (self.row("store", i), since, now, store * (now - since))
            for stage in self._queues:
                if stage.queued:
                    log += (stage.queue_row, since, now, stage.queued * (now - since))
            if driver_s > self._driver_s:
                log += (self.first["driver"], max(since, min(self._startup_s, now)), now, driver_s - self._driver_s)
        self.looked(now, driver_s)

    def looked(self, now: float, driver_s: float) -> None:
        """All is known up to ``now``."""
        self._looked_s, self._driver_s = now, max(self._driver_s, driver_s)
        self.meter.flush()
        self.next_s = now + self.meter.width_s * (1 if self._each > 1 else 4)  # looking at very many nodes takes time

    # -- what there is of it -----------------------------------------------------------------------------------------------

    def gone(self, node: int, now: float) -> None:
        """A node is not there any more, or not yet."""
        self._away.setdefault(node, now)

    def back(self, node: int, now: float) -> None:
        """A node is there."""
        since = self._away.pop(node, now)
        if now > since:
            self.log += (self.row("away", node), since, now, now - since)

    def device_gone(self, now: float) -> None:
        """A device is lost for good."""
        self._devices_away.append(now)

    # -- work that was for nothing -------------------------------------------------------------------------------------

    def cut_short(self, worker: Worker, stages: Sequence[StageRun], now: float) -> None:
        """A worker dies: what it had done for its task is lost."""
        run, launch = worker.run, worker.launch
        if run is not None:
            self._interrupted(run, now)
            self.spent(run.stage, run.spent, lost=True)
        elif launch is not None:
            begun = min(worker.started_s, now)
            self.log += (self.first["lost:cpu"], begun, now, (now - begun) * stages[launch.stage].weight)

    def _interrupted(self, run: TaskRun, now: float) -> None:
        """The phase at hand, as far as it came."""
        if run.begun_s >= 0.0:
            if run.phase < len(run.phases):
                run.spent += ((run.phases[run.phase][0], run.begun_s, now, now - run.begun_s),)
            return
        node = run.worker.node
        left = (node.cpu if node.flat_law else node.corun).leave(run) if run.begun_s == SHARED else None
        if left is not None:
            run.spent += (("shared", run.shared_s, now, max(run.shared_work_s - left, 0.0)),)

    def spent(self, stage: StageRun, spent: Sequence[Spent], lost: bool) -> None:
        """A task's stretches of work. A shared CPU has counted them as useful already."""
        for work_class, begun, end, seconds in spent:
            row, level = stage.uses["cpu" if work_class == "shared" else work_class]  # type: ignore[index]
            if lost:
                self.log += (row + self.first["lost:cpu"], begun, end, level * seconds)
            if lost == (work_class == "shared"):
                self.log += (row, begun, end, -level * seconds if lost else level * seconds)
            if stage.pool_row >= 0:
                self.log += (stage.pool_row, begun, end, end - begun)

    # -- a wave --------------------------------------------------------------------------------------------------------

    def wave(self, stage: StageRun, course: Course, launch_s: float, done_s: float) -> None:
        """All tasks of a wave, `_TOGETHER` stretches of equal numbers of them. Amounts are exact, times to within such a stretch.

        The tasks' ends are known at some thousand instants, and taken to be even between them.
        """
        ended, count, end_s, meter = course.ended, len(course.ended), course.now, self.meter
        first = np.arange(0, count, -(-count // _TOGETHER))
        middle = np.minimum(first + len(ended) // len(first) // 2, count - 1)
        many = np.diff(np.append(first, count)).astype(float)
        seconds, out = (np.add.reduceat(a[ended].astype(float), first) for a in course.arrays)
        numbers, times = np.array(course.marks).T
        ends = np.interp(middle + 1, numbers, times)
        begins = np.maximum(ends - seconds / many, 0.0)
        same, nodes = np.zeros(len(first), dtype=np.int64), course.nodes[middle] if self._each > 1 else 0
        kinds = {q.cpus for q in stage.kinds if q is not None}
        cpus = kinds.pop() if len(kinds) == 1 else np.array([q.cpus for q in stage.quick if q is not None])[ended[middle]]
        memory, store, driver = (
            same + self.first["memory"] + nodes,
            same + self.first["store"] + nodes,
            same + self.first["driver"],
        )
        meter.spread(same + self.first["cpu"], begins, ends, cpus * seconds)
        meter.spread(memory, begins, ends, course.held * many * (ends - begins))
        meter.spread(memory, begins, same + end_s, out * (end_s - begins))
        meter.spread(store, ends, same + end_s, out * (end_s - ends))
        meter.spread(driver, np.maximum(begins - launch_s, 0.0), begins, many * launch_s)
        meter.spread(driver, ends, ends + done_s, many * done_s)
        if stage.queue_row >= 0:
            meter.spread(same + stage.queue_row, ends, same + end_s, out * (end_s - ends))
            stage.queued += int(course.arrays[1][ended].sum())

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self, recorder: Recorder, end_s: float) -> None:
        """Write samples and the counters ``busy_cpu_s``, ``busy_device_s``, ``lost_cpu_s``, ``lost_device_s``, ``busy_driver_s``."""
        self._close_away(end_s)
        starts, averages = self.meter.averages(end_s)
        for name, rows in self._rows.items():
            if name in _HIDDEN or not averages[rows].any():
                continue
            here = self._here(name, averages)
            self._samples(recorder, _label(name), starts, _ratio(averages[rows].sum(axis=0), here.sum(axis=0)))
            if name in BY_NODE and self._each > 1:
                self._samples(recorder, f"hot:{name}", starts, _ratio(averages[rows], here).max(axis=0))
        for name, counter in _COUNTERS.items():
            if total := float(self.meter.totals[self._rows[name]].sum()):
                recorder.count(counter, total)

    def _close_away(self, end_s: float) -> None:
        for node in tuple(self._away):
            self.back(node, end_s)
        for since in self._devices_away:
            if end_s > since:
                self.log += (self.first["away:device"], since, end_s, end_s - since)

    def _here(self, name: str, averages: Numbers) -> Numbers:
        """Capacity over time by row: of the nodes and devices that were there."""
        there = 1.0 - np.minimum(averages[self._rows["away"]] / self._by_node([1.0] * len(self._nodes))[:, None], 1.0)
        kind = name.removeprefix("lost:")
        if kind in ("cpu", "device"):
            each = [float(n.cpus if kind == "cpu" else n.spec.gpus.count) for n in self._nodes]
            whole: Numbers = np.sum(self._by_node(each)[:, None] * there, axis=0, keepdims=True)
            return whole if kind == "cpu" else np.maximum(whole - averages[self._rows["away:device"]], 0.0)
        capacity = np.array(self._capacity[self._rows[name]])[:, None]
        return capacity * there if name in BY_NODE else np.broadcast_to(capacity, averages[self._rows[name]].shape)

    def _by_node(self, values: list[float]) -> Numbers:
        return np.array(values if self._each > 1 else [sum(values)])

    @staticmethod
    def _samples(recorder: Recorder, name: str, starts: Numbers, values: Numbers) -> None:
        exact = 0 if "bytes" in name else 6
        if name.startswith(("use:", "hot:", "lost:")):
            values = np.minimum(values, 1.0)
        for time, value in zip(starts.tolist(), np.round(values, exact).tolist(), strict=True):
            recorder.sample(name, time, value)


def _ratio(used: Numbers, capacity: Numbers) -> Numbers:
    """0 where there is no capacity."""
    return np.divide(used, capacity, out=np.zeros(np.broadcast(used, capacity).shape), where=capacity > 0.0)


def _label(name: str) -> str:
    own = name.startswith(("lost:", "queue_bytes:")) or name == "spill_bytes_per_s"
    return name if own else f"use:{name}"


_COUNTERS = {
    "cpu": "busy_cpu_s", "device": "busy_device_s", "lost:cpu": "lost_cpu_s", "lost:device": "lost_device_s",
    "driver": "busy_driver_s",
}  # fmt: skip
