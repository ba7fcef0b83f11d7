"""Dask: data frames of pandas partitions (Arrow-backed columns) on a distributed scheduler, in processes or threads.

Relational operators are Dask's own; kernels run in ``map_partitions`` on Arrow batches of a partition.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.adapters import dask_declared
from windtunnel.engines.adapters.common import DECLARED_JOIN, ForeignSession, output_is_files, sorted_limit
from windtunnel.engines.adapters.dask_declared import CPU, DEVICE
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, call, call_groups, file_format
from windtunnel.engines.declared import is_declared
from windtunnel.engines.notes import crossing
from windtunnel.errors import InputError, RunFailed
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import Expr, fold
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Operator, Project, Scan, Sort
from windtunnel.spec.units import parse_count, parse_seconds
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

_ONE = "__rows"  # a column of ones that counts rows
_ALL = "__all"  # the group of an aggregate without keys


class DaskSession(ForeignSession):
    """A local cluster, or a client of a running one."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        import dask
        from distributed import Client, LocalCluster

        super().__init__("dask", cluster, options, DaskEngine.capabilities)
        shuffle = {"dataframe.shuffle.method": options["shuffle"], "dataframe.convert-string": False}
        self._config = dask.config.set({**shuffle, "temporary-directory": str(self._scratch)})
        self._local: Any = None
        if cluster.address is None:
            self._local = LocalCluster(**_local(cluster, options, self._scratch))
            _add_devices(self._local, cluster)
        try:
            self._client = Client(self._local or cluster.address, timeout=parse_seconds(options["connect_timeout"]))
        except OSError as error:
            self.close()
            raise RunFailed(
                f"no Dask scheduler answers at {cluster.address}: {error}; start one, or leave the address out"
            ) from error
        self._told: dict[str, float] = {}
        self._partitions = int(options["partitions"] or cluster.cpus)
        if self._local is not None:
            self._client.wait_for_workers(len(self._local.worker_spec))

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        if is_declared(workload.pipeline):
            return dask_declared.run(workload, self._client, self._partitions, self._cluster.gpus, self._scratch)
        answer = query(workload, self._partitions)
        if output_is_files(workload):
            answer.to_parquet(str(output), write_index=False, name_function=lambda i: f"part-{i:06d}.parquet")
            return None
        return pa.Table.from_pandas(answer.compute(), preserve_index=False)

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        """Partition by partition; a declared pipeline all at the end."""
        if is_declared(workload.pipeline):
            yield from super()._stream(workload)
            return
        from distributed import as_completed

        partitions = self._client.compute(query(workload, self._partitions).to_delayed())
        for done in as_completed(partitions):
            yield pa.Table.from_pandas(done.result(), preserve_index=False)
            done.release()

    def _account(self) -> dict[str, float]:
        """What the scheduler and the workers counted since the last look."""
        now = dict(self._client.run_on_scheduler(_durations))
        for counts in self._client.run(_spills).values():
            for name, value in counts.items():
                now[name] = now.get(name, 0.0) + value
        new = {name: value - self._told.get(name, 0.0) for name, value in now.items()}
        self._told = now
        return new

    def close(self) -> None:
        """End client, workers and scheduler."""
        if hasattr(self, "_client"):
            self._client.close()
        if self._local is not None:
            self._local.close()
            self._local = None
        super().close()


def _durations(dask_scheduler: Any) -> dict[str, float]:
    """Tasks and their seconds, of all that a scheduler has seen."""
    prefixes = list(dask_scheduler.task_prefixes.values())
    actions = {"compute": "task_s", "transfer": "exchange_s", "deserialize": "scheduling_s"}
    found = {told: sum(float(p.all_durations.get(action, 0.0)) for p in prefixes) for action, told in actions.items()}
    return {**found, "tasks": float(sum(p.state_counts["memory"] for p in prefixes))}


