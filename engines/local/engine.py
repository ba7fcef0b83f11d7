"""The embedded engines `bulk` and `streaming`: the same local world, driven by two pure models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.engines.local.store import memory_folder, read_block
from windtunnel.engines.local.world import LocalWorld
from windtunnel.engines.models.catalogue import BULK, STREAMING
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.placement import count_devices, placed
from windtunnel.engines.recorded import job_of
from windtunnel.errors import InputError
from windtunnel.model import ExecutionModel, NodeView
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Sink
from windtunnel.spec.units import parse_bytes, parse_count, parse_size
from windtunnel.spec.workload import BoundWorkload

WORLD_OPTIONS = (
    Option(name="block_bytes", check=parse_size, default="32MiB", doc="a task's output is cut into blocks of about this size"),
    Option(
        name="store_bytes",
        check=parse_bytes,
        default=None,
        doc="shared-memory budget; default 30 % of the cluster's memory (as Ray's object store)",
    ),
    Option(name="partitions", check=parse_count, default=None, doc="tasks after an exchange; default the number of CPUs"),
    Option(name="fuse", default=True, doc="run narrow operators with equal resources in one task", choices=(True, False)),
    Option(name="spill_dir", default=None, doc="folder for spilled blocks; default the system's temporary folder"),
)
_FEATURES = {
    "processes": "one worker process a CPU slot, one an actor; a killed one is replaced and its task repeated, up to four times",
    "spill": "blocks beyond the shared-memory budget are written to disk",
    "retries": "a lost worker's tasks are repeated; blocks that already arrived are not emitted again",
    "actors": "stateful operators load once a worker",
    "state": "loaded again: the process that held it is replaced, loads anew and repeats the task it had",
    "devices": "an actor holds its share of a device while it lives, a task of a stateless operator while it runs",
}


class LocalSession:
    """An open embedded engine; its pool of workers stays warm between runs."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any], model: Callable[[], ExecutionModel]) -> None:
        node = cluster.nodes[0]
        if len(cluster.nodes) > 1 or node.count > 1:
            raise InputError("the embedded engines run on one node; simulate larger clusters with sim:bulk and sim:streaming")
        self._model, self._cluster = model, cluster
        self._block_bytes = parse_bytes(options["block_bytes"])
        self._partitions = int(options["partitions"] or max(1, cluster.cpus))
        self._fuse = bool(options["fuse"])
        spill = Path(options["spill_dir"]) if options["spill_dir"] else None
        view = NodeView(0, node.cpus, node.gpus.count, node.usable_memory_bytes)
        self._world: LocalWorld | None = LocalWorld([view], _store_bytes(cluster, options["store_bytes"]), spill)
        self._job: Any = None
        try:
            self._world.warm(node.cpus)
        except BaseException:
            self.close()
            raise

    @property
    def world(self) -> LocalWorld:
        """The world of worker processes."""
        if self._world is None:
            raise InputError("this session is closed; open a new one")
        return self._world

    def prepare(self, workload: BoundWorkload) -> None:
        """Plan the physical job; start the processes of the smallest actor pools (their state loads in the timed run)."""
        workload = placed(workload, self._cluster, self.world.folder)
        self._job = job_of(workload, partitions=self._partitions, fuse=self._fuse)
        pools = [s.concurrency.minimum if s.concurrency else 1 for s in self._job.stages if s.state.kind == "actor"]
        self.world.warm(self._cluster.cpus + sum(pools))

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Execute once; the table maps the result's blocks."""
        world = self.world
        blocks = world.run(self._job, self._model(), recorder, output, block_bytes=self._block_bytes)
        tables = [read_block(path) for path, _ in blocks]
        world.forget()
        count_devices(recorder, world.folder)
        if not tables:
            return Outcome(table=pa.table({}), rows=0)
        if isinstance(workload.pipeline.output.kernel, Sink):
            return Outcome(path=output, rows=sum(sum(t["rows"].to_pylist()) for t in tables))
        table = pa.concat_tables(tables)
        return Outcome(table=table, rows=table.num_rows)

    def close(self) -> None:
        """End workers and remove shared memory."""
        if self._world is not None:
            self._world.close()
            self._world = None


def _store_bytes(cluster: ClusterSpec, asked: Any) -> int:
    if asked is not None:
        return parse_bytes(asked)
    return min(int(0.3 * cluster.memory_bytes), int(0.8 * shutil.disk_usage(memory_folder()).free))


class LocalEngine:
    """A model in the local world."""

    def __init__(self, model: ModelEntry) -> None:
        self._model = model
        self.name = model.name
        self.options = (*WORLD_OPTIONS, *model.options)
        self.capabilities = Capabilities(features={**_FEATURES, **model.features})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> LocalSession:
        """Start the workers."""
        chosen = resolve_options(self.name, self.options, options)
        return LocalSession(cluster, chosen, self._model.factory(chosen))


BulkEngine = partial(LocalEngine, BULK)
StreamingEngine = partial(LocalEngine, STREAMING)
