"""What engines cost before any work: starting a session, launching a task beside others, a row over the bridge to the JVM.

Measured through the engines' own doors (`load_engine`), each on a job made for the purpose; engines that are not installed here
are left out. A row's way over the bridge is the time that a Python map which changes nothing adds to the same job.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from windtunnel.errors import WindtunnelError
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, missing_modules
from windtunnel.running.java import find_java
from windtunnel.sim.calibration.bridge import BRIDGE
from windtunnel.sim.calibration.host import columns, cost
from windtunnel.sim.costs.measured import HostCost
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Aggregate, MapBatches, Measure, Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, TableData, Workload

STARTED = ("bulk", "streaming", "duckdb", "polars", "dask", "spark", "ray")
BRIDGES = ("rows", "pandas", "arrow")
_TYPES = {"int64": "int64", "double": "double", "text of 12 bytes": "string"}  # columns that plans can name
_TASKS = 64
_MARK = "host cost: "  # engines may print on standard output, too
_FACTOR = 10  # the table is so many times as long as a column of `columns`: a second of bridge at least


def crossings(cluster: ClusterSpec) -> Iterator[HostCost]:
    """All that can be measured here, in a process of its own: engines print, and some leave threads behind."""
    command = [sys.executable, "-m", "windtunnel.sim.calibration.crossings", str(cluster.cpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(_MARK):
                yield HostCost(**json.loads(line.removeprefix(_MARK)))


def measured(cluster: ClusterSpec) -> Iterator[HostCost]:
    """One by one, in this process. An engine that does not start is left out."""
    for name in STARTED:
        if not missing_modules(name) and (name != "spark" or find_java() is not None):
            with suppress(WindtunnelError):
                yield _start(name, cluster)
    yield from _launches(cluster)
    if not missing_modules("spark") and find_java() is not None:
        yield from _bridge(cluster)


def main() -> int:
    """Print each cost as a line of JSON as soon as it is known."""
    for found in measured(ClusterSpec.here(cpus=int(sys.argv[1]))):
        print(_MARK + json.dumps(asdict(found)), flush=True)
    return 0


def _start(name: str, cluster: ClusterSpec) -> HostCost:
    """The second of two starts: what is read from disk once is warm."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        session = load_engine(name).open(cluster, {})
        found.append(time.perf_counter() - start)
        session.close()
    return cost("session start", name, "s", found[1:])


def _launches(cluster: ClusterSpec) -> Iterator[HostCost]:
    """Seconds a task that does nothing takes of the whole job, with so many workers."""
    with tempfile.TemporaryDirectory(prefix="wt-launch-") as folder:
        work = table(Path(folder), pa.array([0]), "int64", parts=_TASKS)
        for workers in sorted({1, max(1, cluster.cpus // 2), cluster.cpus}):
            with closing(load_engine("streaming").open(ClusterSpec.here(cpus=workers), {})) as session:
                values = [s / _TASKS for s in _runs(session, job(work, mapped=True), 5)]
            yield cost("task of no work", f"streaming, {workers} workers", "s/task", values)


def _bridge(cluster: ClusterSpec) -> Iterator[HostCost]:
    with tempfile.TemporaryDirectory(prefix="wt-bridge-") as folder:
        works = {
            kind: table(Path(folder) / arrow, pa.concat_arrays([values] * _FACTOR), arrow, parts=cluster.cpus)
            for kind, values in columns().items()
            if (arrow := _TYPES.get(kind))
        }
        for bridge in BRIDGES:
            with closing(load_engine("spark").open(cluster, {"bridge": bridge})) as session:
                for kind, work in works.items():
                    yield cost(BRIDGE, f"{bridge}, {kind}", "s/row", _added(session, work))
                if bridge == "arrow":
                    batch = _added(session, works["int64"], batch_rows=1_000)
                    yield cost(BRIDGE, "arrow in batches of 1,000, int64", "s/row", batch)


def _added(session: Any, work: TableData, batch_rows: int = 10_000) -> list[float]:
    """Seconds a row of one core that the map adds."""
    plain = float(np.median(_runs(session, job(work, mapped=False), 3)))
    cores = len(work.paths)
    return [max(0.0, s - plain) * cores / work.rows for s in _runs(session, job(work, mapped=True, batch_rows=batch_rows), 3)]


def _runs(session: Any, work: BoundWorkload, repeats: int) -> list[float]:
    session.prepare(work)
    found = []
    with tempfile.TemporaryDirectory(prefix="wt-out-") as folder:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            session.run(work, Recorder(), Path(folder))
            found.append(time.perf_counter() - start)
    return found[1:]


def same(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The kernel: nothing."""
    return batch


def table(folder: Path, values: pa.Array, kind: str, *, parts: int) -> TableData:
    """One column ``v`` in so many files; a single value is repeated in each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    each = max(1, len(values) // parts)
    for number in range(parts):
        part = values.slice(number * each, each) if len(values) >= parts else values
        paths.append(str(folder / f"part-{number:04d}.parquet"))
        pq.write_table(pa.table({"v": part}), paths[-1])
    rows = each * parts if len(values) >= parts else len(values) * parts
    return TableData(
        name="t", format="parquet", paths=tuple(paths), rows=rows, bytes=sum(Path(p).stat().st_size for p in paths),
        schema=(("v", kind),),
    )  # fmt: skip


def job(work: TableData, *, mapped: bool, batch_rows: int = 10_000) -> BoundWorkload:
    """Read the column, hand it to Python where ``mapped``, and take its largest value."""
    kernel = MapBatches(function="windtunnel.sim.calibration.crossings:same", schema=work.schema)
    operators = [Operator(name="scan", kind="scan", kernel=Scan(table="t", columns=("v",)))]
    if mapped:
        operators.append(
            Operator(name="same", kind="map", kernel=kernel, inputs=("scan",), batch_rows=batch_rows, language="python")
        )
    largest = Aggregate(keys=(), measures=(Measure(name="most", function="max", column="v"),))
    operators.append(Operator(name="most", kind="aggregate", kernel=largest, inputs=(operators[-1].name,)))
    data = DatasetSpec(
        name="t", generator="windtunnel.sim.calibration.crossings:table", partitions=len(work.paths), rows=work.rows
    )
    workload = Workload(name="crossing", kind="etl", pipeline=Pipeline(tuple(operators)), dataset=data)
    return BoundWorkload(workload=workload, tables=(work,), folder=Path(work.paths[0]).parent)


if __name__ == "__main__":
    sys.exit(main())