def _spills(dask_worker: Any) -> dict[str, float]:
    """What a worker wrote to and read from its disk."""
    found = {"spilled_bytes": 0.0, "spill_s": 0.0}
    for key, value in dask_worker.digests_total.items():
        if isinstance(key, tuple) and key[-2:] == ("disk-write", "bytes"):
            found["spilled_bytes"] += value
        if isinstance(key, tuple) and key[-2:] in (("disk-write", "seconds"), ("disk-read", "seconds")):
            found["spill_s"] += value
    return found


def _local(cluster: ClusterSpec, options: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    processes = bool(options["processes"])
    workers = cluster.cpus if processes else 1
    common: dict[str, Any] = {
        "n_workers": workers, "threads_per_worker": max(1, cluster.cpus // workers), "processes": processes,
        "memory_limit": cluster.memory_bytes // (workers + cluster.gpus if processes else 1), "dashboard_address": None, "silence_logs": 50,
        "local_directory": str(scratch),
    }  # fmt: skip
    if cluster.gpus:
        common["resources"] = {CPU: max(1, cluster.cpus // workers)}
    return {**common, "host": "127.0.0.1"} if processes else common


def _add_devices(local: Any, cluster: ClusterSpec) -> None:
    """A worker of one thread for each device: a device's task does not hold a CPU's place."""
    if cluster.gpus:
        plain = local.new_spec
        local.new_spec = {**plain, "options": {**plain["options"], "nthreads": 1, "resources": {DEVICE: 1}}}
        local.scale(len(local.worker_spec) + cluster.gpus)


# -- operators --------------------------------------------------------------------------------------------------------


def query(workload: BoundWorkload, partitions: int) -> dd.DataFrame:
    """The whole pipeline, its sink aside."""
    frames: dict[str, dd.DataFrame] = {}
    for op in workload.pipeline.operators:
        if op.kind == "sink":
            return frames[op.inputs[0]]
        frames[op.name] = frame(op, frames, workload, partitions)
    return frames[workload.pipeline.output.name]


def frame(op: Operator, frames: Mapping[str, dd.DataFrame], workload: BoundWorkload, partitions: int) -> dd.DataFrame:
    """One operator on the data frames of its inputs."""
    kernel = op.kernel
    if isinstance(kernel, Scan):
        return _scan(kernel, workload.table(kernel.table))
    source = frames[op.inputs[0]]
    if isinstance(kernel, Filter):
        return source[expression(kernel.predicate, source)]
    if isinstance(kernel, Project):
        return source.assign(**{n: expression(e, source) for n, e in kernel.columns})[[n for n, _ in kernel.columns]]
    if isinstance(kernel, MapBatches):
        return source.map_partitions(_call, op, meta=_meta(kernel.schema))
    if isinstance(kernel, GroupMap):
        shuffled = source.shuffle(on=list(kernel.keys), npartitions=partitions)
        return shuffled.map_partitions(_call_groups, op, meta=_meta(kernel.schema))
    if isinstance(kernel, Aggregate):
        return _aggregate(kernel, source, partitions)
    if isinstance(kernel, Join):
        return _join(kernel, source, frames[op.inputs[1]])
    if isinstance(kernel, Sort):
        return _sort(kernel, source, partitions)
    if isinstance(kernel, Limit):
        sort = sorted_limit(workload.pipeline, op)
        if sort is not None and isinstance(sort.kernel, Sort):
            return _top(frames[sort.inputs[0]], sort.kernel, kernel.count)
        return source.head(kernel.count, npartitions=-1, compute=False)
    raise InputError(f"dask has no data frame operation for operator {op.name!r} of kind {op.kind!r}")


def _scan(kernel: Scan, table: TableData) -> dd.DataFrame:
    """One partition a file, read by Arrow with columns and predicate pushed down, as Dask's own Arrow reader does."""
    import dask.dataframe as dd

    kinds = dict(table.schema)
    meta = _meta(tuple((c, kinds[c]) for c in kernel.columns))
    return dd.from_map(_read, list(table.paths), table=table, kernel=kernel, meta=meta)


def _read(path: str, *, table: TableData, kernel: Scan) -> pd.DataFrame:
    import pyarrow.dataset as ds

    from windtunnel.engines.local.kernels import scan_predicate

    schema = arrow_schema(table.schema)
    source = ds.dataset(path, schema=schema, format=file_format(table, schema))
    predicate = None if kernel.predicate is None else scan_predicate(kernel.predicate)
    return _pandas(source.to_table(columns=list(kernel.columns), filter=predicate, use_threads=False))


def _pandas(table: pa.Table) -> pd.DataFrame:
    import pandas as pd

    data: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return data


def _meta(fields: tuple[tuple[str, str], ...]) -> pd.DataFrame:
    return _pandas(arrow_schema(fields).empty_table())


def _call(data: pd.DataFrame, op: Operator) -> pd.DataFrame:
    assert isinstance(op.kernel, MapBatches)
    return _through(data, call(op), arrow_schema(op.kernel.schema))


def _call_groups(data: pd.DataFrame, op: Operator) -> pd.DataFrame:
    assert isinstance(op.kernel, GroupMap)
    ordered = data.sort_values([*op.kernel.keys, *op.kernel.order_by])
    return _through(ordered, call_groups(op), arrow_schema(op.kernel.schema))


def _through(data: pd.DataFrame, apply: Any, schema: pa.Schema) -> pd.DataFrame:
    made: pd.DataFrame
    (made,) = crossing(_converted(data, apply, schema))
    return made


def _converted(data: pd.DataFrame, apply: Any, schema: pa.Schema) -> Iterator[pd.DataFrame]:
    batches = pa.Table.from_pandas(data, preserve_index=False).combine_chunks().to_batches()
    outputs = [out for batch in batches for out in apply(batch)]
    yield _pandas(pa.Table.from_batches(outputs, schema=schema))


def _aggregate(kernel: Aggregate, source: dd.DataFrame, partitions: int) -> dd.DataFrame:
    keys = list(kernel.keys) or [_ALL]
    needed = source.assign(**{_ONE: 1}, **({} if kernel.keys else {_ALL: 0}))
    asked: dict[str, list[str]] = {}
    for m in kernel.measures:
        column, function = (_ONE, "sum") if m.column is None else (m.column, m.function)
        if function not in asked.setdefault(column, []):
            asked[column].append(function)
    groups = needed.groupby(keys, sort=False, dropna=False, observed=True)
    found = groups.agg(asked, split_out=partitions if kernel.keys else 1, shuffle_method="tasks" if kernel.keys else None)
    columns = [(c, f) for c, fs in asked.items() for f in fs]
    places = [columns.index((_ONE, "sum") if m.column is None else (m.column, m.function)) for m in kernel.measures]
    return found.map_partitions(_named, kernel, places)


def _named(data: pd.DataFrame, kernel: Aggregate, places: list[int]) -> pd.DataFrame:
    """Keys as columns again, then the measures in their order."""
    import pandas as pd

    keys = data.index.to_frame(index=False)[list(kernel.keys)]
    values = {m.name: data.iloc[:, i].reset_index(drop=True) for m, i in zip(kernel.measures, places, strict=True)}
    return pd.concat([keys, pd.DataFrame(values)], axis=1)


def _join(kernel: Join, left: dd.DataFrame, right: dd.DataFrame) -> dd.DataFrame:
    keys = {"left_on": list(kernel.left_keys), "right_on": list(kernel.right_keys)}
    broadcast = True if kernel.broadcast else None
    if kernel.how == "semi":
        right = right[list(kernel.right_keys)].drop_duplicates()
    joined = left.merge(right, how="inner", broadcast=broadcast, **keys)
    extra = [b for a, b in zip(kernel.left_keys, kernel.right_keys, strict=True) if a != b]
    return joined.drop(columns=extra) if extra else joined


def _sort(kernel: Sort, source: dd.DataFrame, partitions: int) -> dd.DataFrame:
    directions = [not k.descending for k in kernel.keys]
    names = [k.column for k in kernel.keys]
    if len(set(directions)) == 1:
        return source.sort_values(names, ascending=directions[0], npartitions=partitions)
    # Dask orders all keys one way: it ranges over the first, and each partition sorts by all of them
    ranged = source.sort_values(names[:1], ascending=directions[0], npartitions=partitions)
    return ranged.map_partitions(lambda d: d.sort_values(names, ascending=directions))


def _top(source: dd.DataFrame, sort: Sort, count: int) -> dd.DataFrame:
    """The first rows of each partition, then of them all."""
    names, directions = [k.column for k in sort.keys], [not k.descending for k in sort.keys]
    first = source.map_partitions(lambda d: d.sort_values(names, ascending=directions).head(count))
    return first.repartition(npartitions=1).map_partitions(lambda d: d.sort_values(names, ascending=directions).head(count))


def expression(expr: Expr, source: dd.DataFrame) -> Any:
    """An expression over the columns of a data frame; a literal stays one."""
    functions: dict[str, Any] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a.astype("double[pyarrow]") / b,
        "equal": lambda a, b: a == b, "not_equal": lambda a, b: a != b, "less": lambda a, b: a < b,
        "less_equal": lambda a, b: a <= b, "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
        "and": lambda a, b: a & b, "or": lambda a, b: a | b, "not": lambda a: ~a,
        "is_in": lambda a, *values: a.isin(list(values)), "if_else": _if_else,
        "year": lambda a: a.dt.year.astype("int64[pyarrow]"), "starts_with": lambda a, b: a.str.startswith(b),
        "length": lambda a: a.str.len().astype("int64[pyarrow]"), "cast_float": lambda a: a.astype("double[pyarrow]"),
        "cast_int": lambda a: a.astype("int64[pyarrow]"), "is_null": lambda a: a.isna(),
    }  # fmt: skip
    return fold(expr, source.__getitem__, lambda v: v, functions)


def _if_else(condition: Any, then: Any, otherwise: Any) -> Any:
    if hasattr(then, "where"):
        return then.where(condition, otherwise)
    if hasattr(otherwise, "mask"):
        return otherwise.mask(condition, then)
    kind = "int64[pyarrow]" if isinstance(then, int) else "double[pyarrow]"
    return condition.astype("int64[pyarrow]").astype(kind) * (then - otherwise) + otherwise


class DaskEngine:
    """Dask data frames on dask.distributed."""

    name = "dask"
    options = (
        Option(
            name="processes",
            default=True,
            doc="one worker process a CPU, or one process with a thread a CPU",
            choices=(True, False),
        ),
        Option(name="shuffle", default="tasks", doc="how partitions are exchanged", choices=("tasks", "p2p")),
        Option(
            name="partitions", check=parse_count, default=None, doc="partitions after an exchange; default the number of CPUs"
        ),
        Option(name="connect_timeout", default="10s", doc="how long to wait for the scheduler of an address"),
    )
    capabilities = Capabilities(
        gaps={"declared join": DECLARED_JOIN},
        features={
            "processes": "one worker process a CPU slot; a lost one is restarted by its nanny and its tasks run again",
            "spill": "workers write pandas partitions to disk above a share of their memory limit",
            "retries": "results lost with a worker are computed again from their lineage",
            "state": "loaded again: a nanny restarts the worker, whose tasks run again (a lost Dask actor is never rebuilt: none is used)",
            "devices": "data frames carry no resources: kernels in any worker claim a device themselves and take turns on it",
            "batches": "partition by partition as they are done (as_completed), without backpressure",
            "kernels": "map_partitions, pandas to Arrow and back without copies where types allow",
            "remote": "tcp://host:port of a running scheduler whose workers see the same files",
        },
    )

    def version(self) -> str:
        """dask.distributed's version."""
        import distributed

        return str(distributed.__version__)

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> DaskSession:
        """Start a local cluster bound to loopback, or connect to ``cluster.address``."""
        os.environ.setdefault("DASK_DISTRIBUTED__DIAGNOSTICS__NVML", "False")
        return DaskSession(cluster, resolve_options(self.name, self.options, options))
