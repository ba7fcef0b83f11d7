"""Dask distributed: a central scheduler, blockwise fusion, depth-first order, no backpressure but the queuing of root tasks.

What the model knows, with its source (distributed 2025.x, docs "Scheduling policies" and "Worker memory management"):

* One single-threaded scheduler serves all messages: about 0.25 ms a task (4,000 tasks/s).
* Neighbouring operators with equal resources are fused (blockwise fusion).
* Root tasks wait in the scheduler's queue until a worker is free (``worker-saturation`` 1.1): nothing else holds a source back.
  ``queuing`` = false gives them out at once, and each worker then takes them in order, before what follows from them.
* Of the tasks that could run, the one farthest downstream goes first (dask.order).
* Results lie in the workers' own memory: beyond ``target`` (0.60 of it) they are spilled to disk. Above ``pause`` (0.80) a worker
  begins no further task until its monitor, which looks every 100 ms, finds less, or until it runs none: what it still holds then
  would be spilled. Above ``terminate`` (0.95) it is killed with all its results, and started anew. A node is one such worker.
* Tasks wait in the scheduler until a worker has none, or one while plenty wait: an idle worker finds work at once, as if it stole it in
  no time (``work-stealing``, every 100 ms or second by version). Without ``stealing`` a task stays beside its first input, where
  ``decide_worker`` would put it.
* A task is tried 4 times (``allowed-failures`` 3); lost results are computed again; the state of a lost actor is gone.
"""

from __future__ import annotations

from collections import deque

from windtunnel.engines.api import Option
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.ledger import Task
from windtunnel.engines.models.streaming import Streaming
from windtunnel.engines.models.switches import DOWNSTREAM_FIRST, LOCALITY, PAGE_CACHE, RECOMPUTE
from windtunnel.engines.models.traits import Constant, Traits
from windtunnel.model import Action
from windtunnel.spec.units import parse_size

TRAITS = Traits(
    store_fraction=0.60,
    page_cache=True,
    pause=0.80,
    terminate=0.95,
    constants=(
        Constant(name="startup_s", value=1.0, source="graph construction and submission"),
        Constant(name="launch_s", value=0.15e-3, source="scheduler: 4,000 tasks/s, about 0.25 ms a task (docs, Efficiency)"),
        Constant(name="done_s", value=0.10e-3, source="as launch_s"),
        Constant(name="task_s", value=1e-3, source="worker overhead of about 1 ms a task (docs, Best Practices)"),
        Constant(name="emit_bytes_per_s", value=0.0, source="results stay in the worker's memory"),
        Constant(name="fetch_bytes_per_s", value=1.0e9, source="deserialization of frames from other workers"),
        Constant(name="worker_memory_bytes", value=150e6, source="an idle worker with pandas imported"),
    ),
)  # fmt: skip


class Dask(Streaming):
    """The model; see the module for the rules and their sources."""

    actors_yield = False

    def __init__(
        self,
        *,
        queuing: bool = True,
        stealing: bool = True,
        locality: bool = True,
        downstream_first: bool = True,
        recompute: bool = True,
    ) -> None:
        super().__init__(
            backpressure=False, autoscale=True, ahead=not queuing, locality=locality, downstream_first=downstream_first and queuing,
            recompute=recompute,
        )  # fmt: skip
        self._stealing = stealing

    def _launch_stage(self, index: int, actions: list[Action]) -> None:
        """Without stealing a task waits for a worker on the node of its first input, while there is one."""
        ledger, ready = self._ledger, self._ready[index]
        if self._stealing or index in ledger.actors or not self._job.stages[index].inputs:
            super()._launch_stage(index, actions)
            return
        peopled = {w.node for w in ledger.workers.values()}
        waiting: deque[Task] = deque()
        while ready:
            task = ready.popleft()
            home = ledger.blocks[task.blocks[0]].node if task.blocks else -1
            worker = ledger.worker_on(index, home) if home in peopled else ledger.worker_for(index, False)
            if worker is None:
                waiting.append(task)
            else:
                self._running[index] += 1
                actions.append(ledger.launch(task, worker, self._sides(index)))
        self._ready[index] = waiting


ENTRY = ModelEntry(
    name="dask",
    build=Dask,
    traits=TRAITS,
    world={
        "store_bytes": Option(
            name="memory_target", check=parse_size, default=None, doc="bytes of results in memory; default 60 % of it"
        ),
        "page_cache": PAGE_CACHE,
        "pause": Option(name="memory_pause", default=0.80, doc="share of memory above which no task begins; 0: begin always"),
        "terminate": Option(
            name="memory_terminate", default=0.95, doc="share of memory above which a worker is killed; 0: never"
        ),
    },
    options=(
        Option(name="queuing", default=True, doc="root tasks wait for a free worker", choices=(True, False)),
        Option(
            name="stealing",
            default=True,
            choices=(True, False),
            doc="an idle worker takes tasks whose inputs are elsewhere; else they stay where the scheduler put them, beside their inputs",
        ),
        DOWNSTREAM_FIRST,
        LOCALITY,
        RECOMPUTE,
    ),
    features={
        "spill": "results beyond the memory target are written to local disk",
        "barrier": "at shuffles only",
        "memory": "workers pause above 80 % of their memory and are killed above 95 %, with their results",
    },
)
