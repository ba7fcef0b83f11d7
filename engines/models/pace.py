"""Admission: how long a new call would take, learned from what calls took, and whether that is in time. Pure, for both worlds.

An execution of a replica takes S seconds (from the begin of a call's own work to its end) and serves W calls: as many as fit into a
batch, or into the running batch of a language model. While a queue has work for it, R replicas end R ÷ S executions a second, so a
call waits about S ÷ R for each W calls before it. A replica that is free, or waits for its batch to fill, is not slow: only executions
are timed. Where calls hold their place beyond their own work (H seconds, until what they call is done) and few places are given (P a
replica), a place is free every H ÷ (R P) seconds; the longer of the two waits counts.
"""

from __future__ import annotations

import math

#: what is expected of the wait, of which nobody knows the mean exactly (200 answers of cv 1 tell it to a fifth, at three deviations)
MARGIN = 1.25
STALL_S = 1.0  # kept free for stalls that nobody foresees; half of the time left at most
_QUICK, _SLOW, _DEVIATIONS = 0.05, 0.005, 3.0


class Mean:
    """A mean in which each value weighs a twentieth, and one in which it weighs a 200th (until there were so many, all weigh the same).

    The longer one counts: what became slower is believed at once, what became faster late. One quick mean would not do: under
    overload somebody asks at any moment, those would be let in who come while it happens to be small, and the queue would grow to what its
    smallest value allows.
    """

    __slots__ = ("_count", "_quick", "_slow", "_variance")

    def __init__(self) -> None:
        self._count = 0
        self._quick = self._slow = self._variance = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self._count += 1
        off, weight = value - self._slow, max(_SLOW, 1.0 / self._count)
        self._quick += (value - self._quick) * max(_QUICK, weight)
        self._slow += off * weight
        self._variance += (off * off * (1.0 - weight) - self._variance) * weight

    @property
    def longest(self) -> float:
        """The longer of both; 0 before the first value."""
        return max(self._quick, self._slow)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(self._variance)


class Pace:
    """Of one deployment. ``width``: calls that one execution serves; ``joins``: a call joins a running execution where it is not full
    (continuous batching); ``places``: calls that a replica may hold; ``memory``: tokens that it holds, None = no limit."""

    __slots__ = ("_held", "_joins", "_memory", "_places", "_tokens", "_width", "_works")

    def __init__(self, width: int, places: int, joins: bool = False, memory: int | None = None) -> None:
        self._width, self._places, self._joins, self._memory = min(width, places), places, joins, memory
        self._works, self._held, self._tokens = Mean(), Mean(), Mean()

    def came(self, tokens: int) -> None:
        """A call of so many tokens, where memory for them is what limits."""
        if self._memory is not None:
            self._tokens.add(float(tokens))

    def worked(self, seconds: float) -> None:
        """The own work of a call took so long, from its begin; calls of one batch say the same."""
        self._works.add(seconds)

    def left(self, seconds: float) -> None:
        """A call gave its place back so long after its work began."""
        self._held.add(seconds)

    def _side_by_side(self) -> float:
        """Calls that one execution serves."""
        if self._memory is None or not self._tokens.longest:
            return float(self._width)
        return max(1.0, min(float(self._width), self._memory / self._tokens.longest))

    def takes_s(self, ahead: int, replicas: int, inside: int) -> float:
        """Until the answer, at most, of a call behind ``ahead`` whose own work is not done, and ``inside`` that hold or want a place.

        0 where it would begin at once, or nothing is known.
        """
        replicas = max(1, replicas)
        width = self._side_by_side()
        works, held = self._works.longest, self._held.longest
        if self._joins:
            rounds = max(0.0, ahead - replicas * width + 1) / (replicas * width)
        else:
            rounds = 0.0 if ahead < replicas else math.ceil(ahead / width) / replicas
        wait_s = rounds * works
        places = max(0, inside - replicas * self._places + 1) / (replicas * self._places)
        wait_s = max(wait_s, places * held)
        if not wait_s:
            return 0.0
        return works + MARGIN * wait_s + _DEVIATIONS * math.sqrt(max(rounds, 1.0)) * self._works.deviation

    def in_time(self, ahead: int, replicas: int, inside: int, left_s: float) -> bool:
        """Whether to let in a call that has so much time left."""
        takes_s = self.takes_s(ahead, replicas, inside)
        return takes_s == 0.0 or takes_s <= left_s - min(0.5 * left_s, STALL_S)
