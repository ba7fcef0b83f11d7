"""The simulated engines: the same models, jobs and records as the embedded engines, on a virtual clock.

A record made here has ``clock`` virtual; its makespan is the counter ``makespan_s``. The time that the simulation
itself takes is of no interest to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.streaming import Streaming
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
BULK_OPTIONS = (Option(name="prefetch", default=True, doc="queue one task behind a worker's running one", choices=(True, False)),)
STREAMING_OPTIONS = (
    Option(name="queued_blocks", default=8, doc="most blocks a stage may have queued or in the making for its consumers"),
    Option(name="queued_fraction", default=0.5, doc="share of the object store that queued blocks of all edges may fill"),
    Option(name="backpressure", default=True, doc="whether full queues hold a stage back", choices=(True, False)),
    Option(name="autoscale", default=True, doc="whether actor pools grow above their minimum", choices=(True, False)),
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


class SimBulkEngine:
    """`bulk` in the simulated world."""

    name = "sim:bulk"
    options = (*WORLD_OPTIONS, *BULK_OPTIONS)
    capabilities = Capabilities(features=_FEATURES)

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SimSession:
        """Check the options."""
        chosen = resolve_options(self.name, self.options, options)
        return SimSession("bulk", cluster, chosen, lambda: Bulk(prefetch=chosen["prefetch"]))


class SimStreamingEngine:
    """`streaming` in the simulated world."""

    name = "sim:streaming"
    options = (*WORLD_OPTIONS, *STREAMING_OPTIONS)
    capabilities = Capabilities(features={**_FEATURES, "backpressure": "bounded blocks and bytes queued between stages"})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SimSession:
        """Check the options."""
        chosen = resolve_options(self.name, self.options, options)
        return SimSession("streaming", cluster, chosen, lambda: Streaming(**{o.name: chosen[o.name] for o in STREAMING_OPTIONS}))
