"""The simulated engines: the same models, jobs and records as the embedded engines, on a virtual clock.

A record made here has ``clock`` virtual; its makespan is the counter ``makespan_s``. The time that the simulation
itself takes is of no interest to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.models.catalogue import ENTRIES
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.placement import placed
from windtunnel.engines.recorded import job_of
from windtunnel.errors import InputError, nearest
from windtunnel.model import Job
from windtunnel.records.record import Recorder
from windtunnel.sim.calibration.actors import kept, loading
from windtunnel.sim.calibration.bridge import measured_bridge
from windtunnel.sim.costs.laws import StageLaw, stage_laws
from windtunnel.sim.costs.measured import Calibration, EngineCost
from windtunnel.sim.judging.bounds import bound
from windtunnel.sim.judging.prediction import told
from windtunnel.sim.world.rounds import world_of
from windtunnel.sim.world.wave import total_rows
from windtunnel.sim.world.world import SimWorld
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Recorded, Synthetic
from windtunnel.spec.units import parse_bytes, parse_count
from windtunnel.spec.workload import BoundWorkload, Location

WORLD_OPTIONS = (
    Option(name="calibration", default=None, doc="file made by `windtunnel calibrate`; needed for real kernels"),
    Option(name="seed", default=0, doc="every drawn duration derives its own stream from it"),
    Option(name="block_bytes", default="32MiB", doc="a task's output is cut into blocks of about this size"),
    Option(name="store_bytes", check=parse_bytes, default=None, doc="object store of all nodes; default 30 % of their memory"),
    Option(name="partitions", check=parse_count, default=None, doc="tasks after an exchange; default the number of CPUs"),
    Option(name="fuse", default=True, doc="run narrow operators with equal resources in one task", choices=(True, False)),
    Option(
        name="spans", default=None, doc="record spans; default all of few tasks and a sample of many", choices=(None, True, False)
    ),
    Option(name="overheads", default=None, doc="constants of the engine to replace, by name: { launch_s = 0.001 }"),
)
_ONE_FILE = 1 << 62  # a task's output goes to one file, however large
#: traits that a model may offer as options
_TRAITS = {
    "replication": int, "concatenate": int, "pause": float, "terminate": float, "kill": float, "page_cache": bool, "overlap": bool,
    "prefetch": bool, "generator": bool,
}  # fmt: skip
_COST_SETTINGS = ("worker_memory_bytes", "compression")
_FEATURES = {
    "simulated": "the model's decisions are its own; hardware, serialization and variance follow a calibration or declared costs",
    "spill": "blocks beyond the object store's budget are written to the simulated disk",
    "actors": "stateful operators load once a worker",
}


class SimSession:
    """An open simulated engine; a run leaves nothing behind but its record."""

    def __init__(self, entry: ModelEntry, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        self._entry, self._cluster, self._options = entry, cluster, options
        self._settings = {**{o.name: options.get(o.name, o.default) for o in WORLD_OPTIONS}, **_named(entry, options)}
        path = self._settings["calibration"]
        self._calibration = Calibration.load(Path(path)) if path else Calibration()
        self._prepared: tuple[Job, tuple[StageLaw, ...]] | None = None
        self._location = Location()
        self._cost = _engine_cost(entry, self._calibration, options, self._settings)
        self.world: SimWorld | None = None

    def prepare(self, workload: BoundWorkload) -> None:
        """Plan the physical job and look up what its stages cost. Raises InputError for kernels never measured."""
        real = [
            op.name
            for op in workload.pipeline.operators
            if not isinstance(op.kernel, (Recorded, Synthetic)) and op.kind not in ("scan", "sink")
        ]
        if real and not self._settings["calibration"]:
            raise InputError(
                f"sim:{self._entry.name} needs the measured cost of operator {real[0]!r} of workload {workload.workload.name!r}; run "
                f"`windtunnel calibrate` with this workload and pass its file as option calibration"
            )
        workload = placed(kept(workload) if self._cost.keeps_state else workload, self._cluster)
        partitions = int(self._settings["partitions"] or max(1, self._cluster.cpus))
        groups = self._entry.groups(self._options, self._cluster)
        job = job_of(workload, partitions=partitions, fuse=bool(self._settings["fuse"]), groups=groups)
        if not job.recorded:  # a recorded job has its stages already
            job = self._entry.plan(loading(job, workload.workload.name, self._calibration), self._options, self._cluster)
        self._prepared = job, stage_laws(job, workload, self._calibration)
        self._location = workload.workload.dataset.location

    def lower_bound(self, times: float = 1.0) -> float:
        """Seconds that the prepared job takes at least, or one with ``times`` as many source partitions of the same sizes."""
        assert self._prepared is not None
        return bound(*self._prepared, self._cluster.expanded(), location=self._location, times=times).seconds

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Simulate once. Raises RunFailed and OutOfMemory as a real run does."""
        if self._prepared is None:
            self.prepare(workload)
        assert self._prepared is not None
        job, laws = self._prepared
        settings, traits = self._settings, self._entry.traits
        cluster = self._cluster.expanded()
        model = self._entry.factory(self._options)()
        world = self.world = world_of(model)(
            cluster, job, laws, recorder, cost=self._cost, seed=int(settings["seed"]), spans=settings["spans"],
            store_bytes=None if settings["store_bytes"] is None else parse_bytes(settings["store_bytes"]),
            block_bytes=parse_bytes(settings["block_bytes"]) if traits.outputs == "store" else _ONE_FILE,
            location=self._location,
            traits=replace(traits, **{name: kind(settings.get(name, getattr(traits, name))) for name, kind in _TRAITS.items()}),
        )  # fmt: skip
        least = bound(job, laws, cluster, location=self._location)
        recorder.counters["lower_bound_s"] = least.seconds
        recorder.counters |= {f"bound_s:{name}": seconds for name, seconds in least.parts.items()}
        blocks = world.run(model)
        recorder.counters["makespan_s"] = recorder.counters["virtual_makespan_s"] = world.makespan_s
        recorder.counters |= told(self._entry.name, cluster.cpus, self._calibration)
        return Outcome(rows=total_rows(blocks))

    def close(self) -> None:
        """Nothing is open."""


