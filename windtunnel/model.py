"""The protocol between an execution model and a world: jobs, views, events and actions.

An execution model is a pure state machine: events in, actions out. It knows no clock, thread, process or file; a *world*
carries its actions out (worker processes and a wall clock, or SimPy and a virtual one) and feeds it events.

A job is a tuple of stages. A *task* runs all operators of its stage on one unit of input:

* source stage (no inputs): one task a partition, numbered 0 … partitions - 1;
* ``forward`` input: one task a group of upstream blocks (bulk: a partition's blocks; streaming: as blocks come);
* ``partition`` input: one task a partition; it needs every block that upstream tasks emitted for that partition;
* ``broadcast`` input: every task gets all blocks of that upstream stage as a side input;
* a *recorded* stage has ``partitions`` tasks of known durations. Its inputs are ``whole`` (it begins when all tasks of that stage have
  ended; what its tasks read of it is part of their durations) or ``listed`` (task i reads the blocks of certain tasks of that stage,
  `StageInput.parts`, and may begin when these have ended). ``after`` names stages that must have ended although nothing is read from
  them, and ``delay_s`` is what the driver takes before the stage may begin.

A task emits blocks while it runs (`BlockReady`) and with its end (`TaskDone.blocks`). Tasks are deterministic: a repeated
attempt emits the same blocks in the same order, so that ``Launch.skip_blocks`` can leave out those that arrived already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from windtunnel.spec.plan import Concurrency, Resources, State

InputMode = Literal["forward", "partition", "broadcast", "whole", "listed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInput:
    """Consumes the output of stage ``stage``. ``parts``: of a ``listed`` input, the tasks there that each task here reads."""

    stage: int
    mode: InputMode
    parts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A chain of operators run inside one task.

    ``partitions``: number of tasks of a source or ``partition`` stage (None for a forward stage: it follows its input).
    ``output_partitions``: 0 = blocks are forwarded as they are; n = each block carries a partition 0 … n - 1.
    ``payload``: for the world only; models never look into it. ``recorded``, ``after``, ``delay_s``: see the module.
    """

    index: int
    name: str
    operators: tuple[str, ...]
    inputs: tuple[StageInput, ...]
    partitions: int | None
    output_partitions: int = 0
    resources: Resources = Resources()
    state: State = State()
    concurrency: Concurrency | None = None
    ordered: bool = False  # the final output keeps the order of its partitions
    recorded: bool = False
    after: tuple[int, ...] = ()
    delay_s: float = 0.0
    payload: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Stages in topological order. The blocks of those that nobody reads are the result: of the last one, unless stages are recorded."""

    stages: tuple[Stage, ...]

    @property
    def recorded(self) -> bool:
        """Whether its stages are recorded ones: all are, or none."""
        return self.stages[0].recorded

    @property
    def sinks(self) -> tuple[int, ...]:
        """Stages that nobody reads."""
        read = {i.stage for s in self.stages for i in s.inputs}
        return tuple(s.index for s in self.stages if s.index not in read)

    def consumers(self, stage: int) -> tuple[int, ...]:
        """Stages that read the output of ``stage``."""
        return tuple(s.index for s in self.stages if any(i.stage == stage for i in s.inputs))


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the engine sees it."""

    node: int
    cpus: float
    gpus: float
    memory_bytes: int
    custom: tuple[tuple[str, float], ...] = ()
    physical_bytes: int = 0  # memory of the machine, of which ``memory_bytes`` may be used


class View(Protocol):
    """What an engine could know. Never the truth about future durations."""

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """Nodes alive, by number."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes now in the object store (memory, all nodes)."""
        ...

    @property
    def store_limit_bytes(self) -> int:
        """Capacity of the object store (memory, all nodes)."""
        ...

    @property
    def volatile(self) -> bool:
        """Whether nodes may be lost, so that it pays to remember how blocks were made."""
        ...

    @property
    def waves(self) -> bool:
        """Whether this world understands a `Wave`."""
        ...

    @property
    def now(self) -> float:
        """Seconds since the start of the run, as the engine's driver would read them off a clock."""
        ...


