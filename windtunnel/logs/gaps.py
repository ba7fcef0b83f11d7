"""Time that no task explains: how long a group of tasks was held back although a slot was free for it. Pure arithmetic on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windtunnel.spec.jobgraph import Array, Machine


def held_back(start: Array, end: Array, machines: Sequence[Machine], ready: Array, begun: Array) -> Array:
    """Seconds that each group waited between ``ready`` and the start of its first task (``begun``) while a slot was free.

    ``start`` and ``end`` are those of all tasks. What passes while every slot is taken is not counted: whoever replays the job sees it
    again. A slot counts as free from the last moment at which all were taken.
    """
    start, end = np.sort(start), np.sort(end)
    joined = np.sort([m.joined_s for m in machines for _ in range(m.slots)])
    left = np.sort([m.left_s for m in machines if m.left_s is not None for _ in range(m.slots)])
    changes = np.unique(np.concatenate([end, joined]))
    busy = np.searchsorted(start, changes, "left") - np.searchsorted(end, changes, "left")
    there = np.searchsorted(joined, changes, "left") - np.searchsorted(left, changes, "left")
    freed = np.concatenate([[-np.inf], changes[busy >= there]])
    since = np.maximum(ready, freed[np.searchsorted(freed, begun, "right") - 1])
    return np.asarray(np.maximum(begun - since, 0.0))


def most_at_once(start: Array, end: Array) -> int:
    """The most tasks that ran at one time; an end and a beginning at one moment do not overlap."""
    start, end = np.sort(start), np.sort(end)
    running = np.arange(1, len(start) + 1) - np.searchsorted(end, start, "right")
    return max(1, int(running.max(initial=1)))


def idle_spans(start: Array, end: Array, least_s: float) -> list[tuple[float, float]]:
    """Spans of at least ``least_s`` seconds, between the first start and the last end, in which no task ran."""
    order = np.argsort(start, kind="stable")
    begins, reached = start[order][1:], np.maximum.accumulate(end[order])[:-1]
    idle = begins - reached >= least_s
    return list(zip(reached[idle].tolist(), begins[idle].tolist(), strict=True))
