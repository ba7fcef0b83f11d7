"""The simulated engines: the same models, jobs and records as the embedded engines, on a virtual clock.

A record made here has ``clock`` virtual; its makespan is the counter ``makespan_s``. The time that the simulation
itself takes is of no interest to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.catalogue import BULK, STREAMING, ModelEntry
from windtunnel.engines.physical import compile_job
from windtunnel.sim.bounds import lower_bound
from windtunnel.sim.costs import Calibration
from windtunnel.sim.laws import StageLaw, stage_laws
from windtunnel.sim.world import SimWorld

import windtunnel
from windtunnel.cluster import ClusterSpec
from windtunnel.errors import InputError
from windtunnel.model import ExecutionModel, Job
from windtunnel.plan import Synthetic
from windtunnel.record import Recorder
from windtunnel.units import parse_bytes
from windtunnel.workload import BoundWorkload

WORLD_OPTIONS = (
    Option(name="calibration", default=None, doc="file made by `windtunnel calibrate`; needed for real kernels"),
    Option(name="seed", default=0, doc="every drawn duration derives its own stream from it"),
    Option(name="block_bytes", default="32MiB", doc="a task's output is cut into blocks of about this size"),
    Option(name="store_bytes", default=None, doc="object store of all nodes; default 30 % of their memory"),
    Option(name="partitions", default=None, doc="tasks after an exchange; default the number of CPUs"),
    Option(name="fuse", default=True, doc="run narrow operators with equal resources in one task", choices=(True, False)),
    Option(
        name="spans", default=None, doc="record spans; default all of few tasks and a sample of many", choices=(None, True, False)
    ),
)
_FEATURES = {
    "simulated": "the model's decisions are its own; hardware, serialization and variance follow a calibration or declared costs",
    "spill": "blocks beyond the object store's budget are written to the simulated disk",
    "actors": "stateful operators load once a worker",
}


class SimSession:
    """An open simulated engine; a run leaves nothing behind but its record."""

    def __init__(self, name: str, cluster: ClusterSpec, options: Mapping[str, Any], model: Callable[[], ExecutionModel]) -> None:
        self._name, self._cluster, self._options, self._model = name, cluster, options, model
        self._calibration = Calibration.load(Path(options["calibration"])) if options["calibration"] else Calibration()
        self._partitions = int(options["partitions"] or max(1, cluster.cpus))
        self._prepared: tuple[Job, tuple[StageLaw, ...]] | None = None
        self.world: SimWorld | None = None

    def prepare(self, workload: BoundWorkload) -> None:
        """Plan the physical job and look up what its stages cost. Raises InputError for kernels never measured."""
        real = [
            op.name
            for op in workload.pipeline.operators
            if not isinstance(op.kernel, Synthetic) and op.kind not in ("scan", "sink")
        ]
        if real and not self._options["calibration"]:
            raise InputError(
                f"sim:{self._name} needs the measured cost of operator {real[0]!r} of workload {workload.workload.name!r}; run "
                f"`windtunnel calibrate` with this workload and pass its file as option calibration"
            )
        job = compile_job(workload, partitions=self._partitions, fuse=bool(self._options["fuse"]))
        self._prepared = job, stage_laws(job, workload, self._calibration)

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Simulate once. Raises RunFailed and OutOfMemory as a real run does."""
        if self._prepared is None:
            self.prepare(workload)
        assert self._prepared is not None
        job, laws = self._prepared
        options, cost = self._options, self._calibration.engine(self._name)
        world = self.world = SimWorld(
            self._cluster, job, laws, recorder, cost=cost, seed=int(options["seed"]), spans=options["spans"],
            store_bytes=None if options["store_bytes"] is None else parse_bytes(options["store_bytes"]),
            block_bytes=parse_bytes(options["block_bytes"]),
        )  # fmt: skip
        blocks = world.run(self._model())
        recorder.counters["makespan_s"] = recorder.counters["virtual_makespan_s"] = world.makespan_s
        recorder.counters["lower_bound_s"] = lower_bound(job, laws, self._cluster)
        return Outcome(rows=sum(b.rows for b in blocks))

    def close(self) -> None:
        """Nothing is open."""


class SimEngine:
    """A model in the simulated world."""

    def __init__(self, model: ModelEntry) -> None:
        self._model = model
        self.name = f"sim:{model.name}"
        self.options = (*WORLD_OPTIONS, *model.options)
        self.capabilities = Capabilities(features={**_FEATURES, **model.features})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SimSession:
        """Check the options."""
        chosen = resolve_options(self.name, self.options, options)
        return SimSession(self._model.name, cluster, chosen, self._model.factory(chosen))


SimBulkEngine = partial(SimEngine, BULK)
SimStreamingEngine = partial(SimEngine, STREAMING)