# -- blocks and events ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Block:
    """An immutable piece of a stage's output. ``partition`` is 0 unless the stage partitions its output."""

    id: int
    stage: int
    partition: int
    task: int
    rows: int
    bytes: int
    node: int = 0
    on_disk: bool = False


@dataclass(slots=True)
class BlockReady:
    """A running task emitted a block early."""

    block: Block


@dataclass(slots=True)
class TaskDone:
    """A task ended; ``blocks`` are those it emitted last (those of earlier `BlockReady` events are not repeated)."""

    task: int
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class TaskFailed:
    """A task raised an error. Not ``retriable``: the user's kernel failed; the same would happen again."""

    task: int
    reason: str
    retriable: bool = False
    operator: str | None = None
    input_lost: bool = False  # not the task's fault: it does not count as an attempt


@dataclass(slots=True)
class WorkerJoined:
    """A worker is up and has loaded its state."""

    worker: int


@dataclass(slots=True)
class WorkerLost:
    """A worker died; its launched tasks are gone. What it had emitted is still there. ``for_memory``: it was killed to free memory."""

    worker: int
    for_memory: bool = False


@dataclass(slots=True)
class NodeLost:
    """A node is gone with its workers, whose tasks are gone too, and the blocks ``lost`` (ids) that lay on it.

    Tasks elsewhere whose inputs were on their way from it are reported one by one (`TaskFailed` with ``input_lost``).
    """

    node: int
    lost: tuple[int, ...] = ()


@dataclass(slots=True)
class NodeLeaving:
    """A node is given back in good order: it gets no task any more, ends those that it has, and its blocks stay readable."""

    node: int


@dataclass(slots=True)
class NodeJoined:
    """A node is there, new or again; nothing runs on it yet."""

    node: NodeView


@dataclass(slots=True)
class DeviceLost:
    """One device of a node is gone; a worker that used it is reported lost too."""

    node: int


@dataclass(slots=True)
class MemoryPressure:
    """The object store is full: ``stored_bytes`` of ``limit_bytes``."""

    stored_bytes: int
    limit_bytes: int


@dataclass(slots=True)
class Tick:
    """Time passed (for models that ask for it through ``tick_s``)."""


@dataclass(slots=True)
class Woken:
    """The time of a `Wake` has come."""

    key: int


@dataclass(slots=True)
class Persisted:
    """A `Persist` is done."""

    key: int


@dataclass(slots=True)
class WaveDone:
    """All tasks of a `Wave` ended.

    ``blocks``: what they emitted, by id, None for the last stage: nobody reads them; ``result``: their ids in the order of the
    tasks. ``idle``: each worker whenever it joined or ran out of tasks, in order. ``queues``: who waited at the end for a task, and
    for a second one, longest first; entries may be stale, as in the general protocol where nobody looked at them.
    """

    blocks: Sequence[Block] | None
    result: tuple[int, ...]
    idle: list[int]
    queues: tuple[list[int], list[int]]


@dataclass(slots=True)
class WaveRefused:
    """The world cannot carry out a `Wave` exactly; nothing of it has happened."""

    stage: int


Event = (
    BlockReady | TaskDone | TaskFailed | WorkerJoined | WorkerLost | NodeLost | NodeLeaving | NodeJoined | DeviceLost
    | MemoryPressure | Tick | Woken | Persisted | WaveDone | WaveRefused
)  # fmt: skip

# -- actions ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class StartWorker:
    """Start worker ``worker`` on ``node``; ``stage`` ≥ 0 dedicates it as an actor that loads the stage's state first."""

    worker: int
    node: int = 0
    stage: int = -1


@dataclass(slots=True)
class StopWorker:
    """Stop an idle worker."""

    worker: int


