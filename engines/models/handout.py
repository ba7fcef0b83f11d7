"""How engines that begin single tasks hand out those of a recorded job: each when what it reads is there."""

from __future__ import annotations

from collections.abc import Callable

from windtunnel.engines.models.gates import Gates
from windtunnel.engines.models.ledger import Ledger, Task
from windtunnel.model import Action, Block, Job, Stage, Wake


class Handout:
    """Tasks of one recorded job; ``give`` takes each that may begin."""

    def __init__(self, job: Job, ledger: Ledger, give: Callable[[Task], None]) -> None:
        self._job, self._ledger, self._give = job, ledger, give
        self._gates = ledger.gates = Gates(job, stagewise=False)
        self._blocks: dict[tuple[int, int], list[int]] = {}  # of each task (stage, number)

    def begin(self) -> list[Action]:
        """Give what may begin at once; the delays of the others."""
        return self._free(self._gates.begin())

    def woken(self, key: int) -> None:
        """A delay has passed."""
        if (stage := self._gates.woken(key)) is not None:
            self._open(stage)

    def made(self, block: Block) -> None:
        """A task emitted a block."""
        task = self._ledger.tasks[block.task]
        self._blocks.setdefault((task.stage, task.partition), []).append(block.id)

    def task_ended(self, task: Task) -> None:
        """Give the tasks that waited for this one alone."""
        for stage, number in self._gates.task_ended(task.stage, task.partition):
            self._hand_out(stage, number)

    def stage_ended(self, stage: int) -> list[Action]:
        """All tasks of a stage ended: give what waited for that; the delays of the others."""
        return self._free(self._gates.ended(stage))

    def read_whole(self, stage: Stage) -> list[int]:
        """Stages whose output one reads as a whole."""
        return list(dict.fromkeys(i.stage for i in stage.inputs if i.mode == "whole"))

    def _free(self, free: tuple[list[int], list[Wake]]) -> list[Action]:
        for stage in free[0]:
            self._open(stage)
        return list(free[1])

    def _open(self, stage: int) -> None:
        for number in self._gates.ready(stage):
            self._hand_out(stage, number)

    def _hand_out(self, stage: int, number: int) -> None:
        listed = [i for i in self._job.stages[stage].inputs if i.mode == "listed"]
        blocks = tuple([b for i in listed for p in i.parts[number] for b in self._blocks.get((i.stage, p), ())])
        self._give(self._ledger.new_task(stage, number, (number,), blocks))
