"""Tasks that begin before their inputs are complete: they hold their slot and fetch what is there, and compute when all is.

Between `execution` and `losses`. It decides nothing: when to begin such a task and what to give it is its model's business.
"""

from __future__ import annotations

from windtunnel.model import Block, Feed
from windtunnel.sim.world.execution import Execution
from windtunnel.sim.world.tasks import TaskRun


class Gathering(Execution):
    """The part of the world that carries out `Feed`."""

    def feed(self, action: Feed) -> None:
        """Fetch what is new of a task's inputs; with the last of them its work can be told, and begins."""
        worker = self._workers.get(action.worker)
        run = None if worker is None else worker.run
        if run is None or run.launch.task != action.task or not run.launch.gathers:
            return  # lost a moment ago: its model will hear of it
        if not run.pending:  # its process is not there yet
            run.told += (action,)
            return
        known = set(run.launch.blocks)
        new = [b for i in action.blocks if i not in known and (b := self._blocks[i]) is not None]
        if self.volatile and action.last and any(self._blocks[i] is None for i in action.blocks):
            self._refuse_run(run)
            return
        if new:
            self._gather(run, new)
        if action.last:
            run.launch.blocks, run.launch.split, run.launch.gathers = action.blocks, action.split, False
            self._all_told(run)
        else:
            run.launch.blocks += tuple([b.id for b in new])

    def _gather(self, run: TaskRun, new: list[Block]) -> None:
        """Begin to bring blocks here; beyond the sort memory they go to disk in runs, and come back."""
        node, cost, limit = run.worker.node, self._cost, round(self._cost.merge_bytes)
        remote, from_disk = self._locate(new, node)
        before = run.gathered
        run.gathered += sum([b.bytes for b in new])
        held = min(run.gathered, limit) - min(before, limit) if limit else sum(remote.values())
        run.memory += held
        node.memory.take(held, run.stage.name)
        for source, count in sorted(from_disk.items()):
            run.pending += 1
            self._machines[source].disk.read(count, self._fetched, run, self._places(source, new))
        if limit and run.gathered > limit:
            self._merge(run, node, round((run.gathered - run.in_runs) * cost.compression))
            run.in_runs = run.gathered
        self._carry(run, remote)

    def _all_told(self, run: TaskRun) -> None:
        """The rest is as for any task. Its process has started long ago."""
        blocks = [b for i in run.launch.blocks if (b := self._blocks[i]) is not None]
        held, now = run.memory, self.clock.now
        self._work_out(run, sum([b.rows for b in blocks]), sum([b.bytes for b in blocks]), self._cost.task_s)
        run.worker.node.memory.take(run.memory, run.stage.name)
        run.memory += held
        self._fetched(run)
        if run.pending and run.stage.traits.overlap:
            run.fetched_s = now
            self._phase(run)
