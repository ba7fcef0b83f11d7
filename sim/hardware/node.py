"""A simulated machine: its memory and object store, and what its tasks share (processors, disk, page cache, a remote store)."""

from __future__ import annotations

from typing import Any

from windtunnel.sim.clock import Clock
from windtunnel.sim.costs.measured import EngineCost
from windtunnel.sim.hardware.cpu import CoRun, Shared, cpu_rate, is_flat
from windtunnel.sim.hardware.disk import Disk, divided
from windtunnel.sim.hardware.memory import Memory
from windtunnel.sim.hardware.pages import PageCache
from windtunnel.sim.hardware.store import ObjectStore
from windtunnel.spec.cluster import NodeSpec


class Node:
    """A simulated machine. ``flat_law``: tasks on CPUs of their own do not slow each other down.

    What its tasks may share is made when the first one does: of very many nodes most share nothing.
    """

    __slots__ = (
        "_clock",
        "_corun",
        "_cost",
        "_cpu",
        "_disk",
        "_log",
        "_pages",
        "_remote",
        "_rows",
        "alive",
        "cached",
        "cpus",
        "doomed",
        "flat_law",
        "index",
        "memory",
        "paused",
        "remote_bytes_per_s",
        "slow",
        "spec",
        "store",
        "weight",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        index: int,
        spec: NodeSpec,
        store_limit: int,
        cost: EngineCost,
        remote_bytes_per_s: float | None = None,
    ) -> None:
        self._clock, self._cost = clock, cost
        self.index = index
        self.spec = spec
        self.cpus = spec.cpus
        self.memory = Memory(index, spec.usable_memory_bytes, clock)
        self.store = ObjectStore(store_limit, self.memory)
        self.remote_bytes_per_s = min(spec.nic_bytes_per_s, remote_bytes_per_s or spec.nic_bytes_per_s)
        self.slow = 1.0  # a straggler takes so many times as long
        self.alive = True
        self.doomed = False  # its worker is about to be killed, for its memory
        self.paused: list[Any] = []  # those that begin nothing for want of memory
        self.flat_law = is_flat(cost.slowdown)
        self.weight = 0.0  # CPUs that its workers keep busy when all of them run
        self.cached: set[int] = set()  # broadcast blocks that are here already
        self._cpu: Shared | None = None
        self._corun: CoRun | None = None
        self._disk: Disk | None = None
        self._pages: PageCache | None = None
        self._remote: Shared | None = None
        self._log: list[float] = []
        self._rows = (0, 0, 0, 0)

    def watch(self, log: list[float], rows: tuple[int, int, int, int]) -> None:
        """What is shared here appends its use to a `Meter`'s log: rows of CPUs, reads, writes and the remote store."""
        self._log, self._rows = log, rows

    @property
    def cpu(self) -> Shared:
        """CPUs that more tasks share than there are."""
        if self._cpu is None:
            self._cpu = Shared(self._clock, cpu_rate(float(self.spec.cpus)))
            self._cpu.watch(self._log, self._rows[0])
        return self._cpu

    @property
    def corun(self) -> CoRun:
        """CPUs whose tasks slow each other down."""
        if self._corun is None:
            self._corun = CoRun(self._clock, float(self.spec.cpus), self._cost.slowdown)
            self._corun.watch(self._log, self._rows[0])
        return self._corun

    @property
    def disk(self) -> Disk:
        """Its disk."""
        if self._disk is None:
            self._disk = Disk(self._clock, self.spec.disk)
            self._disk.watch(self._log, self._rows[1], self._rows[2])
        return self._disk

    @property
    def disk_peak(self) -> int:
        """The most bytes that lay on its disk."""
        return 0 if self._disk is None else self._disk.peak

    @property
    def pages(self) -> PageCache:
        """The page cache before its disk."""
        if self._pages is None:
            self._pages = PageCache(self.disk, self.memory, self.spec.memory_bytes)
        return self._pages

    @property
    def remote(self) -> Shared:
        """What the node may read from a remote store."""
        if self._remote is None:
            self._remote = Shared(self._clock, divided(self.remote_bytes_per_s))
            self._remote.watch(self._log, self._rows[3])
        return self._remote
