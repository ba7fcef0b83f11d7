"""A node's memory in bytes: object store, working memory, actor state. Owns the limit; when it breaks, the run is out of memory,
or whoever watches it sees to it."""

from __future__ import annotations

from collections.abc import Callable

from windtunnel.errors import OutOfMemory
from windtunnel.sim.clock import Clock
from windtunnel.spec.units import format_bytes


class Memory:
    """``used`` counts everything on the node; ``peak`` its maximum, reached at ``peak_s``.

    ``watcher`` is told the node when the limit is passed; it returns whether it took care of that.
    """

    __slots__ = ("_clock", "_highest", "limit", "node", "peak", "peak_s", "used", "watcher")

    def __init__(self, node: int, limit: int, clock: Clock) -> None:
        self.node = node
        self._clock = clock
        self.peak_s = 0.0
        self._highest = (0, 0.0)  # peak and its time, of those that were forgotten
        self.limit = limit
        self.used = self.peak = 0
        self.watcher: Callable[[int], bool] | None = None

    def take(self, size: int, what: str) -> None:
        """Occupy ``size`` bytes; OutOfMemory when the node has less."""
        self.used += size
        if self.used > self.peak:
            self.higher(what)

    def higher(self, what: str) -> None:
        """More is used than ever before, for ``what``."""
        self.peak = self.used
        self.peak_s = self._clock.now
        if self.used <= self.limit:
            return
        if self.watcher is not None and self.watcher(self.node):
            return
        raise OutOfMemory(
            f"node {self.node} ran out of memory: {what} brings it to {format_bytes(self.used)}, above its limit of "
            f"{format_bytes(self.limit)}; give it more memory, a smaller object store, or run fewer tasks at once"
        )

    def look_out(self) -> None:
        """Tell the watcher again when the limit is passed next; the peak is kept in `highest`."""
        self._highest = self.highest
        self.peak = min(self.peak, self.limit)

    @property
    def highest(self) -> tuple[int, float]:
        """The most bytes that were ever used, and when."""
        return max(self._highest, (self.peak, self.peak_s), key=lambda entry: entry[0])

    def give(self, size: int) -> None:
        """Free ``size`` bytes."""
        self.used -= size
        assert self.used >= 0, "more memory freed than taken"
