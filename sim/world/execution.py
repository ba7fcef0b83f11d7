"""What the simulated world's workers do with a task: fetch, compute phase by phase, emit, spill.

`Execution` decides nothing and knows no model: what happens is told through `_send`. Tasks that need only one slot of one resource
(`Quick`) take a short way through.
"""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.model import Block, BlockReady, Feed, Launch, MemoryPressure, TaskDone
from windtunnel.sim.hardware.gpu import check_device_memory
from windtunnel.sim.hardware.node import Node
from windtunnel.sim.world.place import Place
from windtunnel.sim.world.tasks import SHARED, Made, Quick, StageRun, TaskRun, Worker


class Execution(Place):
    """What becomes of tasks in their place."""

    def _refuse_run(self, run: TaskRun) -> None:
        """A worker cannot begin a task, because its input is lost."""
        raise NotImplementedError

    def feed(self, action: Feed) -> None:
        """A task that gathers its inputs is told more of them."""
        raise NotImplementedError

    def _is_up(self, worker: Worker) -> None:
        """It takes tasks from now on."""
        worker.up = True
        worker.fire = self._on_worker

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker, launch: Launch, ready: float) -> None:
        """The worker is free: it starts ``launch`` at ``ready`` (now or a moment later)."""
        if self._pauses and self._paused(worker, launch, ready):
            return
        stage = self._stages[launch.stage]
        now = self.clock.now
        worker.launch = launch
        worker.ready_s = ready
        if worker.mapped:
            ready = max(ready, now) + self._let_go(worker)
        node = worker.node
        if worker.ahead is not None and worker.ahead.launch is launch:
            self._begin_ahead(worker, worker.ahead, ready)
            return
        if (
            (stage.law.source or (stage.law.told and not launch.blocks)) and launch.attempt == 0
            and node.flat_law and node.weight <= node.cpus and node.slow == 1.0
            and self._cost.cold == 1.0 and self._location.kind == "generated"
        ):  # fmt: skip
            if not stage.quick:
                stage.prepare_quick(node.spec)
            quick = stage.quick[launch.partition]
            if quick is not None:
                worker.started_s = start = ready if ready > now else now
                memory = node.memory
                memory.used += quick.memory + quick.bytes
                if memory.used > memory.peak:
                    memory.higher(stage.name)
                worker.arm(start - now + stage.seconds[launch.partition])
                return
        run = worker.run = TaskRun(stage, launch, worker)
        if ready > now:
            worker.arm(ready - now)
        else:
            self._fetch(run)

    def _paused(self, worker: Worker, launch: Launch, ready: float) -> bool:
        """Whether a worker must wait, because its node is short of memory and others there run."""
        raise NotImplementedError

    def _begin_ahead(self, worker: Worker, run: TaskRun, ready: float) -> None:
        """The worker turns to a task whose inputs are here, or on their way."""
        worker.run, worker.ahead = run, None
        run.ahead = False
        run.started_s = worker.started_s = now = self.clock.now
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
        now, usage, journal = self.clock.now, self.usage, self.journal
        usage.log += (0, worker.started_s, now, quick.cpus * (now - worker.started_s))
        stage.queued += quick.bytes
        journal.tasks += 1
        if not journal.tasks % journal.every:
            journal.quick_done(worker, stage, quick, now)
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
        self.usage.log += (0, run.started_s, self.clock.now, quick.cpus * (self.clock.now - run.started_s))
        self._emit(run)

    def _end(self, worker: Worker, launch: Launch, blocks: list[Block]) -> None:
        worker.launch = worker.run = None
        now = self.clock.now
        if now >= self.journal.stored.next_s:
            self.journal.stored.note(now, self.stored_bytes)
        if now >= self.usage.next_s:
            self._look()
        if worker.queue:  # before the driver hears of it, who may send another that must wait behind
            ready, following = worker.queue.pop(0)
            self._begin(worker, following, ready)
        self._send(TaskDone(launch.task, blocks), self._cost.done_s)

    # -- tasks on the general path -----------------------------------------------------------------------------------

    def _fetch(self, run: TaskRun) -> None:
        """Bring the inputs here: over the network from other nodes, from disk where they were spilled."""
        run.started_s = now = self.clock.now
        if not run.ahead:
            run.worker.started_s = now
        node, launch, blocks = run.worker.node, run.launch, self._blocks
        if launch.gathers:
            run.pending = 1  # until the last inputs are told
            for action in run.told:
                self.feed(action)
            return
        elsewhere: list[Block] = []
        if self.volatile and any(blocks[i] is None for i in launch.blocks):
            self._refuse_run(run)  # launched before the driver heard that its input is gone
            return
        rows = size = 0
        for i in launch.blocks:
            block = blocks[i]
            assert block is not None, f"task {launch.task} reads block {i}, which was released"
            rows += block.rows
            size += block.bytes
            if block.node != node.index or block.on_disk:
                elsewhere.append(block)
        for i in [i for side in launch.sides for i in side if i not in node.cached] if launch.sides else ():
            block = blocks[i]
            assert block is not None, f"task {launch.task} reads block {i}, which was released"
            node.cached.add(i)
            elsewhere.append(block)
        self._work_out(run, rows, size)
        if elsewhere or self._cost.merge_bytes or run.stage.law.source:
            self._bring(run, elsewhere, size)
            self._fetched(run)
            if run.pending and run.stage.traits.overlap and not run.ahead:
                run.fetched_s = now
                self._phase(run)
            return
        node.memory.take(run.memory, run.stage.name)
        if not run.ahead:
            run.fetched_s = now
            self._phase(run)

    def _work_out(self, run: TaskRun, rows: int, size: int, spared_s: float = 0.0) -> None:
        """What the task does with its input, which is known now: its work, its output, and its phases here.

        ``spared_s`` of its overheads are behind it.
        """
        stage, launch = run.stage, run.launch
        bytes_in = size
        if stage.law.source:
            rows, size = stage.law.source[launch.partition]
            bytes_in = 0
        if stage.law.told:
            recipe = stage.told(launch.partition, len(launch.blocks), bytes_in)
        else:
            recipe = stage.recipe(rows, size, len(launch.blocks), bytes_in)
        work = run.work = recipe.work
        made, overhead, run.memory = recipe.made, recipe.overhead_s, recipe.held
        if recipe.plan is not None:
            run.plan = recipe.plan
        else:
            run.plan = stage.plan(work, launch.partition)
            made = Made(run.plan)
            overhead, run.memory = stage.overhead_s(work, len(launch.blocks), bytes_in, made), stage.held_bytes(size, run.plan)
        if work.cvs:
            run.factors = stage.factors(work, launch.partition, launch.attempt)
        node = run.worker.node
        run.phases = stage.phases(run, node, overhead - spared_s)
        if stage.devices:
            batch = size / max(work.batches, 1) + made.most
            check_device_memory(node.spec.gpus, stage.spec.state.memory_bytes, batch, stage.name)

    def _fetched(self, run: TaskRun) -> None:
        run.pending -= 1
        if run.pending or run.ahead or run.dropped or not run.worker.alive:
            return
        if run.waiting:
            run.waiting = False
            self._emit(run)
        elif run.fetched_s < run.started_s:
            run.fetched_s = self.clock.now
            self._phase(run)

    def _phase(self, run: TaskRun) -> None:
        """Begin the phase at hand of the emission at hand."""
        work_class, seconds = run.phases[run.phase]
        if len(run.plan) > 1:
            before = run.plan[run.emission - 1].fraction if run.emission else 0.0
            seconds *= run.plan[run.emission].fraction - before
        node = run.worker.node
        if work_class != "cpu" or (node.flat_law and node.weight <= node.cpus):
            run.begun_s = self.clock.now
            run.worker.arm(seconds)
            return
        run.begun_s, run.shared_s, run.shared_work_s = SHARED, self.clock.now, seconds
        if node.flat_law:
            node.cpu.add(seconds, run.stage.weight, self._phase_done, run)
        else:
            node.corun.add(seconds, run.stage.weight, run.felt, self._phase_done, run)

    def _phase_done(self, run: TaskRun) -> None:
        if not run.worker.alive:
            return
        begun, stage = run.begun_s, run.stage
        if begun >= 0.0:
            now, work_class = self.clock.now, run.phases[run.phase][0]
            if self.volatile:  # it may be for nothing yet
                run.spent += ((work_class, begun, now, now - begun),)
            else:
                row, level = stage.uses[work_class]
                self.usage.log += (row, begun, now, level * (now - begun))
                if stage.pool_row >= 0:
                    self.usage.log += (stage.pool_row, begun, now, now - begun)
        elif begun == SHARED and (self.volatile or stage.pool_row >= 0):
            run.spent += (("shared", run.shared_s, self.clock.now, run.shared_work_s),)
        run.phase += 1
        if run.phase < len(run.phases):
            self._phase(run)
        elif run.pending:
            run.waiting = True  # processed all that came; the rest is still on its way
        else:
            self._emit(run)

    def _emit(self, run: TaskRun) -> None:
        """Store the blocks of the emission at hand; one that does not fit is written to disk first."""
        launch, stage = run.launch, run.stage
        node, index, pieces = run.worker.node, launch.stage, run.plan[run.emission].blocks
        last = run.emission == len(run.plan) - 1
        if stage.files:
            if not self._to_file(run, pieces, last):
                return
            pieces = ()
        elif run.at or run.emission or launch.skip_blocks:
            pieces = pieces[self._emitted(run, pieces) :]
        for partition, rows, size in pieces:
            run.at += 1
            if node.store.put(size):
                self.stored_bytes += size
                block = Block(len(self._blocks), index, partition, launch.task, rows, size, node.index)
                self._blocks.append(block)
                self._announce(run, block, last)
            elif not self._spill(run, partition, rows, size, last):
                return
        now = self.clock.now
        if now >= self.journal.stored.next_s:
            self.journal.stored.note(now, self.stored_bytes)
        if last:
            self._task_done(run)
        else:
            run.emission += 1
            run.phase = 0
            self._phase(run)

    def _emitted(self, run: TaskRun, pieces: Sequence[tuple[int, int, int]]) -> int:
        """How many blocks of the emission at hand are out already, in this attempt or an earlier one."""
        before = sum([len(e.blocks) for e in run.plan[: run.emission]])
        run.at = max(run.at, min(run.launch.skip_blocks, before + len(pieces)))
        return run.at - before

    def _to_file(self, run: TaskRun, pieces: Sequence[tuple[int, int, int]], last: bool) -> bool:
        """Write an emission to files. True when that is done at once; else the task goes on then."""
        if not run.merged:
            run.merged = True
            if self._finish_files(run, sum(b for _, _, b in pieces)):
                return False
        todo = pieces[self._emitted(run, pieces) :]
        run.at += len(todo)
        return not todo or self._write_file(run, todo, last)

    def _finish_files(self, run: TaskRun, size: int) -> bool:
        """What a task's files cost beyond writing them once: merging sorted runs, copies of the job's output. True: wait for it.

        Output beyond the sort memory was spilled in runs before it is merged into its file: written and read once more.
        """
        node, on_disk = run.worker.node, round(size * self._cost.compression)
        begun = run.pending
        if self._cost.merge_bytes and size > self._cost.merge_bytes:
            self.journal.recorder.count("bytes_merged", on_disk)
            run.pending += 2
            node.disk.write(on_disk, self._fetched, run)
            node.disk.read(on_disk, self._fetched, run, node.disk.runs(on_disk))
            node.disk.used -= on_disk
        if 1 < run.stage.spec.output_partitions <= run.stage.traits.concatenate:
            self._concatenate(run, node, on_disk)
        if run.stage.index == len(self._stages) - 1:
            for copy in range(1, min(run.stage.traits.replication, len(self._machines))):
                run.pending += 1
                target = (node.index + copy) % len(self._machines)
                self._network.transfer(node.index, target, on_disk, self._replicated, (run, self._machines[target], on_disk))
        run.waiting = run.pending > begun
        return run.waiting

    def _replicated(self, copy: tuple[TaskRun, Node, int]) -> None:
        """A copy of output is on another node, whose disk takes it."""
        run, node, size = copy
        node.disk.write(size, self._fetched, run)

    def _concatenate(self, run: TaskRun, node: Node, size: int) -> None:
        """A file a partition is written, and read from the page cache into the one file that stays."""
        number = -2 - run.launch.task
        self.journal.recorder.count("bytes_concatenated", size)
        if not node.pages.write(number, (size,), self._fetched, run):
            run.pending += 1
        node.pages.forget(number)
        node.disk.used -= size

    def _write_file(self, run: TaskRun, pieces: Sequence[tuple[int, int, int]], last: bool) -> bool:
        """Write the blocks of an emission into one file, a part each. True when that is done at once; else the task goes on when
        the file is taken."""
        launch, node, first = run.launch, run.worker.node, len(self._blocks)
        compression = self._cost.compression
        sizes = [size if compression == 1.0 else round(size * compression) for _, _, size in pieces]
        self._blocks += [None] * len(pieces)  # their numbers are taken while they are written
        begin = self.clock.now

        def taken() -> None:
            stage, task, index = launch.stage, launch.task, node.index
            made = [Block(n, stage, p, task, rows, size, index, True) for n, (p, rows, size) in enumerate(pieces, first)]
            self._blocks[first : first + len(made)] = made
            run.stage.queued += sum([b.bytes for b in made])
            if last:
                run.blocks += made
                return
            for block in made:
                self._send(BlockReady(block), self._cost.block_s)

        def written(_: object) -> None:
            if run.worker.alive:
                run.spill_s += self.clock.now - begin
                taken()
                self._emit(run)

        self.journal.recorder.count("bytes_disk", sum(sizes))
        if not run.stage.traits.page_cache:
            node.disk.write(sum(sizes), written, None)
        elif node.pages.write(first, sizes, written, None):
            taken()
            return True
        return False

    def _spill(self, run: TaskRun, partition: int, rows: int, size: int, last: bool) -> bool:
        """Write a block that does not fit in the store to a file of its own. True when that is done at once; else the task goes on
        then."""
        launch, node, begin = run.launch, run.worker.node, self.clock.now
        block = Block(len(self._blocks), launch.stage, partition, launch.task, rows, size, node.index, True)
        self._blocks.append(None)  # its number is taken while it is written
        on_disk = round(size * self._cost.compression)

        def taken() -> None:
            now = self.clock.now
            self.usage.log += (self.usage.first["spill_bytes_per_s"], begin, now, on_disk)
            self.journal.spilled(run, block, begin, now)
            self._blocks[block.id] = block
            self._announce(run, block, last)

        def written(_: object) -> None:
            if run.worker.alive:
                run.spill_s += self.clock.now - begin
                taken()
                self._emit(run)

        if not self._pressed:
            self._pressed = True
            self._send(MemoryPressure(self.stored_bytes, self.store_limit_bytes), self._cost.block_s)
        self.journal.recorder.count("bytes_disk", on_disk)
        if not run.stage.traits.page_cache:
            node.disk.write(on_disk, written, None)
        elif node.pages.write(block.id, (on_disk,), written, None):
            taken()
            return True
        return False

    def _announce(self, run: TaskRun, block: Block, last: bool) -> None:
        run.stage.queued += block.bytes
        if last:
            run.blocks.append(block)
        else:
            self._send(BlockReady(block), self._cost.block_s)

    def _task_done(self, run: TaskRun) -> None:
        worker, journal = run.worker, self.journal
        worker.node.memory.give(run.memory)
        journal.tasks += 1
        if not journal.tasks % journal.every:
            journal.task_done(run, self.clock.now)
        if run.spent:
            self.usage.spent(run.stage, run.spent, lost=run.launch.again)
        if self._cost.forget_bytes_per_s and run.launch.blocks:
            worker.mapped = run.launch.blocks
            for i in worker.mapped:
                self._held[i] = self._held.get(i, 0) + 1
        self._end(worker, run.launch, run.blocks)
