"""A simulated world whose driver looks at what its workers say in rounds, as the scheduling loop of Ray Data's executor does.

A round begins when every running task has something to say, or ``round_s`` after the driver began to wait: Ray Data waits for all of its
tasks at once (`ray.wait` of all of them, for 0.1 s at most; ``process_completed_tasks`` in streaming_executor_state.py, Ray 2.10 to
2.60). In a round the driver first reads all that was said, then decides (a `Tick` for its model), then waits again. What is said while
nothing runs is read at once. Tasks that take a tenth of a second or some tenths therefore wait for the driver, and so does whoever
waits for their slot. Since Ray 2.60 a block's metadata comes from another thread (``ThreadedMetadataFetcher``): what a round reads is
acted on in the next one, ``metadata_s`` later at the earliest, and the task counts as running until then, with its end told.

A model may limit how many bytes of a stage's blocks a round reads (`ReadsInRounds`). Beyond that, blocks and ends stay unread: whoever
made them counts as running, and has something to say. A task's end is read behind its last block, so that with the limit reached it
waits too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from windtunnel.model import (
    Block,
    BlockReady,
    Event,
    ExecutionModel,
    Launch,
    NodeLost,
    TaskDone,
    TaskFailed,
    Tick,
    View,
    WorkerLost,
)
from windtunnel.sim.clock import Timer
from windtunnel.sim.world.world import SimWorld

MOMENT_S = 1e-3  # a driver without rounds that read nothing looks again after that


@runtime_checkable
class ReadsInRounds(Protocol):
    """A model whose driver reads in rounds, and limits what a round reads. ``in_rounds`` False: it takes messages one by one."""

    in_rounds: bool

    def readable(self, view: View) -> Sequence[float]:
        """Bytes of each stage's blocks."""
        ...


class Unread:
    """What the driver has not read of a task: blocks, oldest first, and its end."""

    __slots__ = ("blocks", "end", "service_s", "task")

    def __init__(self, task: int) -> None:
        self.task = task
        self.blocks: deque[Block] = deque()
        self.end: TaskDone | TaskFailed | None = None
        self.service_s = 0.0


