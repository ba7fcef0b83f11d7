"""Hadoop's slow start: how many reducers may hold a slot while maps still run, and what they were told of the maps' outputs.

The rules (Hadoop 3.4, RMContainerAllocator.scheduleReduces and mapred-default.xml): no reducer before
``mapreduce.job.reduce.slowstart.completedmaps`` (0.05) of the maps have ended. Then reducers may take the share of the slots that the
share of ended maps is, at most ``yarn.app.mapreduce.am.job.reduce.rampup.limit`` (0.5), and what the maps left do not need; all of
them once every map has its slot. A running reducer asks for ended maps every second (EventFetcher). Reducers are pre-empted for a map
that finds no slot, as when outputs were lost with a node.

Bookkeeping and arithmetic only; when to do what is `mapreduce`'s business.
"""

from __future__ import annotations

import math
from collections import deque

from windtunnel.engines.models.ledger import Task
from windtunnel.model import Stage

RAMP_UP = 0.5  # yarn.app.mapreduce.am.job.reduce.rampup.limit
POLL_S = 1.0  # EventFetcher.SLEEP_TIME


def most_reducers(slots: float, ended: float, needed: float, unsent: int) -> float:
    """CPUs that reducers may hold, of ``slots``; ``ended``: share of the maps; those left need ``needed``, ``unsent`` have no slot yet."""
    if not unsent:
        return math.inf
    ideal = slots * min(ended, RAMP_UP)
    return ideal + max(slots - ideal - needed, 0.0)


class Early:
    """The reducers of one stage before it begins.

    ``gathering``: those that hold a slot, in the order of their start, and how many blocks each was told; ``waiting``: the others;
    ``pieces``: blocks by partition, as far as they were ``seen`` in the outputs of each source.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.sources = tuple(dict.fromkeys(i.stage for i in stage.inputs))
        self.begun = False
        self.tasks: list[Task] = []
        self.waiting: deque[Task] = deque()
        self.gathering: dict[int, int] = {}
        self.pieces: dict[int, list[int]] = {}
        self.seen = dict.fromkeys(self.sources, 0)

    def due(self, share: float, total: int, ended: int) -> bool:
        """Whether reducers may begin when ``ended`` of ``total`` maps have."""
        return ended >= math.ceil(share * total - 1e-9) and ended < total
