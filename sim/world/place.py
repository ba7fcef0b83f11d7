"""Where things are in the simulated world: nodes, the network between them, blocks, and what brings blocks to a task.

`Place` knows no model and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.model import Block, Event, NodeView, Persist, Persisted
from windtunnel.sim.clock import Clock, Timer
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.hardware.network import Network
from windtunnel.sim.hardware.node import Node
from windtunnel.sim.world.journal import Journal
from windtunnel.sim.world.tasks import StageRun, TaskRun, Worker
from windtunnel.sim.world.usage import Usage
from windtunnel.spec.cluster import ClusterSpec, NodeSpec
from windtunnel.spec.workload import Location

WIDE_FETCH = 8  # sources above which the up links of a fetch count as no bottleneck


class Place:
    """Nodes, workers and blocks on the virtual clock of ``clock``."""

    def __init__(
        self,
        cluster: ClusterSpec,
        stages: list[StageRun],
        journal: Journal,
        cost: EngineCost,
        store_bytes: int | None,
        location: Location,
    ) -> None:
        self.clock = Clock()
        specs: list[NodeSpec] = [group for group in cluster.nodes for _ in range(group.count)]
        self._all_nodes = [
            NodeView(i, s.cpus, s.gpus.count, s.usable_memory_bytes, physical_bytes=s.memory_bytes) for i, s in enumerate(specs)
        ]
        self.nodes = tuple(self._all_nodes)
        # Who leaves in good order takes nothing along.
        self.volatile = any(f.kind != "node_leaves" for f in cluster.faults) or any(s.mtbf_s > 0 for s in specs)
        self.volatile = self.volatile or stages[0].traits.terminate > 0
        self._workers: dict[int, Worker] = {}
        limits = _store_limits([s.usable_memory_bytes for s in specs], store_bytes, stages[0].traits.store_fraction)
        self.store_limit_bytes, self.least_store_bytes = sum(limits), min(limits)
        self.stored_bytes = 0
        self.journal = journal
        self._cost = cost
        self._stages = stages
        self._traits = stages[0].traits
        self._pauses = self._traits.pause
        self._location = location
        self._machines = [
            Node(self.clock, i, s, limit, cost, location.bandwidth_per_node)
            for i, (s, limit) in enumerate(zip(specs, limits, strict=True))
        ]
        network = cluster.network
        self._network = Network(self.clock, [s.nic_bytes_per_s for s in specs], network.oversubscription, network.latency_s)
        self._blocks: list[Block | None] = []
        self._held: dict[int, int] = {}  # block → workers that still map it
        self._dropped: dict[int, int] = {}  # released blocks that are still mapped, with their bytes
        self._pressed = False
        self._moves: list[Persist] = []  # state on its way to or from durable storage
        self.usage = Usage(self._machines, stages, self._network, cost.startup_s)
        self._machines[0].memory.take(cost.driver_memory_bytes, "the driver")

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message to the driver, who is busy with it for ``service_s``."""
        raise NotImplementedError

    def _look(self) -> None:
        """It is time for `Usage.look`."""
        raise NotImplementedError

    def _fetched(self, run: TaskRun) -> None:
        """Some of a task's inputs are here."""
        raise NotImplementedError

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _release(self, ids: Sequence[int]) -> float:
        """Forget blocks; the seconds that whoever does so needs to give their pages back. Mapped ones are left to who maps them."""
        freed = 0
        held, blocks, machines, stages, compression = (
            self._held,
            self._blocks,
            self._machines,
            self._stages,
            self._cost.compression,
        )
        for i in ids:
            block = blocks[i]
            if block is None:
                continue
            blocks[i] = None
            size, node = block.bytes, machines[block.node]
            if held and i in held:
                self._dropped[i] = size
            else:
                freed += size
            if block.on_disk:
                node.disk.used -= size if compression == 1.0 else round(size * compression)
                node.pages.forget(i)
            else:
                node.store.used -= size  # as `ObjectStore.free` does
                node.memory.used -= size
                assert node.store.used >= 0 <= node.memory.used, "more bytes freed than stored"
                self.stored_bytes -= size
            stages[block.stage].queued -= size
        if self._pressed and self.stored_bytes < 0.9 * self.store_limit_bytes:
            self._pressed = False
        if self.clock.now >= self.journal.stored.next_s:
            self.journal.stored.note(self.clock.now, self.stored_bytes)
        return freed / self._cost.forget_bytes_per_s if self._cost.forget_bytes_per_s else 0.0

    def _let_go(self, worker: Worker) -> float:
        """A worker turns to its next task and unmaps what the last one read; the seconds it needs for pages nobody else wants."""
        freed = 0
        for i in worker.mapped:
            self._held[i] -= 1
            if not self._held[i]:
                del self._held[i]
                freed += self._dropped.pop(i, 0)
        worker.mapped = ()
        return freed / self._cost.forget_bytes_per_s

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _bring(self, run: TaskRun, elsewhere: list[Block], size: int) -> None:
        """Begin what brings a task's inputs here: blocks in files or on other nodes, a source's partition, sorted runs."""
        node = run.worker.node
        remote, from_disk = self._locate(elsewhere, node)
        copied = sum(remote.values())
        run.memory += min(copied, round(self._cost.merge_bytes)) if self._cost.merge_bytes else copied
        node.memory.take(run.memory, run.stage.name)
        run.pending = 1
        for source, count in sorted(from_disk.items()):
            run.pending += 1
            self._machines[source].disk.read(count, self._fetched, run, self._places(source, elsewhere))
        if self._cost.merge_bytes and size > self._cost.merge_bytes and self._traits.outputs == "disk":
            self._merge(run, node, round(size * self._cost.compression))
        self._carry(run, remote)
        if run.stage.law.source:
            self._read_source(run)

    def _carry(self, run: TaskRun, remote: dict[int, int]) -> None:
        """Begin the transfers of bytes from other nodes."""
        flows = [(-1, sum(remote.values()))] if len(remote) > WIDE_FETCH else sorted(remote.items())
        for source, count in flows:
            run.pending += 1
            self._network.transfer(source, run.worker.node.index, count, self._fetched, run)

    def _read_source(self, run: TaskRun) -> None:
        """A source partition that lies on the node's disk or in a remote store."""
        kind, size = self._location.kind, run.stage.law.source[run.launch.partition][1]
        node = run.worker.node
        if kind == "generated":
            return
        run.pending += 1
        if kind == "local":
            node.disk.read(size, self._fetched, run)
        else:
            self.journal.recorder.count("bytes_remote", size)
            node.remote.add(float(size), 1.0, self._late, run)

    def _late(self, run: TaskRun) -> None:
        Timer(self.clock, lambda timer: self._fetched(timer.arg), run).arm(self._location.latency_s)

    def persist(self, action: Persist) -> None:
        """A node's state goes to the remote store, or comes from there, over the way that remote data takes too.

        Who asks for it back has given up what is still being written.
        """
        remote = self._machines[action.node].remote
        if action.back:
            for given_up in [m for m in self._moves if m.node == action.node]:
                self._moves.remove(given_up)
                remote.leave(given_up)
        self.journal.recorder.count("bytes_restored" if action.back else "bytes_checkpointed", action.bytes)
        self._moves.append(action)
        remote.add(float(action.bytes), 1.0, self._persisted, action)

    def _persisted(self, action: Persist) -> None:
        self._moves.remove(action)
        self._send(Persisted(action.key), self._cost.block_s)

    def _merge(self, run: TaskRun, node: Node, size: int) -> None:
        """What was fetched does not fit in memory: sorted runs go to disk and come back."""
        self.journal.recorder.count("bytes_merged", size)
        run.pending += 2
        node.disk.write(size, self._fetched, run)
        node.disk.read(size, self._fetched, run, node.disk.runs(size))
        node.disk.used -= size

    def _places(self, node: int, blocks: Sequence[Block]) -> float:
        """Where the arm of a node's disk must go for these blocks: a place a file, in which they lie side by side."""
        if not self._machines[node].disk.chunk:
            return 1
        return self._cost.pieces * len({b.task for b in blocks if b.on_disk and b.node == node})

    def _locate(self, blocks: Sequence[Block], node: Node) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes that come from other nodes, and those that must be read from disk, by node."""
        remote: dict[int, int] = {}
        parts: dict[int, list[tuple[int, int]]] = {}
        here, compression = node.index, self._cost.compression
        for block in blocks:
            source, size = block.node, block.bytes
            if source != here:
                remote[source] = remote.get(source, 0) + size
            if block.on_disk:
                part = (block.id, size if compression == 1.0 else round(size * compression))
                if source in parts:
                    parts[source].append(part)
                else:
                    parts[source] = [part]
        if not self._traits.page_cache:
            return remote, {source: sum([size for _, size in files]) for source, files in parts.items()}
        missing = {source: self._machines[source].pages.read(files) for source, files in parts.items()}
        return remote, {source: size for source, size in missing.items() if size is not None}


def _store_limits(memory: list[int], total: int | None, fraction: float) -> list[int]:
    """The object store's bytes on each node: its share of ``total`` by memory."""
    if total is None:
        return [int(fraction * m) for m in memory]
    return [total * m // sum(memory) for m in memory]
