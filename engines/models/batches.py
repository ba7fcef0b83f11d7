"""What a replica does with the calls that it has: which it executes together and when, which it skips. Pure, for both worlds.

A replica executes one batch after another. A batch is closed when the replica is free and the batch is full or its oldest call has
waited for ``wait``; while one is executed, the next one grows. That is the rule of Triton's dynamic batcher ("When a model instance
becomes available"; max_queue_delay_microseconds counts from the oldest) and of TorchServe's (maxBatchDelay).

Ray Serve's (``serve/batching.py``, 2.60: `_BatchQueue.wait_for_batch`) counts ``batch_wait_timeout_s`` from when it takes the
first call. A handler that blocks its event loop, as one that computes does, keeps it from looking: then the wait begins when the
execution ends (``from_rest``), and a batch that is not full costs its whole wait each time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

from windtunnel.spec.serving import BatchSpec

Key = TypeVar("Key")
_ROUNDING_S = 1e-9  # of sums of times


class Gatherer(Generic[Key]):
    """Calls of one replica that have not begun, oldest first. ``late`` fills with those whose deadline had passed at their turn."""

    def __init__(self, batch: BatchSpec, from_rest: bool = False) -> None:
        self._most, self._wait_s, self._from_rest = batch.max_size, batch.wait_s, from_rest
        self._waiting: deque[tuple[Key, float, float]] = deque()  # with its deadline, and when it came
        self._rested_s = -math.inf  # end of the last execution
        self.executing = False
        self.late: list[Key] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, key: Key, deadline_s: float, now: float) -> list[Key]:
        """`add` and `next` at once, for a replica that is free."""
        if self._most == 1 and not self._waiting and not self.executing and now <= deadline_s:
            self.executing = True
            return [key]
        self._waiting.append((key, deadline_s, now))
        return self.next(now)

    def left(self) -> list[Key]:
        """Calls that have not begun, oldest first."""
        return [key for key, _, _ in self._waiting]

    def add(self, key: Key, deadline_s: float, now: float) -> None:
        """A call has come."""
        self._waiting.append((key, deadline_s, now))

    def drop(self, key: Key) -> bool:
        """Nobody waits for a call; True when it had not begun, and never will."""
        for one in self._waiting:
            if one[0] is key:
                self._waiting.remove(one)
                return True
        return False

    def due_s(self) -> float:
        """When `next` must be asked again if nothing else happens; infinity: not before a call comes or the execution ends."""
        if self.executing or not self._waiting:
            return math.inf
        since_s = self._waiting[0][2]
        if self._from_rest and since_s < self._rested_s:
            since_s = self._rested_s
        return since_s + self._wait_s

    def next(self, now: float) -> list[Key]:
        """The batch to execute now; empty: none, as yet. Whoever takes one says `ended` when it is done."""
        waiting, most = self._waiting, self._most
        batch: list[Key] = []
        if not waiting:
            return batch
        while waiting and not self.executing and (len(waiting) >= most or now >= self.due_s() - _ROUNDING_S):
            for _ in range(min(most, len(waiting))):
                key, deadline_s, _came_s = waiting.popleft()
                (batch if now <= deadline_s + _ROUNDING_S else self.late).append(key)
            self.executing = bool(batch)
        return batch

    def ended(self, now: float) -> None:
        """The batch that was executed is done."""
        self.executing = False
        self._rested_s = now
