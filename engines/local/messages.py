"""What the driver and its workers say to each other over their pipes (pickled: both ends are our own processes)."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.engines import physical
from windtunnel.engines.local.store import BlockInfo

SpanRow = tuple[str, str, float, float, int, int]  # kind, operator, start, end (perf_counter), rows, bytes


@dataclass(slots=True)
class JobMessage:
    """The programs of all stages and where output goes; ``actor_load_s`` is negative for stateless stages.

    ``actor_bytes``: declared state that an actor holds in this machine's memory.
    """

    programs: tuple[physical.Program, ...]
    block_bytes: int
    output: str
    actor_load_s: tuple[float, ...]
    actor_bytes: tuple[int, ...] = ()


@dataclass(slots=True)
class TaskMessage:
    """One task; ``blocks`` and ``sides`` are paths."""

    task: int
    stage: int
    partition: int
    blocks: tuple[str, ...]
    split: int
    sides: tuple[tuple[str, ...], ...]
    skip: int


@dataclass(slots=True)
class LoadMessage:
    """Become the actor of a stage."""

    stage: int


@dataclass(slots=True)
class EndMessage:
    """The job is over: drop its state."""


@dataclass(slots=True)
class Reply:
    """Worker → driver. ``kind``: joined, block, done, failed."""

    kind: str
    task: int = -1
    blocks: tuple[BlockInfo, ...] = ()
    spans: tuple[SpanRow, ...] = ()
    operator: str = ""
    reason: str = ""
    load_s: float = 0.0