def _named(entry: ModelEntry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The world's settings under the names that the engine gives them."""
    return {setting: options[option.name] for setting, option in entry.world.items()}


def _engine_cost(
    entry: ModelEntry, calibration: Calibration, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> EngineCost:
    """Measured overheads where there are some, else the engine's constants; what the user set on top."""
    measured = any(e.engine == entry.name for e in calibration.engines)
    cost = calibration.engine(entry.name) if measured else EngineCost(engine=entry.name, **entry.traits.overheads())
    if not measured and entry.traits.jvm_bridge:
        cost = measured_bridge(cost, calibration.host)
    cost = replace(cost, **entry.costs(options))
    chosen = {k: settings[k] for k in _COST_SETTINGS if settings.get(k) is not None}
    chosen |= settings["overheads"] or {}
    known = {f.name for f in fields(EngineCost)} - {"engine", "slowdown"}
    for name, value in chosen.items():
        if name not in known:
            raise InputError(f"option overheads of engine {entry.name!r} names {name!r}{nearest(name, known)}")
        chosen[name] = parse_bytes(value) if isinstance(value, str) and "bytes" in name else value
    try:
        return replace(cost, **chosen)
    except TypeError as error:
        raise InputError(f"option overheads of engine {entry.name!r} must hold numbers: {error}") from error


class SimEngine:
    """A model in the simulated world."""

    def __init__(self, entry: ModelEntry) -> None:
        self._entry = entry
        self.name = f"sim:{entry.name}"
        own = {o.name: o for o in (*entry.options, *entry.plan_options)}
        named = {o.name: o for o in entry.world.values() if o.name not in own}
        world = tuple(o for o in WORLD_OPTIONS if o.name not in entry.world)
        self.options = (*world, *named.values(), *own.values())
        self.capabilities = Capabilities(features={**_FEATURES, **entry.features})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> SimSession:
        """Check the options."""
        return SimSession(self._entry, cluster, resolve_options(self.name, self.options, options))


SimBulkEngine = partial(SimEngine, ENTRIES["bulk"])
SimStreamingEngine = partial(SimEngine, ENTRIES["streaming"])
SimRayEngine = partial(SimEngine, ENTRIES["ray"])
SimSparkEngine = partial(SimEngine, ENTRIES["spark"])
SimDaskEngine = partial(SimEngine, ENTRIES["dask"])
SimFlinkEngine = partial(SimEngine, ENTRIES["flink"])
SimMapReduceEngine = partial(SimEngine, ENTRIES["mapreduce"])
