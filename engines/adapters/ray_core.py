"""Ray core: what somebody who knows Ray and the data writes by hand, on tasks, actors and object references, without Ray Data.

The driver keeps a budget of CPUs and starts the task that is furthest downstream among those whose input lies in the object store;
`ray.wait` tells it what came. So work in flight is bounded, and a queue between two stages never holds more than ``queue`` blocks a
CPU. Blocks are Arrow tables. An exchange is our own hash shuffle: a task returns one object a partition (``num_returns``), and the
tasks behind it take theirs by reference. Tasks that feed the next stage row by row are streaming generators, so that a row which
becomes many leaves in blocks. A stateful operator has a pool of actors that loads once and is kept for the session.

Stages, phases and partitioning are those of the embedded engines (`engines.physical`, `engines.local.kernels`): what differs
between `streaming` and this engine is Ray. The parts that run on the workers are in `ray_tasks`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines import physical
from windtunnel.engines.adapters import ray_cluster
from windtunnel.engines.adapters.common import DECLARED, ForeignSession, output_is_files
from windtunnel.engines.adapters.ray_tasks import Pool, Task
from windtunnel.engines.adapters.stages import Work
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.errors import RunFailed
from windtunnel.model import Job, Stage
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_bytes, parse_count, parse_size
from windtunnel.spec.workload import BoundWorkload

Place = tuple[int, ...]  # where a block stands in the order of its stage's output


@dataclass(slots=True)
class _StageState:
    """What the driver knows of a stage in a run."""

    stage: Stage
    work: Work
    readers: list[int]  # stages that take its blocks as they come
    users: list[int]  # all stages that read it
    kept: bool  # its blocks are wanted until the end: the answer, or a side that is broadcast
    queue: deque[tuple[Place, list[Any]]] = field(default_factory=deque)  # inputs of tasks that may start
    opened: bool = False  # all its tasks are known, or come from a stage that runs
    running: int = 0
    complete: bool = False
    blocks: list[tuple[Place, Any]] = field(default_factory=list)  # its output: (place, reference)
    pieces: list[list[Any]] = field(default_factory=list)  # of an exchange: a list of references a task, by partition


class RayCoreSession(ForeignSession):
    """A Ray cluster of this machine, or a client of a running one, and the actor pools of the session."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        super().__init__("ray-core", cluster, options, RayCoreEngine.capabilities)
        self._pools: dict[Any, Pool] = {}
        with ray_cluster.opening(self.close, cluster.address):
            ray_cluster.start(cluster, options, self._scratch, tuned=True)
            self._cpus = cluster.cpus if cluster.address is None else ray_cluster.cpus()
            if cluster.address is None:
                ray_cluster.warm(cluster.cpus, "windtunnel.engines.adapters.ray_tasks")

    def _plan(self, workload: BoundWorkload) -> None:
        self._job = physical.compile_job(workload, partitions=int(self._options["partitions"] or self._cpus))

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        import ray

        with self._run_of(workload, str(output)) as run:
            for _ in run.progress():
                pass
            tables = [t for t in ray.get(run.blocks()) if t.num_columns]
        if output_is_files(workload):
            return None
        return pa.concat_tables(tables) if tables else pa.table({})

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        import ray

        with self._run_of(workload, "") as run:
            for _ in run.progress():
                for reference in run.blocks():
                    yield ray.get(reference)

    @contextmanager
    def _run_of(self, workload: BoundWorkload, output: str) -> Iterator[_Run]:
        try:
            yield _Run(self, workload, self._job, output)
        except BaseException:
            self._pools.clear()  # an actor may be dead, or in the middle of a call: the next run has new ones
            raise

    def pool(self, stage: Stage, work: Work) -> Pool:
        """The actors of a stateful stage: those of an earlier run of the same kernels, else new ones."""
        key = tuple(work.operators[s.operator] for s in work.program.steps if s.operator in work.operators)
        if key not in self._pools:
            bounds, needs = stage.concurrency, stage.resources
            slots = int(self._cluster.gpus / needs.gpus) if needs.gpus else int(self._cpus / max(needs.cpus, 0.001))
            size = bounds.maximum if bounds is not None and bounds.maximum else max(1, slots)
            self._pools[key] = Pool(stage, work, size)
        return self._pools[key]

    def close(self) -> None:
        """Leave the cluster, and end one that was started here."""
        self._pools.clear()
        ray_cluster.end(self._scratch)
        super().close()


def _state(stage: Stage, job: Job, work: Work) -> _StageState:
    reads = [(s.index, i.mode) for s in job.stages for i in s.inputs if i.stage == stage.index]
    readers = [index for index, mode in reads if mode == "forward"]
    kept = stage is job.stages[-1] or any(mode == "broadcast" for _, mode in reads)
    return _StageState(stage=stage, work=work, readers=readers, users=[index for index, _ in reads], kept=kept)


