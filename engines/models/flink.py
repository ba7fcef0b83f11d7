"""Flink: every operator deployed at once with a fixed parallelism, records flow through bounded network buffers.

What the model knows, with its source (Flink 2.0 docs: "Network memory tuning", "Task slots and resources", "Python configuration"):

* Each operator runs as ``parallelism`` subtasks from the beginning to the end; subtasks of different operators share CPUs
  (slot sharing), so that more busy subtasks than CPUs slow each other down.
* Between two operators lie 2 exclusive buffers a channel and 8 floating ones a gate, of 32 KiB; a record that does not fit keeps
  its sender waiting (credit-based flow control). So a receiver has at most one record larger than that waiting.
* Python operators exchange bundles with a Python process (``python.fn-execution.bundle.size`` 100,000 rows, Arrow batches 10,000).
* Neighbours joined by a forward edge are chained into one subtask (``pipeline.operator-chaining.enabled`` true; Python operators too,
  ``python.operator-chaining.enabled`` true), if their parallelism is equal and they share a slot (StreamingJobGraphGenerator.isChainable):
  operators that ask for different resources are in slot sharing groups of their own. One with a state to load begins a chain here.
* Checkpoints and what a failure costs: `windtunnel.engines.models.checkpoints`. Without them nothing is restarted
  (``restart-strategy.type`` is ``disable`` then); the pause before a restart (exponential delay from 1 s) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from windtunnel.engines.api import Option
from windtunnel.engines.models.checkpoints import Checkpoints
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.errors import InputError, nearest
from windtunnel.model import Action, Event, Fail, Job, NodeLost, Persisted, Stage, TaskDone, Tick, View, WorkerLost
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Concurrency, Resources, State
from windtunnel.spec.units import parse_bytes, parse_size

BUFFER_BYTES = 32 * 1024
EXCLUSIVE, FLOATING = 2, 8

TRAITS = Traits(
    generator=True,
    constants=(
        Constant(name="startup_s", value=5.0, source="job submission, slots and the Python harness"),
        Constant(name="launch_s", value=20e-6, source="records move without a central scheduler: only bookkeeping"),
        Constant(name="done_s", value=20e-6, source="as launch_s"),
        Constant(name="task_s", value=0.2e-3, source="handling of one bundle"),
        Constant(name="bridge_bytes_per_s", value=0.42e9, source="pickled rows between JVM and Python, as Spark's bridge",
                 fitted="memory_pipelining: spark at 12 and 16 GB"),
        Constant(name="bridge_row_s", value=1.5e-6, source="as Spark's bridge"),
        Constant(name="actor_start_s", value=1.0, source="start of a Python worker process"),
        Constant(name="worker_memory_bytes", value=150e6, source="a Python worker process"),
        Constant(name="driver_memory_bytes", value=3328 * 2**20,
                 source="the configuration that it ships: jobmanager.memory.process.size 1600m, taskmanager's 1728m"),
    ),
)  # fmt: skip


class Flink(Streaming):
    """The model; see the module for the rules and their sources."""

    actors_yield = False

    def __init__(
        self,
        *,
        checkpoint_s: float | None = None,
        min_pause_s: float = 0.0,
        state_bytes: int | str = 0,
        restart: bool | None = None,
        backpressure: bool = True,
    ) -> None:
        super().__init__(queued_blocks=1 << 60, queued_fraction=1.0, autoscale=False, ahead=False, backpressure=backpressure)
        self._checkpoints = Checkpoints(checkpoint_s or 0.0, min_pause_s, parse_bytes(state_bytes))
        self.tick_s = self._checkpoints.tick_s
        self._restarts = bool(checkpoint_s) if restart is None else restart

    def start(self, job: Job, view: View) -> list[Action]:
        """Deploy all subtasks."""
        self._consumers = [sum(_parallelism(job.stages[r]) for r in job.consumers(s.index)) for s in job.stages]
        self._channels = [c * _parallelism(s) for c, s in zip(self._consumers, job.stages, strict=True)]
        self._nodes: tuple[int, ...] = ()
        return super().start(job, view)

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As any streaming engine; a checkpoint now and then."""
        checkpoints = self._checkpoints
        self._nodes = tuple([n.node for n in view.nodes])
        if isinstance(event, Tick):
            return checkpoints.tick(self._nodes) + super().on_event(event, view)
        if isinstance(event, Persisted):
            checkpoints.persisted(event.key)
        elif isinstance(event, TaskDone) and self._ledger.lineage is not None and not self._ledger.tasks[event.task].again:
            checkpoints.after.append(event.task)
        return super().on_event(event, view)

    def _node_lost(self, event: NodeLost) -> list[Action]:
        return super()._node_lost(event) + self._restart()

    def _worker_lost(self, event: WorkerLost) -> list[Action]:
        return super()._worker_lost(event) + self._restart()

    def _restart(self) -> list[Action]:
        """All subtasks go back to the last checkpoint: what they did since is done again, and counts once."""
        if not self._restarts:
            return [Fail("a subtask was lost, and without checkpoints Flink does not restart a job (restart-strategy.type)")]
        if self._ledger.lineage is not None:
            for task in self._ledger.lineage.repeat(self._checkpoints.since()):
                self._hand_out(task)
        return self._checkpoints.restore(self._nodes)

    def _launch(self, actions: list[Action]) -> None:
        if not self._checkpoints.restoring:
            super()._launch(actions)

    def _admits(self, index: int) -> bool:
        """Whether the buffers behind a subtask have room. It computes a record before it waits for them: what runs needs none yet."""
        if (
            not self._pushes[index] or self._queued[index] < 2 * self._consumers[index]
        ):  # one in work and one waiting at each receiver
            return True
        buffers = (EXCLUSIVE * self._channels[index] + FLOATING * self._consumers[index]) * BUFFER_BYTES
        made, waiting = self._emitted_blocks[index], self._queued[index] + self._running[index]
        return made > 0 and (waiting + 1) * self._emitted_bytes[index] / made <= buffers


