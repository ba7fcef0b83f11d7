"""Values over time, kept as samples whose number stays bounded."""

from __future__ import annotations


class SampledValue:
    """Samples of a value over time, thinned as they become many: at most 4,096 stay."""

    __slots__ = ("_gap", "next_s", "points")

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._gap = 0.0
        self.next_s = 0.0  # samples before this time are left out

    def copy(self) -> SampledValue:
        """One that goes on from here by itself."""
        other = SampledValue()
        other.points, other._gap, other.next_s = list(self.points), self._gap, self.next_s
        return other

    def note(self, time_s: float, value: float) -> None:
        """The value has changed."""
        if time_s < self.next_s:
            return
        if self.points and self.points[-1][0] == time_s:
            self.points[-1] = (time_s, value)
            return
        self.points.append((time_s, value))
        if len(self.points) >= 4096:
            self.points = self.points[::2]
            self._gap = max(2 * self._gap, time_s / 2048)
        self.next_s = time_s + self._gap
