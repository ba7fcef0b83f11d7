"""Flink's checkpoints: what has to be done again after a failure, and the state that is written to durable storage meanwhile.

The rules (Flink 2.0 docs, "Checkpointing" and "Checkpoints"; CheckpointCoordinator): every ``execution.checkpointing.interval`` all
subtasks snapshot their state and write it while they go on (asynchronous snapshots); one checkpoint at a time
(``max-concurrent-checkpoints`` 1), each at least ``min-pause`` after the end of the one before. It counts when all of it is
written; a failure before that loses it. A restart reads the last one back before anything runs.

Left out: the time that barriers take to pass (aligned ones wait behind queued records) and the synchronous part of a snapshot. A
checkpoint that could not begin in time begins at the next tick.
"""

from __future__ import annotations

import math

from windtunnel.model import Action, Persist


class Checkpoints:
    """Which ended tasks no checkpoint covers. ``tick_s``: how often `tick` must be called (0: no checkpoints)."""

    def __init__(self, interval_s: float, min_pause_s: float, state_bytes: int) -> None:
        self._ticks = math.ceil(interval_s / min_pause_s - 1e-9) if 0 < min_pause_s < interval_s else 1  # an interval
        self.tick_s = interval_s / self._ticks
        self._pause_ticks = math.ceil(min_pause_s / self.tick_s - 1e-9) if interval_s else 0
        self._state_bytes = state_bytes
        self._now = 0
        self._begun = 0
        self._ended = -1
        self._written = False  # whether there is one to go back to
        self._key = 0
        self._open: set[int] = set()  # moves of state under way
        self.restoring = False
        self.after: list[int] = []  # tasks that ended after the last checkpoint began
        self._covered: list[int] = []  # those before it, while it is being written

    def tick(self, nodes: tuple[int, ...]) -> list[Action]:
        """Begin a checkpoint if one is due; ``nodes`` hold equal parts of the state."""
        self._now += 1
        rested = self._ended < 0 or self._now - self._ended > self._pause_ticks
        if self._open or self._now - self._begun < self._ticks or not rested:
            return []
        self._begun = self._now
        self._covered, self.after = self.after, []
        actions = self._move(nodes, back=False)
        if not actions:
            self._complete()
        return actions

    def _move(self, nodes: tuple[int, ...], back: bool) -> list[Action]:
        share = self._state_bytes // max(len(nodes), 1)
        actions: list[Action] = []
        for node in nodes if share else ():
            self._key += 1
            self._open.add(self._key)
            actions.append(Persist(self._key, node, share, back))
        return actions

    def _complete(self) -> None:
        self._covered = []
        self._written, self._ended = True, self._now

    def persisted(self, key: int) -> None:
        """A part of the state is where it should be; what was given up meanwhile counts for nothing."""
        if key not in self._open:
            return
        self._open.discard(key)
        if self._open:
            return
        if self.restoring:
            self.restoring = False
        else:
            self._complete()

    def since(self) -> list[int]:
        """What a restart must do again: tasks that no complete checkpoint covers. They are done with by this."""
        lost = self._covered + self.after
        self._covered, self.after = [], []
        return lost

    def restore(self, nodes: tuple[int, ...]) -> list[Action]:
        """A failure: give up the checkpoint under way and read the last complete one."""
        self._open.clear()
        actions = self._move(nodes, back=True) if self._written else []
        self.restoring = bool(actions)
        return actions
