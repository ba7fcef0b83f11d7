"""How much of something was in use over time: amounts spread over stretches of time, kept as time-weighted averages of buckets.

There are always the same number of buckets; when time goes beyond the last one, neighbours are put together and all become twice
as wide. So the memory is bounded, and averages are exact whatever the order in which stretches come. The loops of the world only
append numbers to a list; arrays do the rest, some thousand stretches at a time. The module knows rows, not resources.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BUCKETS = 200  # at most; at least half of them lie within a run
_SHORT = 1e-3  # a stretch of less than this share of a bucket is a point: its level would be lost in rounding

Numbers = np.ndarray[Any, np.dtype[Any]]


class Meter:
    """Averages of ``rows`` levels. ``totals``: sums of all amounts by row, once `flush` was called.

    ``log`` takes stretches as four numbers each: row, start and end in seconds from 0, amount.
    """

    __slots__ = ("_count", "_mass", "_moment", "_step", "log", "totals", "width_s")

    def __init__(self, rows: int) -> None:
        self.log: list[float] = []
        self.width_s = 2.0**-10
        self._count = rows
        #: by row and bucket: sum of steps, of steps × time since the bucket's start, of amounts at points
        self._step, self._moment, self._mass = (np.zeros((rows, BUCKETS)) for _ in range(3))
        self.totals = np.zeros(rows)

    def flush(self) -> None:
        """Take in what was appended to the log."""
        if self.log:
            row, start, end, amount = np.fromiter(self.log, np.float64, len(self.log)).reshape(-1, 4).T
            self.log.clear()
            self.spread(row.astype(np.int64), start, end, amount)

    def spread(self, row: Numbers, start: Numbers, end: Numbers, amount: Numbers) -> None:
        """Spread each amount evenly over its stretch."""
        self._reach(float(end.max()))
        self.totals += np.bincount(row, amount, self._count)
        length = end - start
        short = length < _SHORT * self.width_s
        if short.any():
            self._add(self._mass, row[short], self._bucket(start[short]), amount[short])
            if short.all():
                return
            keep = ~short
            row, start, end, amount, length = row[keep], start[keep], end[keep], amount[keep], length[keep]
        level = amount / length
        self._change(row, start, level)
        self._change(row, end, -level)

    def _change(self, row: Numbers, time: Numbers, by: Numbers) -> None:
        """Raise levels from a time on."""
        bucket = self._bucket(time)
        self._add(self._step, row, bucket, by)
        self._add(self._moment, row, bucket, by * (time - bucket * self.width_s))

    def _bucket(self, time: Numbers) -> Numbers:
        found: Numbers = (time / self.width_s).astype(np.int64)
        return found

    def _add(self, table: Numbers, row: Numbers, bucket: Numbers, values: Numbers) -> None:
        table += np.bincount(row * BUCKETS + bucket, values, self._count * BUCKETS).reshape(table.shape)

    def _reach(self, time_s: float) -> None:
        """Make buckets wider until ``time_s`` lies in one of them."""
        while time_s >= BUCKETS * self.width_s:
            half = BUCKETS // 2
            self._moment[:, :half] = (
                self._moment[:, ::2] + self._moment[:, 1::2] + self._step[:, 1::2] * self.width_s
            )  # a step in the second of two lies a bucket later in the wider one
            self._moment[:, half:] = 0.0
            for table in (self._step, self._mass):
                table[:, :half] = table[:, ::2] + table[:, 1::2]
                table[:, half:] = 0.0
            self.width_s *= 2

    def averages(self, end_s: float) -> tuple[Numbers, Numbers]:
        """(starts of the buckets up to ``end_s``, averages by row and bucket). The last bucket ends at ``end_s``."""
        self.flush()
        self._reach(end_s)
        width, count = self.width_s, max(1, int(np.ceil(end_s / self.width_s)))
        after = np.cumsum(self._step, axis=1)
        amounts = after * width - self._moment + self._mass
        starts = np.arange(count) * width
        lengths = np.full(count, width)
        if end_s > 0:
            amounts[:, count - 1] -= after[:, count - 1] * (count * width - end_s)
            lengths[-1] = end_s - starts[-1]
        return starts, np.maximum(amounts[:, :count] / lengths, 0.0)