@dataclass(slots=True)
class Launch:
    """Send a task to a worker. A worker runs its tasks one at a time, in the order of their launches.

    ``blocks``: ids of its inputs (forward or partition mode; for a join, left blocks then right: ``split`` = number of left
    blocks). ``sides``: ids of each broadcast input, in the order of the stage's inputs. ``skip_blocks``: leave out the first
    n output blocks (they arrived already). ``again``: it makes anew what was made before and lost. ``gathers``: its inputs come with
    `Feed`, and it computes nothing before the last of them.
    """

    task: int
    stage: int
    partition: int
    worker: int
    attempt: int = 0
    blocks: tuple[int, ...] = ()
    split: int = 0
    sides: tuple[tuple[int, ...], ...] = ()
    skip_blocks: int = 0
    again: bool = False
    gathers: bool = False


@dataclass(slots=True)
class Cancel:
    """A worker drops task ``task`` that it runs, and is free; a task that has ended meanwhile stays so, and is reported.

    Only for models that run one task twice; the embedded ones do not, and the embedded world does not know it.
    """

    task: int
    worker: int


@dataclass(slots=True)
class Feed:
    """A task that ``gathers`` shall fetch ``blocks`` too. ``last``: these are all of its inputs, in order, and it may compute.

    Only for models that start tasks before their inputs are complete; the embedded world does not know it.
    """

    task: int
    worker: int
    blocks: tuple[int, ...]
    split: int = 0
    last: bool = False


@dataclass(slots=True)
class Wake:
    """Send a `Woken` after so many seconds. Only for models that wait on purpose."""

    key: int
    after_s: float


@dataclass(slots=True)
class Persist:
    """Move ``bytes`` of state from a node to durable storage outside the cluster, or ``back``, while tasks go on.

    The next event about it is `Persisted` with its ``key``. Only for models that take checkpoints; the embedded world does not know it.
    """

    key: int
    node: int
    bytes: int
    back: bool = False


@dataclass(slots=True)
class Wave:
    """Send all tasks of source stage ``stage``, in order, to the pool's workers: the same decisions as launch by launch.

    Tasks are numbered from ``first_task``. Whenever a worker joined or a task ended, tasks go to workers that have none, longest
    idle first; then, while more than ``plenty`` tasks wait to be sent, to workers with one, longest so first. Every worker can take
    a task of the stage at any time, and nothing else runs. A task that ends when all were sent begins a `Note` of a barrier.

    Only for worlds whose view says ``waves``. The next event is a `WaveDone` in place of the last `TaskDone`, or a `WaveRefused`.
    """

    stage: int
    first_task: int
    plenty: float


@dataclass(slots=True)
class Release:
    """Nobody needs these blocks any more."""

    blocks: tuple[int, ...]


@dataclass(slots=True)
class Note:
    """For the record only: an operator's tasks were held back (``blocked`` by backpressure or ``barrier``), or are again free."""

    kind: Literal["blocked", "barrier"]
    stage: int
    begin: bool


@dataclass(slots=True)
class Fail:
    """The run has failed."""

    reason: str
    operator: str | None = None
    partition: int | None = None


@dataclass(slots=True)
class Finish:
    """The run is complete; ``blocks`` are the result in order."""

    blocks: tuple[int, ...]


Action = StartWorker | StopWorker | Launch | Feed | Cancel | Wake | Persist | Wave | Release | Note | Fail | Finish


class ExecutionModel(Protocol):
    """Decisions of one engine. ``tick_s`` > 0 asks the world for a `Tick` that often."""

    tick_s: float

    def start(self, job: Job, view: View) -> list[Action]:
        """Begin the job. Workers that already run (persistent pool) are announced with `WorkerJoined` before any other event."""
        ...

    def on_event(self, event: Event, view: View) -> list[Action]:
        """React to one event."""
        ...
