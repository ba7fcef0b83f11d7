"""What the simulated world's workers do with a task: fetch, compute phase by phase, emit, spill. The other half of the world.

`Execution` knows blocks, nodes and stages; it decides nothing and knows no model: what happens is told through `_send`. Tasks that
need only one slot of one resource (`Quick`) take a short way through.
"""

from __future__ import annotations

from collections.abc import Sequence

from simpy.core import Environment
from windtunnel.sim.costs import EngineCost
from windtunnel.sim.hardware.cpu import Timer
from windtunnel.sim.hardware.gpu import check_device_memory
from windtunnel.sim.hardware.network import Network
from windtunnel.sim.journal import Journal
from windtunnel.sim.tasks import Node, Quick, StageRun, TaskRun, Worker

from windtunnel.cluster import ClusterSpec, NodeSpec
from windtunnel.model import Block, BlockReady, Event, Launch, MemoryPressure, NodeView, TaskDone
from windtunnel.workload import Location

WIDE_FETCH = 8  # sources above which the up links of a fetch count as no bottleneck


class Execution:
    """Nodes, workers' tasks and blocks on the virtual clock of ``env``."""

    def __init__(
        self,
        cluster: ClusterSpec,
        stages: list[StageRun],
        journal: Journal,
        cost: EngineCost,
        store_bytes: int | None,
        location: Location,
    ) -> None:
        self.env = Environment()
        specs: list[NodeSpec] = [group for group in cluster.nodes for _ in range(group.count)]
        self.nodes = tuple(
            NodeView(i, s.cpus, s.gpus.count, s.usable_memory_bytes, physical_bytes=s.memory_bytes) for i, s in enumerate(specs)
        )
        limits = _store_limits([s.usable_memory_bytes for s in specs], store_bytes, stages[0].traits.store_fraction)
        self.store_limit_bytes = sum(limits)
        self.stored_bytes = 0
        self.journal = journal
        self._cost = cost
        self._stages = stages
        self._traits = stages[0].traits
        self._location = location
        self._machines = [
            Node(self.env, i, s, limit, cost, location.bandwidth_per_node)
            for i, (s, limit) in enumerate(zip(specs, limits, strict=True))
        ]
        network = cluster.network
        self._network = Network(self.env, [s.nic_bytes_per_s for s in specs], network.oversubscription, network.latency_s)
        self._blocks: list[Block | None] = []
        self._held: dict[int, int] = {}  # block → workers that still map it
        self._dropped: dict[int, int] = {}  # released blocks that are still mapped, with their bytes
        self._pressed = False
        self._machines[0].memory.take(cost.driver_memory_bytes, "the driver")

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message to the driver, who is busy with it for ``service_s``."""
        raise NotImplementedError

    def _release(self, ids: Sequence[int]) -> float:
        """Forget blocks; the seconds that whoever does so needs to give their pages back. Mapped ones are left to who maps them."""
        freed = 0
        held = self._held
        for i in ids:
            block = self._blocks[i]
            if block is None:
                continue
            self._blocks[i] = None
            if held and i in held:
                self._dropped[i] = block.bytes
            else:
                freed += block.bytes
            node = self._machines[block.node]
            if block.on_disk:
                node.disk.used -= round(block.bytes * self._cost.compression)
                node.pages.forget(block.id)
            else:
                node.store.free(block.bytes)
                self.stored_bytes -= block.bytes
        if self._pressed and self.stored_bytes < 0.9 * self.store_limit_bytes:
            self._pressed = False
        self.journal.stored.note(self.env._now, self.stored_bytes)
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

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker, launch: Launch, ready: float) -> None:
        """The worker is free: it starts ``launch`` at ``ready`` (now or a moment later)."""
        stage = self._stages[launch.stage]
        now = self.env._now
        worker.launch = launch
        worker.ready_s = ready
        if worker.mapped:
            ready = max(ready, now) + self._let_go(worker)
        node = worker.node
        if worker.ahead is not None and worker.ahead.launch is launch:
            self._begin_ahead(worker, worker.ahead, ready)
            return
        if (
            stage.law.source and launch.attempt == 0 and node.flat_law and node.weight <= node.cpus and self._cost.cold == 1.0
            and self._location.kind == "generated" and node.slow == 1.0
        ):  # fmt: skip
            if not stage.quick:
                stage.prepare_quick(node.spec)
            quick = stage.quick[launch.partition]
            if quick is not None:
                worker.started_s = start = ready if ready > now else now
                memory = node.memory
                memory.used += quick.memory + quick.bytes
                if memory.used > memory.peak:
                    memory.peak, memory.peak_s = memory.used, now
                    if memory.used > memory.limit:
                        memory.fail(stage.name)
                worker.arm(start - now + stage.seconds[launch.partition])
                return
        run = worker.run = TaskRun(stage, launch, worker)
        if ready > now:
            worker.arm(ready - now)
        else:
            self._fetch(run)

    def _begin_ahead(self, worker: Worker, run: TaskRun, ready: float) -> None:
        """The worker turns to a task whose inputs are here, or on their way."""
        worker.run, worker.ahead = run, None
        run.ahead = False
        run.started_s = worker.started_s = now = self.env._now
        if not run.pending:
            run.fetched_s, run.phase = now, -1
            worker.arm(max(ready - now, 0.0))

    def _on_worker(self, worker: Worker) -> None:
        """A worker's own timer fired: a launch arrived, a phase ended, or a quick task is done."""
        if not worker.alive:
            return
        run = worker.run
        if run is None:
            self._quick_done(worker)
        elif run.phases:
            self._phase_done(run)
        else:
            self._fetch(run)

    def _quick_done(self, worker: Worker) -> None:
        launch = worker.launch
        assert launch is not None
        stage = self._stages[launch.stage]
        quick = stage.quick[launch.partition]
        assert quick is not None
        node = worker.node
        store = node.store
        index = node.index
        if store.used + quick.bytes > store.limit:
            self._quick_spills(worker, stage, quick)
            return
        node.memory.used -= quick.memory  # the output's bytes stay, now in the store
        store.used += quick.bytes
        if store.used > store.peak:
            store.peak = store.used
        self.stored_bytes += quick.bytes
        blocks = self._blocks
        number = len(blocks)
        done = []
        for partition, rows, size in quick.blocks:
            done.append(Block(number, launch.stage, partition, launch.task, rows, size, index))
            number += 1
        blocks += done
        journal = self.journal
        journal.tasks += 1
        if not journal.tasks % journal.every:
            journal.quick_done(worker, stage, quick, self.env._now)
        self._end(worker, launch, done)

    def _quick_spills(self, worker: Worker, stage: StageRun, quick: Quick) -> None:
        """Its output does not fit in the store: go on as a general task that is about to emit."""
        launch = worker.launch
        assert launch is not None
        run = worker.run = TaskRun(stage, launch, worker)
        run.work, run.plan = quick.work, stage.plan(quick.work, launch.partition)
        run.factors = stage.factors(quick.work, launch.partition, 0)
        run.phases, run.phase = [("sleep", stage.seconds[launch.partition])], 1
        run.started_s = run.fetched_s = worker.started_s
        run.memory = quick.memory + quick.bytes
        self._emit(run)

    def _end(self, worker: Worker, launch: Launch, blocks: list[Block]) -> None:
        worker.launch = worker.run = None
        now = self.env._now
        if now >= self.journal.stored.next_s:
            self.journal.stored.note(now, self.stored_bytes)
        if worker.queue:  # before the driver hears of it, who may send another that must wait behind
            ready, following = worker.queue.popleft()
            self._begin(worker, following, ready)
        self._send(TaskDone(launch.task, blocks), self._cost.done_s)

    # -- tasks on the general path -----------------------------------------------------------------------------------

    def _fetch(self, run: TaskRun) -> None:
        """Bring the inputs here: over the network from other nodes, from disk where they were spilled."""
        run.started_s = self.env._now
        if not run.ahead:
            run.worker.started_s = run.started_s
        node, launch = run.worker.node, run.launch
        remote: dict[int, int] = {}
        from_disk: dict[int, int] = {}
        rows = size = 0
        for i in launch.blocks:
            block = self._blocks[i]
            assert block is not None, f"task {launch.task} reads block {i}, which was released"
            rows += block.rows
            size += block.bytes
            self._locate(block, node, remote, from_disk)
        for side in launch.sides:
            for i in side:
                block = self._blocks[i]
                assert block is not None, f"task {launch.task} reads block {i}, which was released"
                if i not in node.cached:
                    node.cached.add(i)
                    self._locate(block, node, remote, from_disk)
        self._work_out(run, rows, size)
        copied = sum(remote.values())
        run.memory += min(copied, round(self._cost.merge_bytes)) if self._cost.merge_bytes else copied
        node.memory.take(run.memory, run.stage.name)
        run.pending = 1
        for source, count in sorted(from_disk.items()):
            run.pending += 1
            self._machines[source].disk.read(count, self._fetched, run)
        if self._cost.merge_bytes and size > self._cost.merge_bytes and self._traits.outputs == "disk":
            self._merge(run, node, round(size * self._cost.compression))
        wide = len(remote) > WIDE_FETCH
        for source, count in [(-1, copied)] if wide else sorted(remote.items()):
            run.pending += 1
            self._network.transfer(source, node.index, count, self._fetched, run)
        if run.stage.law.source:
            self._read_source(run)
        self._fetched(run)
        if run.pending and run.stage.traits.overlap and not run.ahead:
            run.fetched_s = self.env._now
            self._phase(run)

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
        Timer(self.env, lambda timer: self._fetched(timer.arg), run).arm(self._location.latency_s)

    def _merge(self, run: TaskRun, node: Node, size: int) -> None:
        """What was fetched does not fit in memory: sorted runs go to disk and come back."""
        self.journal.recorder.count("bytes_merged", size)
        run.pending += 2
        node.disk.write(size, self._fetched, run)
        node.disk.read(size, self._fetched, run)
        node.disk.used -= size

    def _locate(self, block: Block, node: Node, remote: dict[int, int], from_disk: dict[int, int]) -> None:
        if block.on_disk:
            size = round(block.bytes * self._cost.compression)
            if not (self._traits.page_cache and self._machines[block.node].pages.holds(block.id, size)):
                from_disk[block.node] = from_disk.get(block.node, 0) + size
        if block.node != node.index:
            remote[block.node] = remote.get(block.node, 0) + block.bytes

    def _work_out(self, run: TaskRun, rows: int, size: int) -> None:
        stage, launch, node = run.stage, run.launch, run.worker.node
        if stage.law.source:
            rows, size = stage.law.source[launch.partition]
        inputs = len(launch.blocks)
        run.work = stage.work(rows, size, max(inputs, 1))
        run.plan = stage.plan(run.work, launch.partition)
        run.factors = stage.factors(run.work, launch.partition, launch.attempt)
        out = [sum(b for _, _, b in e.blocks) for e in run.plan]
        count = sum(len(e.blocks) for e in run.plan)
        run.phases = stage.phases(run, node.spec, inputs, 0 if stage.law.source else size, count, sum(out))
        if "device" in stage.classes:
            batch = size / max(run.work.batches, 1) + max(out)
            check_device_memory(node.spec.gpus, stage.spec.state.memory_bytes, batch, stage.name)
        run.memory = stage.held_bytes(size, run.plan)

    def _fetched(self, run: TaskRun) -> None:
        run.pending -= 1
        if run.pending or run.ahead or not run.worker.alive:
            return
        if run.waiting:
            run.waiting = False
            self._emit(run)
        elif run.fetched_s < run.started_s:
            run.fetched_s = self.env._now
            self._phase(run)

    def _phase(self, run: TaskRun) -> None:
        """Begin the phase at hand of the emission at hand."""
        work_class, seconds = run.phases[run.phase]
        before = run.plan[run.emission - 1].fraction if run.emission else 0.0
        seconds *= run.plan[run.emission].fraction - before
        node = run.worker.node
        if work_class != "cpu" or (node.flat_law and node.weight <= node.spec.cpus):
            run.worker.arm(seconds)
        elif node.flat_law:
            node.cpu.add(seconds, run.stage.weight, self._phase_done, run)
        else:
            node.corun.add(seconds, run.stage.weight, run.felt, self._phase_done, run)

    def _phase_done(self, run: TaskRun) -> None:
        if not run.worker.alive:
            return
        run.phase += 1
        if run.phase < len(run.phases):
            self._phase(run)
        elif run.pending:
            run.waiting = True  # processed all that came; the rest is still on its way
        else:
            self._emit(run)

    def _emit(self, run: TaskRun) -> None:
        """Store the blocks of the emission at hand; one that does not fit is written to disk first."""
        launch, node = run.launch, run.worker.node
        last = run.emission == len(run.plan) - 1
        pieces = run.plan[run.emission].blocks
        limit = self._cost.merge_bytes
        if limit and not run.merged and run.stage.traits.outputs == "disk":
            size = sum(b for _, _, b in pieces)
            if size > limit:
                self._merge_out(run, round(size * self._cost.compression))
                return
        at = run.at - sum(len(e.blocks) for e in run.plan[: run.emission])
        for partition, rows, size in pieces[at:]:
            run.at += 1
            if run.at <= launch.skip_blocks:
                continue
            in_files = run.stage.traits.outputs == "disk"
            if in_files or not node.store.put(size):
                if not self._write(run, partition, rows, size, last, spills=not in_files):
                    return
                continue
            self.stored_bytes += size
            self._made(run, Block(-1, launch.stage, partition, launch.task, rows, size, node.index), last)
        self.journal.stored.note(self.env._now, self.stored_bytes)
        if last:
            self._task_done(run)
        else:
            run.emission += 1
            run.phase = 0
            self._phase(run)

    def _merge_out(self, run: TaskRun, size: int) -> None:
        """Output beyond the sort memory was spilled in runs before it is merged into its file: written and read once more."""
        self.journal.recorder.count("bytes_merged", size)
        disk = run.worker.node.disk
        run.pending = 2
        run.waiting = run.merged = True
        disk.write(size, self._fetched, run)
        disk.read(size, self._fetched, run)
        disk.used -= size

    def _write(self, run: TaskRun, partition: int, rows: int, size: int, last: bool, spills: bool) -> bool:
        """Write a block to a file. True when that is done at once; else the task goes on when the file is taken."""
        launch, node = run.launch, run.worker.node
        block = Block(len(self._blocks), launch.stage, partition, launch.task, rows, size, node.index, True)
        self._blocks.append(None)  # its number is taken while it is written
        begin, on_disk = self.env._now, round(size * self._cost.compression)

        def taken() -> None:
            self._blocks[block.id] = block
            self._announce(run, block, last)

        def written(_: object) -> None:
            if not run.worker.alive:
                return
            run.spill_s += self.env._now - begin
            if spills:
                self.journal.spilled(run, block, begin, self.env._now)
            taken()
            self._emit(run)

        if spills and not self._pressed:
            self._pressed = True
            self._send(MemoryPressure(self.stored_bytes, self.store_limit_bytes), self._cost.block_s)
        self.journal.recorder.count("bytes_disk", on_disk)
        if not run.stage.traits.page_cache:
            node.disk.write(on_disk, written, None)
        elif node.pages.write(block.id, on_disk, written, None):
            taken()
            return True
        return False

    def _made(self, run: TaskRun, block: Block, last: bool) -> None:
        block.id = len(self._blocks)
        self._blocks.append(block)
        self._announce(run, block, last)

    def _announce(self, run: TaskRun, block: Block, last: bool) -> None:
        if last:
            run.blocks.append(block)
        else:
            self._send(BlockReady(block), self._cost.block_s)

    def _task_done(self, run: TaskRun) -> None:
        now, worker = self.env._now, run.worker
        worker.node.memory.give(run.memory)
        self.journal.task_done(run, now)
        if self._cost.forget_bytes_per_s and run.launch.blocks:
            worker.mapped = run.launch.blocks
            for i in worker.mapped:
                self._held[i] = self._held.get(i, 0) + 1
        self._end(worker, run.launch, run.blocks)


def _store_limits(memory: list[int], total: int | None, fraction: float) -> list[int]:
    """The object store's bytes on each node: its share of ``total`` by memory."""
    if total is None:
        return [int(fraction * m) for m in memory]
    return [total * m // sum(memory) for m in memory]