class RoundsWorld(SimWorld):
    """`SimWorld` with another driver.

    ``_open``: tasks whose end it has not acted on, with their stage and worker; ``_news``: by stage, what it has not read of them;
    ``_read``: what waits for its metadata, and until when; ``_ended``: tasks whose end is among that.
    """

    def run(self, model: ExecutionModel) -> Sequence[Block]:
        """As `SimWorld` does."""
        self._open: dict[int, tuple[int, int]] = {}
        self._news: dict[int, dict[int, Unread]] = {}
        self._read: deque[tuple[float, Event]] = deque()
        self._ended: set[int] = set()
        self._round = 0  # serial number of the round that is due; timers of others are void
        self._due_s = math.inf
        return super().run(model)

    def _launch(self, launch: Launch) -> None:
        self._open[launch.task] = launch.stage, launch.worker
        super()._launch(launch)

    def _tick(self, timer: Timer) -> None:
        """Rounds go on while nothing happens; where nothing will, that is no life."""
        if not self._open and all(t.fire == self._look_round for _, t in self.clock.pending()):
            self._stalled()
        super()._tick(timer)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _send(self, event: Event, service_s: float) -> None:
        """A worker's message waits for the next round."""
        if isinstance(event, BlockReady):
            self._of(event.block.stage, event.block.task, service_s).blocks.append(event.block)
        elif isinstance(event, (TaskDone, TaskFailed)):
            unread = self._of(self._open.get(event.task, (0, -1))[0], event.task, service_s)
            unread.end = event
            if isinstance(event, TaskDone):
                unread.blocks += event.blocks
        else:
            self._inbox.append((service_s, event))
        self._await()

    def _of(self, stage: int, task: int, service_s: float) -> Unread:
        news = self._news.setdefault(stage, {})
        if task not in news:
            news[task] = Unread(task)
        news[task].service_s += service_s
        return news[task]

    def _await(self, vain: bool = False) -> None:
        """Arm a timer for the next round, unless it is due no later than that; ``vain``: the last one came to nothing."""
        now, free, cost = self.clock.now, self._driver_free_s, self._cost
        if not cost.round_s:
            due = max(now, free) + (max(cost.metadata_s, cost.loop_s, MOMENT_S) if vain else 0.0)
        elif vain:
            due = max(now, free) + cost.round_s
        elif sum(len(n) for n in self._news.values()) + len(self._ended) >= len(self._open):
            due = max(now, free)
            if self._read and not self._inbox and not self._news:
                due = max(due, self._read[0][0])
        else:  # it has begun to wait when it was free, and again whenever it had waited in vain
            period = cost.round_s + cost.loop_s
            due = free + period * max(1, math.ceil((now - free + cost.loop_s) / period)) - cost.loop_s
        if due < self._due_s:
            self._due_s = due
            self._round += 1
            Timer(self.clock, self._look_round, serial=self._round).arm(due - now)

    # -- a round -----------------------------------------------------------------------------------------------------

    def _look_round(self, timer: Timer) -> None:
        """What was said is read, as far as the model lets it; then the model decides, and its tasks are sent one by one."""
        if timer.serial != self._round:
            return
        now, delay = self.clock.now, self._cost.metadata_s
        self._due_s = math.inf
        self._driver_idle_s += max(now - self._driver_free_s, 0.0)
        self._driver_free_s = max(now, self._driver_free_s) + self._cost.loop_s
        said = [event for _, event in self._inbox]
        self._inbox.clear()
        losses = any(isinstance(event, (NodeLost, WorkerLost)) for event in said)
        read = self._read_some(math.inf if losses else 0.0)
        if losses:  # what was done before is no part of them
            said = [*(event for _, event in self._read), *read, *said]
            self._read.clear()
            read = []
        elif delay:
            while self._read and self._read[0][0] <= now:
                said.append(self._read.popleft()[1])
            self._read += [(now + delay, event) for event in read]
            self._ended |= {e.task for e in read if isinstance(e, (TaskDone, TaskFailed))}
        else:
            said += read
        for event in said:
            if isinstance(event, (TaskDone, TaskFailed)):
                self._open.pop(event.task, None)
                self._ended.discard(event.task)
            elif isinstance(event, (NodeLost, WorkerLost)):
                self._open = {task: held for task, held in self._open.items() if held[1] in self._workers}
            self._say(event)
        self._say(Tick())
        if self._read or self._news:
            self._await(vain=not said and not read)

    def _read_some(self, least: float = 0.0) -> list[Event]:
        """Blocks and ends by stage and task, while a stage's limit lasts, or ``least`` bytes; the last block that is read may pass it."""
        limits = self._model.readable(self) if isinstance(self._model, ReadsInRounds) else None
        found: list[Event] = []
        for stage in sorted(self._news):
            left = math.inf if limits is None else max(limits[stage], least)
            for task in sorted(news := self._news[stage]):
                unread = news[task]
                while unread.blocks and left > 0:
                    block = unread.blocks.popleft()
                    left -= block.bytes
                    found.append(BlockReady(block))
                if unread.blocks or left <= 0:
                    continue
                self._driver_free_s += unread.service_s
                if unread.end is not None:
                    found.append(TaskDone(task) if isinstance(unread.end, TaskDone) else unread.end)
                del news[task]
            if not news:
                del self._news[stage]
        return found

    def _say(self, event: Event) -> None:
        if self._result is None and self._failure is None:
            self._obey(self._model.on_event(event, self))


def world_of(model: ExecutionModel) -> type[SimWorld]:
    """The world whose driver listens as the model's does."""
    return RoundsWorld if isinstance(model, ReadsInRounds) and model.in_rounds else SimWorld
