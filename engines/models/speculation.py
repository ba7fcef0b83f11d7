"""Speculative execution: a task that runs much longer than its like gets a copy on another node, and the first of the two counts.

The rule is `TaskSetManager.checkSpeculatableTasks` of Spark 4.0 (core/scheduler; defaults from configuration.html): every 100 ms, in
a stage of several tasks of which a share ``quantile`` is done, tasks that run longer than ``multiplier`` times the median of
those, and longer than 100 ms, may be copied once; the copy goes to a node that the task does not run on. Left out is the
efficiency test of Spark 3.4 and later (``spark.speculation.efficiency.enabled``), which spares long tasks that get on as fast as
the others.

A model knows no clock: it counts its own ticks, so that durations are whole tenths of seconds.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict

TICK_S = 0.1  # spark.speculation.interval, and spark.speculation.minTaskRuntime


class Speculation:
    """Which running tasks are slow. Task and stage numbers in, task numbers out."""

    def __init__(self, quantile: float, multiplier: float) -> None:
        self._quantile, self._multiplier = quantile, multiplier
        self._now = 0
        self._begun: defaultdict[int, dict[int, int]] = defaultdict(dict)  # stage → running task → tick of its launch
        self._took: defaultdict[int, list[int]] = defaultdict(list)  # stage → ticks that its ended tasks took, in order
        self._twin: dict[int, int] = {}  # task ↔ its copy, both running
        self.cancelled: set[int] = set()  # what they send may still be on its way

    def tick(self) -> None:
        """A tenth of a second passed."""
        self._now += 1

    def launched(self, task: int, stage: int) -> None:
        """A task runs."""
        self._begun[stage][task] = self._now

    def copied(self, task: int, copy: int, stage: int) -> None:
        """Both run now."""
        self._twin[task], self._twin[copy] = copy, task
        self.launched(copy, stage)

    def ended(self, task: int, stage: int) -> int | None:
        """A task is done; the other one of its pair, which is to be cancelled, if there is one."""
        insort(self._took[stage], self._now - self._begun[stage][task])
        loser = self.stopped(task, stage)
        if loser is not None:
            del self._begun[stage][loser]
            self.cancelled.add(loser)
        return loser

    def stopped(self, task: int, stage: int) -> int | None:
        """A task runs no more; the other one of its pair, which does, if there is one."""
        self._begun[stage].pop(task, None)
        other = self._twin.pop(task, None)
        if other is not None:
            del self._twin[other]
        return other

    def slow(self, stage: int, tasks: int) -> list[int]:
        """The running tasks of a stage of ``tasks`` that may be copied now, longest first."""
        took = self._took[stage]
        if tasks < 2 or len(took) < max(int(self._quantile * tasks), 1):
            return []
        middle = len(took) // 2
        median = took[middle] if len(took) % 2 else (took[middle - 1] + took[middle]) / 2
        limit = max(self._multiplier * median, 1)
        begun = self._begun[stage]
        return sorted((t for t in begun if self._now - begun[t] > limit and t not in self._twin), key=lambda t: (begun[t], t))