class _Run:
    """One execution: which tasks may start, which run, what came."""

    def __init__(self, session: RayCoreSession, workload: BoundWorkload, job: Job, output: str) -> None:
        self._session, self._cpus = session, float(session._cpus)
        self._queue = int(session._options["queue"]) * session._cpus
        size = parse_bytes(session._options["block_bytes"])
        operators = {op.name: op for op in workload.pipeline.operators}
        self._states = [_state(stage, job, Work(physical.program(stage), operators, output, size)) for stage in job.stages]
        self._running: dict[Any, tuple[_StageState, Task]] = {}  # what `ray.wait` waits for → whose it is
        self._busy = 0.0

    def progress(self) -> Iterator[None]:
        """Run to the end, a stop whenever something came. Whatever fails, or nobody going on, ends what is under way."""
        import ray

        last = self._states[-1]
        try:
            while self._open() and not last.complete:
                while self._launch():
                    pass
                if not self._running:
                    raise RunFailed("ray-core has nothing left to run and no answer")
                ready, _ = ray.wait(list(self._running), num_returns=1, fetch_local=False)
                for reference in ready:
                    self._came(reference)
                yield
        except BaseException:
            for _, task in self._running.values():
                task.cancel()
            raise

    def blocks(self) -> list[Any]:
        """References of the last stage's blocks that came since the last call, in the order of their rows."""
        blocks, self._states[-1].blocks = self._states[-1].blocks, []
        return [reference for _, reference in sorted(blocks, key=lambda b: b[0])]

    # -- which tasks there are -----------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Make the tasks of stages whose inputs are complete; a stage without a task left and without input to come is complete."""
        for state in self._states:
            if not state.opened and self._ready(state):
                state.opened = True
                state.queue.extend(self._tasks(state))
            if state.opened and not state.complete and not state.queue and not state.running:
                state.complete = all(self._states[i.stage].complete for i in state.stage.inputs)
            if state.complete and not state.kept and all(self._states[u].opened for u in state.users):
                state.blocks, state.pieces = [], []  # the tasks that wait hold what they need
        return True

    def _ready(self, state: _StageState) -> bool:
        """Broadcast and exchanged inputs must be whole; a forward one may still be running."""
        return all(i.mode == "forward" or self._states[i.stage].complete for i in state.stage.inputs)

    def _tasks(self, state: _StageState) -> Iterator[tuple[Place, list[Any]]]:
        inputs = state.stage.inputs
        forward = [i.stage for i in inputs if i.mode == "forward"]
        if forward:
            for place, block in self._states[forward[0]].blocks:  # what came before this stage was open
                yield place, [block]
            return
        shuffled = [self._states[i.stage].pieces for i in inputs if i.mode == "partition"]
        state.work.split = len(shuffled[0]) if len(shuffled) > 1 else 0
        assert state.stage.partitions is not None
        for p in range(state.stage.partitions):
            yield (p,), [pieces[p] for tasks in shuffled for pieces in tasks]

    # -- starting ------------------------------------------------------------------------------------------------------

    def _launch(self) -> bool:
        """Start the furthest task downstream that the budget holds; False when there is none."""
        for state in reversed(self._states):
            if state.queue and not self._full(state) and self._affordable(state):
                self._start(state)
                return True
        return False

    def _full(self, state: _StageState) -> bool:
        """Backpressure: a stage that reads this one's blocks as they come has enough of them waiting."""
        readers = (self._states[r] for r in state.readers)
        return any(r.opened and len(r.queue) + state.running >= self._queue for r in readers)

    def _affordable(self, state: _StageState) -> bool:
        if state.stage.state.kind == "actor" and not self._session.pool(state.stage, state.work).idle:
            return False
        return not self._running or self._busy + state.stage.resources.cpus <= self._cpus

    def _start(self, state: _StageState) -> None:
        place, inputs = state.queue.popleft()
        sides = [[b for _, b in self._states[i.stage].blocks] for i in state.stage.inputs if i.mode == "broadcast"]
        actor = None
        if state.stage.state.kind == "actor":
            actor = self._session.pool(state.stage, state.work).idle.pop()
        task = Task.start(state.stage, state.work, place, inputs, sides, actor)
        self._running[task.handle] = (state, task)
        state.running += 1
        self._busy += state.stage.resources.cpus

    # -- what came -----------------------------------------------------------------------------------------------------

    def _came(self, handle: Any) -> None:
        state, task = self._running[handle]
        if (block := task.block()) is not None:
            placed = ((*task.place, task.taken), block)
            if state.kept or any(not self._states[r].opened for r in state.readers):
                state.blocks.append(placed)
            for reader in (self._states[r] for r in state.readers):
                if reader.opened:
                    reader.queue.append((placed[0], [block]))
            return
        del self._running[handle]
        state.running -= 1
        self._busy -= state.stage.resources.cpus
        if task.actor is not None:
            self._session.pool(state.stage, state.work).idle.append(task.actor)
        if task.pieces:
            state.pieces.append(task.pieces)


class RayCoreEngine:
    """Hand-written tasks and actors on a Ray cluster."""

    name = "ray-core"
    options = (
        Option(name="partitions", check=parse_count, default=None, doc="tasks after an exchange; default the number of CPUs"),
        Option(
            name="block_bytes", check=parse_size, default="32MiB", doc="a task's output is cut into blocks of about this size"
        ),
        Option(name="queue", check=parse_count, default=4, doc="blocks a CPU that may wait between two stages"),
        Option(
            name="object_store",
            check=parse_size,
            default=None,
            doc="bytes of the object store; default 30 % of the memory, as Ray has it",
        ),
    )
    capabilities = Capabilities(
        gaps={"declared": DECLARED},
        features={
            "processes": "worker processes that Ray starts for tasks and actors",
            "backpressure": "the driver starts no task whose readers have enough blocks waiting, nor more than there are CPUs",
            "retries": "Ray repeats tasks of a lost worker three times, restarts a lost actor and repeats its call",
            "actors": "a pool a stateful operator, loaded once and kept for the session",
            "batches": "block by block as they come, and no task starts while nobody takes them",
            "kernels": "the embedded engines' phases on Arrow tables that lie in shared memory",
            "state": "loaded again: Ray restarts the pool's actor, which loads anew, and repeats its call",
            **ray_cluster.FEATURES,
        },
    )

    def version(self) -> str:
        """Ray's version."""
        return ray_cluster.version()

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> RayCoreSession:
        """Start a cluster bound to loopback, or connect to ``cluster.address``."""
        return RayCoreSession(cluster, resolve_options(self.name, self.options, options))
