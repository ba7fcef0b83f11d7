"""When tasks of recorded stages may begin: whole stages that must have ended, single tasks that are listed, and the driver's own time.

Bookkeeping for models of any kind; decides nothing. A *stagewise* engine begins a stage when all that it reads is complete; others begin a
task when the tasks have ended that it reads.
"""

from __future__ import annotations

from windtunnel.model import Block, Job, Wake


class Gates:
    """What holds back the stages and tasks of one recorded job."""

    def __init__(self, job: Job, *, stagewise: bool) -> None:
        count = len(job.stages)
        self._delay_s = [s.delay_s for s in job.stages]
        self._wholes = [0] * count  # stages that must have ended before
        self._followers: list[list[int]] = [[] for _ in range(count)]
        self._needs: list[list[int]] = [[0] * (s.partitions or 0) for s in job.stages]  # tasks that a task still waits for
        self._children: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(count)]  # by task: who reads it
        self._whole_readers = [0] * count
        self._open = [False] * count
        for stage in job.stages:
            whole = {i.stage for i in stage.inputs if stagewise or i.mode == "whole"}
            for before in sorted(whole | set(stage.after)):
                self._wholes[stage.index] += 1
                self._followers[before].append(stage.index)
            for given in stage.inputs:
                if given.mode == "listed" and not stagewise:
                    self._list(stage.index, given.stage, given.parts)
                else:
                    self._whole_readers[given.stage] += 1

    def _list(self, stage: int, source: int, parts: tuple[tuple[int, ...], ...]) -> None:
        needs, children = self._needs[stage], self._children[source]
        for task, read in enumerate(parts):
            needs[task] += len(read)
            for part in read:
                children.setdefault(part, []).append((stage, task))

    def begin(self) -> tuple[list[int], list[Wake]]:
        """Stages that may begin at once, and those that wait for nothing but the driver."""
        return self._free([i for i, n in enumerate(self._wholes) if not n])

    def ended(self, stage: int) -> tuple[list[int], list[Wake]]:
        """All tasks of a stage have ended: the stages that may begin now, and those that wait for nothing but the driver."""
        free = []
        for follower in self._followers[stage]:
            self._wholes[follower] -= 1
            if not self._wholes[follower]:
                free.append(follower)
        return self._free(free)

    def _free(self, stages: list[int]) -> tuple[list[int], list[Wake]]:
        opened = [i for i in stages if not self._delay_s[i]]
        for index in opened:
            self._open[index] = True
        return opened, [Wake(-1 - i, self._delay_s[i]) for i in stages if self._delay_s[i]]

    def woken(self, key: int) -> int | None:
        """The stage whose delay has passed; None where the key is another's."""
        if key >= 0:
            return None
        self._open[-1 - key] = True
        return -1 - key

    def ready(self, stage: int) -> list[int]:
        """Tasks of a stage that has just been opened which wait for no other task."""
        return [task for task, needs in enumerate(self._needs[stage]) if not needs]

    def task_ended(self, stage: int, task: int) -> list[tuple[int, int]]:
        """Tasks (stage, number) that may begin because this one has ended."""
        free = []
        for reader, number in self._children[stage].pop(task, ()):
            needs = self._needs[reader]
            needs[number] -= 1
            if not needs[number] and self._open[reader]:
                free.append((reader, number))
        return free

    def readers(self, block: Block, task: int) -> int:
        """How many will read a block of task number ``task``: tasks that list it, and stages that read all of its stage."""
        return len(self._children[block.stage].get(task, ())) + self._whole_readers[block.stage]
