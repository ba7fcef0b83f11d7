"""How an engine carries out what its model decides, as data: what the simulated world must know beyond the decisions.

A `Constant` is a number of the engine with its source; those that were fitted name the published cells they were fitted to. A
constant belongs to a mechanism, never to a cell. The docs table of constants is made from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: fields of `windtunnel.sim.costs.measured.EngineCost`; the others are documented there too
Overheads = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """``name`` is a field of `EngineCost`, ``value`` in its unit. ``fitted``: the published cells used, if it was fitted."""

    name: str
    value: float
    source: str
    fitted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Mechanisms of an engine.

    ``outputs``: where a stage's blocks lie until they are read: the shared-memory object store, or files on local disks.
    ``store_fraction``: share of a node's usable memory that the object store takes unless it is set.
    ``generator``: a task's output leaves it block by block, so that it holds one block at a time.
    ``overlap``: later inputs are fetched while earlier ones are processed.
    ``prefetch``: a queued task's inputs are fetched while its worker is busy.
    ``page_cache``: files are written and read through the node's free memory.
    ``pause``, ``terminate``: shares of a node's usable memory above which no further task begins there, and above which its worker
    is killed, which takes the results that it keeps with it (0: never; then a node that runs out of memory ends the run).
    ``kill``: share of a node's usable memory above which a monitor kills the worker that began its task last (0: never).
    ``replication``: copies of the final output, all but the first over the network.
    ``jvm_bridge``: rows of Python operators cross from the JVM and back, a way that a calibration of the host measures.
    ``concatenate``: a shuffle to at most so many partitions writes a file each first, and then puts them together.
    """

    constants: tuple[Constant, ...] = ()
    outputs: str = "store"
    store_fraction: float = 0.3
    generator: bool = False
    overlap: bool = False
    prefetch: bool = False
    page_cache: bool = False
    pause: float = 0.0
    terminate: float = 0.0
    kill: float = 0.0
    replication: int = 1
    jvm_bridge: bool = False
    concatenate: int = 0

    def overheads(self) -> Overheads:
        """The constants by name."""
        return {c.name: c.value for c in self.constants}


#: of the embedded engines: a block beyond the shared-memory store is a file
EMBEDDED = Traits(page_cache=True)