def _parallelism(stage: Stage) -> int:
    return stage.concurrency.minimum if stage.concurrency else 1


def plan(job: Job, chosen: Mapping[str, Any], cluster: ClusterSpec) -> Job:
    """Every stage becomes a pool of subtasks that holds its place for the whole job and shares the CPUs with the others."""
    wanted = chosen["parallelism"]
    names = [o for s in job.stages for o in s.operators]
    for name in wanted if isinstance(wanted, dict) else ():
        if name not in names:
            raise InputError(f"flink: option parallelism names {name!r}, which is no operator{nearest(name, names)}")
    on_devices = sum(1 for s in job.stages if s.resources.gpus)
    usual = {True: max(int(cluster.gpus) // max(on_devices, 1), 1), False: cluster.cpus}
    return replace(job, stages=tuple(_deployed(s, wanted, usual[s.resources.gpus > 0]) for s in job.stages))


def chains(chosen: Mapping[str, Any], cluster: ClusterSpec) -> dict[str, int]:
    """Operators by parallelism, as far as it was given: only equal ones are chained."""
    wanted = chosen["parallelism"]
    return {name: int(n) for name, n in wanted.items() if int(n) != cluster.cpus} if isinstance(wanted, dict) else {}


def _deployed(stage: Stage, wanted: Any, usual: int) -> Stage:
    count = max((wanted.get(o, 0) for o in stage.operators), default=0) if isinstance(wanted, dict) else int(wanted or 0)
    if not count:
        count = stage.concurrency.maximum or usual if stage.concurrency else usual
    resources = Resources(cpus=0, gpus=stage.resources.gpus, memory_bytes=stage.resources.memory_bytes)
    state = State(kind="actor", load_s=stage.state.load_s, memory_bytes=stage.state.memory_bytes)
    return replace(stage, resources=resources, state=state, concurrency=Concurrency(minimum=count, maximum=count))


ENTRY = ModelEntry(
    name="flink",
    build=Flink,
    plan=plan,
    groups=chains,
    traits=TRAITS,
    world={
        "worker_memory_bytes": Option(
            name="task_memory", check=parse_size, default=None, doc="memory of a subtask's Python process; default 150 MB"
        ),
        "fuse": Option(
            name="chaining",
            default=True,
            doc="chain neighbouring operators of equal parallelism and resources into one subtask (pipeline.operator-chaining.enabled)",
            choices=(True, False),
        ),
    },
    options=(
        Option(
            name="checkpoint_s",
            default=None,
            doc="seconds between checkpoints (execution.checkpointing.interval); default none, as Flink's",
        ),
        Option(
            name="min_pause_s",
            default=0.0,
            doc="least seconds from one checkpoint's end to the next (execution.checkpointing.min-pause)",
        ),
        Option(
            name="state_bytes",
            check=parse_bytes,
            default=0,
            doc="state that a checkpoint writes to the remote store and a restart reads, of all subtasks, in equal parts a node",
        ),
        Option(
            name="restart",
            default=None,
            choices=(None, True, False),
            doc="whether a job starts again after a loss (restart-strategy.type); default only with checkpoints, as Flink does",
        ),
        Option(
            name="backpressure",
            default=True,
            choices=(True, False),
            doc="whether network buffers are finite: full ones keep the sender waiting (credit-based flow control)",
        ),
    ),
    plan_options=(
        Option(
            name="parallelism", default=None, doc="subtasks of every operator, or by operator; default one a CPU, or a device"
        ),
    ),
    features={"backpressure": "bounded network buffers between subtasks", "actors": "every operator keeps its subtasks"},
)
