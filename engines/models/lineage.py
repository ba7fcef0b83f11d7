"""How lost blocks are made again: by the tasks that made them, on the inputs that those had, recursively.

`Lineage` remembers every task and who made which block. When blocks are lost it names the tasks to run again; when such a task
emits a block that somebody waits for, the new block takes the lost one's place, and everything else that it emits is spare. So
the output is complete and counted once. It launches nothing: models do.

The rule is Ray's lineage reconstruction (Ray docs, "Object fault tolerance"), Spark's stage retry (only lost map outputs are made
again) and Dask's recomputation of lost keys alike; they differ in what is still there when something is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windtunnel.engines.models.ledger import Ledger, Task
    from windtunnel.model import Block


class Lineage:
    """The history of one job's blocks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tasks: dict[int, Task] = {}
        self._maker: dict[int, tuple[int, int]] = {}  # block → task, place among what it emits
        self._redo_of: dict[int, int] = {}  # task that is done again → the redo under way
        self.wanted: dict[int, dict[int, int]] = {}  # redo → place → the block that is lost
        self.missing: dict[int, list[Task]] = {}  # lost block → tasks that wait for it
        self._stands_for: dict[int, int] = {}  # lost block → the one that took its place

    def launched(self, task: Task) -> None:
        """Remember a task, in the form in which it could be done again."""
        self._tasks.setdefault(task.id, task)

    def made(self, block: Block, place: int) -> None:
        """Remember who made a block."""
        self._maker[block.id] = (block.task, place)

    def current(self, blocks: tuple[int, ...]) -> tuple[int, ...]:
        """The same blocks by the ids that they have now."""
        return tuple(self._now(b) for b in blocks) if self._stands_for else blocks

    def _now(self, block: int) -> int:
        while block in self._stands_for:
            block = self._stands_for[block]
        return block

    def holds(self, task: Task) -> bool:
        """Whether ``task`` must wait: an input of it is lost. It is told to those who make it again."""
        task.blocks = self.current(task.blocks)
        lost = [b for b in dict.fromkeys(task.blocks) if b in self.missing]
        for block in lost:
            if task not in self.missing[block]:
                self.missing[block].append(task)
        return bool(lost)

    def lose(self, blocks: Iterable[int]) -> list[Task]:
        """Blocks are gone: new tasks, to be run again where `holds` does not say that they wait themselves."""
        redos: list[Task] = []
        waiting = {id(t): t for tasks in self.missing.values() for t in tasks}
        for block in blocks:
            if self._ledger.readers.get(block):
                self._need(block, redos)
        for task in waiting.values():  # they may have lost another input meanwhile
            self.holds(task)
        return redos

    def _need(self, block: int, redos: list[Task]) -> None:
        if block in self.missing:
            return
        self.missing[block] = []
        maker, place = self._maker[block]
        redo_id = self._redo_of.get(maker)
        if redo_id is None or place < self._ledger.tasks[redo_id].emitted:
            redo_id = self._again(maker, redos)
        self.wanted[redo_id][place] = block

    def _again(self, maker: int, redos: list[Task]) -> int:
        """A new task that does what ``maker`` did; inputs that were released are made again too."""
        ledger, original = self._ledger, self._tasks[maker]
        original.blocks = self.current(original.blocks)
        redo = ledger.new_task(original.stage, original.partition, original.order, original.blocks, original.split)
        redo.again, redo.attempt = True, original.attempt
        self._redo_of[maker] = redo.id
        self._tasks[redo.id] = original
        self.wanted[redo.id] = {}
        redos.append(redo)
        for block in dict.fromkeys(original.blocks):
            if ledger.readers.get(block):
                ledger.readers[block] += 1
            else:  # released long ago: nobody but this task needs it
                ledger.readers[block] = 1
                self._need(block, redos)
        return redo.id

    def repeat(self, done: Iterable[int]) -> list[Task]:
        """Tasks that ended are done once more though nothing they made is missing: what they emit is spare."""
        redos: list[Task] = []
        for task in done:
            if task not in self._redo_of:
                self._again(task, redos)
        return redos

    def emitted(self, redo: Task, block: Block) -> int | None:
        """A redo emitted a block: the lost one whose place it takes, None when it is spare."""
        return self.wanted[redo.id].pop(redo.emitted, None)

    def replaced(self, old: int, block: Block) -> list[Task]:
        """``block`` stands for ``old`` from now on; the tasks that waited for nothing else."""
        self._maker[block.id] = self._maker[old]
        self._stands_for[old] = block.id
        ready = []
        for task in self.missing.pop(old):
            task.blocks = tuple(block.id if b == old else b for b in task.blocks)
            if not any(b in self.missing for b in task.blocks):
                ready.append(task)
        return ready

    def died(self, redo: Task) -> None:
        """A redo died with its worker, which counts for the task that it stands for."""
        self._tasks[redo.id].attempt = redo.attempt

    def done(self, task: Task) -> None:
        """A redo ended."""
        original = self._tasks[task.id]
        if self._redo_of.get(original.id) == task.id:
            del self._redo_of[original.id]
        self.wanted.pop(task.id, None)
