"""Ray Data: operators on blocks of Arrow tables, run by its streaming executor on tasks and actor pools of a Ray cluster.

Shuffles (aggregates, joins, sorts) are Ray Data's own; expressions and kernels run in ``map_batches`` on Arrow tables, which Ray
fuses with their neighbours. Two ways to set it up, because they differ more than most engines do: ``tuned`` keeps as many worker
processes as the job needs and takes as many blocks as the cluster has CPUs; ``stock`` leaves every default of Ray alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from windtunnel.engines.adapters import ray_cluster, ray_declared
from windtunnel.engines.adapters.common import DECLARED_JOIN, ForeignSession, output_columns, output_is_files, sorted_limit
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.arrow import arrow_schema, as_dataset, call, call_groups
from windtunnel.engines.declared import is_declared
from windtunnel.engines.local import kernels
from windtunnel.engines.models.ray import pool_of
from windtunnel.engines.notes import crossing
from windtunnel.errors import InputError
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.expr import Expr, columns_of
from windtunnel.spec.plan import Aggregate, Filter, GroupMap, Join, Limit, MapBatches, Operator, Pipeline, Project, Scan, Sort
from windtunnel.spec.units import parse_bytes, parse_count, parse_fraction, parse_size
from windtunnel.spec.workload import BoundWorkload, TableData

if TYPE_CHECKING:
    from ray.data import Dataset

_ALL = "__all"  # the group of an aggregate without keys


class RaySession(ForeignSession):
    """A Ray cluster of this machine, or a client of a running one."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        super().__init__("ray", cluster, options, RayEngine.capabilities)
        self._partitions = int(options["partitions"] or cluster.cpus)
        self._ran: Dataset | None = None
        self._spilled = 0.0
        with ray_cluster.opening(self.close, cluster.address):
            ray_cluster.start(cluster, options, self._scratch, tuned=options["tuning"] == "tuned")
            self._configure()

    def _configure(self) -> None:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        if (block := self._options["block"]) is not None:
            context.target_max_block_size = parse_bytes(block)
        if (share := self._options["op_reservation"]) is not None:
            context.op_resource_reservation_enabled = share > 0
            context.op_resource_reservation_ratio = float(share)
        if self._options["tuning"] == "tuned":
            context.min_parallelism = context.read_op_min_num_blocks = self._cluster.cpus
            context.default_hash_shuffle_parallelism = self._partitions
            if self._cluster.address is None:
                ray_cluster.warm(self._cluster.cpus, "ray.data", "windtunnel.engines.local.kernels")

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        if is_declared(workload.pipeline):
            self._ran = ray_declared.frames(workload, self._options, self._partitions)
            return collected(self._ran, ("payload",))
        self._ran = self._dataset(workload)
        if output_is_files(workload):
            self._ran.write_parquet(str(output))
            return None
        return collected(self._ran, output_columns(workload, workload.pipeline.output.name))

    def _stream(self, workload: BoundWorkload) -> Iterator[pa.Table]:
        declared = is_declared(workload.pipeline)
        self._ran = ray_declared.frames(workload, self._options, self._partitions) if declared else self._dataset(workload)
        self._ran.context.execution_options.preserve_order = False  # a training loop takes what is there
        yield from self._ran.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)

    def _dataset(self, workload: BoundWorkload) -> Dataset:
        """The whole pipeline, its sink aside."""
        frames: dict[str, Dataset] = {}
        for op in workload.pipeline.operators:
            if op.kind == "sink":
                return frames[op.inputs[0]]
            frames[op.name] = self._frame(op, frames, workload)
        return frames[workload.pipeline.output.name]

    def _account(self) -> dict[str, float]:
        """Ray Data's own statistics of the last execution; none where it keeps them to itself."""
        from ray.data._internal.stats import DatasetStatsSummary

        if self._ran is None:
            return {}
        try:
            summary = self._ran.get_stats_summary()
        except Exception:  # not part of Ray's stable interface
            return {}
        found = _told(list(DatasetStatsSummary._collect_dataset_stats_summaries(summary)))
        before, self._spilled = self._spilled, float(summary.global_bytes_spilled)
        return {**found, "spilled_bytes": self._spilled - before}

    def _frame(self, op: Operator, frames: Mapping[str, Dataset], workload: BoundWorkload) -> Dataset:
        """One operator on the data sets of its inputs."""
        kernel, partitions = op.kernel, self._partitions
        if isinstance(kernel, Scan):
            return _scan(kernel, workload.table(kernel.table))
        source = frames[op.inputs[0]]
        if isinstance(kernel, Filter):
            return _tables(source, _filter, predicate=kernel.predicate)
        if isinstance(kernel, Project):
            return _tables(source, _project, spec=kernel)
        if isinstance(kernel, MapBatches):
            tuned = self._options["tuning"] == "tuned"
            return source.map_batches(**_kernel(op, self._cluster.cpus if tuned else None, _pools(workload.pipeline)))
        if isinstance(kernel, GroupMap):
            return _tables(source.repartition(partitions, keys=list(kernel.keys)), _groups, op=op)
        if isinstance(kernel, Aggregate):
            return _aggregate(kernel, source, partitions)
        if isinstance(kernel, Join):
            return _join(kernel, source, frames[op.inputs[1]], output_columns(workload, op.inputs[1]), partitions)
        if isinstance(kernel, Sort):
            return source.sort([k.column for k in kernel.keys], [k.descending for k in kernel.keys])
        if isinstance(kernel, Limit):
            sort = sorted_limit(workload.pipeline, op)
            if sort is not None and isinstance(sort.kernel, Sort):
                return _top(frames[sort.inputs[0]], sort.kernel, kernel.count, output_columns(workload, op.name))
            return source.limit(kernel.count)
        raise InputError(f"ray has no data set operation for operator {op.name!r} of kind {op.kind!r}")

    def close(self) -> None:
        """Leave the cluster, and end one that was started here."""
        ray_cluster.end(self._scratch)
        super().close()


def _told(summaries: list[Any]) -> dict[str, float]:
    """Tasks, their seconds, and those of what lies around their functions: blocks to batches and back."""
    operators = [op for summary in summaries for op in summary.operators_stats if not op.is_sub_operator]

    def total(name: str) -> float:
        return float(sum(getattr(op, name).sum for op in operators if getattr(op, name) is not None))

    return {
        "tasks": float(sum(op.task_rows.count for op in operators if op.task_rows is not None)),
        "task_s": total("wall_time"),
        "around_kernels_s": total("input_prep_time") + total("output_build_time"),
    }


# -- operators --------------------------------------------------------------------------------------------------------


def _tables(source: Dataset, function: Any, **arguments: Any) -> Dataset:
    """A function of whole blocks as Arrow tables."""
    return source.map_batches(function, fn_kwargs=arguments, batch_format="pyarrow", batch_size=None)


def _scan(kernel: Scan, table: TableData) -> Dataset:
    """Parquet by Ray's reader with columns and predicate pushed down; other formats file by file through Arrow's.

    Ray's second reader (2.60's own choice; ``tuned`` keeps the first) takes no predicate of Arrow's: what it read is filtered then.
    """
    import ray

    if table.format == "parquet":
        read = partial(ray.data.read_parquet, list(table.paths), partitioning=None, schema=arrow_schema(table.schema))
        if kernel.predicate is None:
            return read(columns=list(kernel.columns))
        if not getattr(ray.data.DataContext.get_current(), "use_datasource_v2", False):
            return read(columns=list(kernel.columns), filter=kernels.scan_predicate(kernel.predicate))
        wanted = dict.fromkeys((*kernel.columns, *columns_of(kernel.predicate)))
        kept = _tables(read(columns=list(wanted)), _filter, predicate=kernel.predicate)
        return kept.select_columns(list(kernel.columns))
    files = ray.data.from_items([{"path": p} for p in table.paths], override_num_blocks=len(table.paths))
    return _tables(files, _read, table=table, kernel=kernel)


def _read(files: pa.Table, table: TableData, kernel: Scan) -> Iterator[pa.Table]:
    from dataclasses import replace

    for path in files["path"].to_pylist():
        source = as_dataset(replace(table, paths=(path,)))
        predicate = None if kernel.predicate is None else kernels.scan_predicate(kernel.predicate)
        yield source.to_table(columns=list(kernel.columns), filter=predicate, use_threads=False)


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    found: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return found


def _filter(table: pa.Table, predicate: Expr) -> pa.Table:
    return pa.Table.from_batches([b.filter(kernels.evaluate(predicate, b)) for b in _batches(table)], schema=table.schema)


def _project(table: pa.Table, spec: Project) -> pa.Table:
    return pa.Table.from_batches([kernels.project(spec, b) for b in _batches(table) or [_no_rows(table)]])


def _no_rows(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in table.schema], schema=table.schema)


def _pools(pipeline: Pipeline) -> int:
    """How many operators keep actors that hold CPUs."""
    return sum(1 for op in pipeline.operators if op.state.kind == "actor" and op.resources.cpus and not op.resources.gpus)


def _kernel(op: Operator, tuned_cpus: int | None, pools: int) -> dict[str, Any]:
    """Arguments of ``map_batches``: a kernel as tasks, or as a pool of actors that load it once each.

    Where the plan leaves the size of a pool open, the tuned way is `pool_of`, on ``tuned_cpus`` CPUs among ``pools`` such pools.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    pool, needs = op.concurrency, op.resources
    shared: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": op.batch_rows or None}
    shared |= {"num_cpus": needs.cpus, "num_gpus": needs.gpus or None}
    if op.state.kind != "actor":
        most = pool.maximum if pool is not None else None
        return {**shared, "fn": _apply, "fn_kwargs": {"op": op}, "compute": TaskPoolStrategy(size=most)}
    least, most = (pool.minimum, pool.maximum) if pool is not None else (1, None)
    if pool is None and tuned_cpus and needs.cpus and not needs.gpus:
        least, shared["num_cpus"] = pool_of(needs.cpus, tuned_cpus, pools)
        most = least
    strategy = ActorPoolStrategy(min_size=least, max_size=most)
    return {**shared, "fn": Stateful, "fn_constructor_kwargs": {"op": op}, "compute": strategy}


def _apply(table: pa.Table, op: Operator) -> Iterator[pa.Table]:
    yield from crossing(_through(table, op, call(op)))


class Stateful:
    """An actor of a pool: the kernel is loaded when it starts."""

    def __init__(self, op: Operator) -> None:
        self._op, self._apply = op, call(op)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Rows of a block through the kernel."""
        yield from crossing(_through(table, self._op, self._apply))


def _through(table: pa.Table, op: Operator, apply: Any) -> Iterator[pa.Table]:
    assert isinstance(op.kernel, (MapBatches, GroupMap))
    empty = True
    for batch in _batches(table):
        for out in apply(batch):
            empty = False
            yield pa.Table.from_batches([out])
    if empty:
        yield arrow_schema(op.kernel.schema).empty_table()


def _groups(table: pa.Table, op: Operator) -> Iterator[pa.Table]:
    """All rows of some groups: in order, so that the kernel finds them together."""
    kernel = op.kernel
    assert isinstance(kernel, GroupMap)
    if table.num_rows:
        table = table.sort_by([(c, "ascending") for c in (*kernel.keys, *kernel.order_by)])
    yield from crossing(_through(table, op, call_groups(op)))


def _aggregate(kernel: Aggregate, source: Dataset, partitions: int) -> Dataset:
    from ray.data.aggregate import Count, Max, Mean, Min, Sum

    functions = {"sum": Sum, "mean": Mean, "min": Min, "max": Max}
    measures: list[Any] = [
        Count(alias_name=m.name) if m.column is None else functions[m.function](m.column, alias_name=m.name)
        for m in kernel.measures
    ]
    keyed = source if kernel.keys else _tables(source, _one_group)
    found = keyed.groupby(list(kernel.keys) or [_ALL], num_partitions=partitions if kernel.keys else 1).aggregate(*measures)
    return found.select_columns([*kernel.keys, *(m.name for m in kernel.measures)])


def _one_group(table: pa.Table) -> pa.Table:
    return table.append_column(_ALL, pa.array([0] * table.num_rows, pa.int8()))


def _join(kernel: Join, left: Dataset, right: Dataset, right_columns: tuple[str, ...], partitions: int) -> Dataset:
    """A small right side is put into the object store once and joined where the left side lies; else a hash join."""
    import ray

    if kernel.broadcast:
        small = ray.put(collected(right, right_columns))
        return _tables(left, _join_small, right=small, spec=kernel)
    how = {"inner": "inner", "semi": "left_semi"}[kernel.how]
    keys: dict[str, Any] = {"on": kernel.left_keys, "right_on": kernel.right_keys}
    return left.join(right, how, partitions, **keys)


def _join_small(table: pa.Table, right: Any, spec: Join) -> pa.Table:
    import ray

    return kernels.join(spec, table, ray.get(right))


def _top(source: Dataset, sort: Sort, count: int, columns: tuple[str, ...]) -> Dataset:
    """The first rows of each block, then of them all."""
    import ray

    first = collected(_tables(source, _first, sort=sort, count=count), columns)
    return ray.data.from_arrow(_first(first, sort, count))


def _first(table: pa.Table, sort: Sort, count: int) -> pa.Table:
    if not table.num_rows:
        return table
    return table.sort_by([(k.column, "descending" if k.descending else "ascending") for k in sort.keys]).slice(0, count)


def collected(source: Dataset, columns: tuple[str, ...]) -> pa.Table:
    """All blocks of a data set as one table in this process."""
    import ray

    tables = [t for t in ray.get(source.to_arrow_refs()) if t.num_columns]
    if not tables:
        return pa.table({c: pa.nulls(0) for c in columns})
    filled = [t for t in tables if t.num_rows] or tables[:1]
    return pa.concat_tables(filled, promote_options="permissive").select(list(columns))


class RayEngine:
    """Ray Data on a Ray cluster."""

    name = "ray"
    options = (
        Option(
            name="tuning", default="tuned", choices=("tuned", "stock"),
            doc="keep worker processes and take as many blocks as CPUs, or leave every default of Ray as it is",
        ),
        Option(name="partitions", check=parse_count, default=None, doc="partitions after a shuffle when tuned; default the number of CPUs"),
        Option(
            name="object_store", check=parse_size, default=None,
            doc="bytes of the object store; default 30 % of the memory, as Ray has it",
        ),
        Option(name="block", check=parse_size, default=None, doc="largest bytes of a block; default 128 MiB, as Ray has it"),
        Option(
            name="op_reservation", check=parse_fraction, default=None,
            doc="share of the budget reserved for operators; default 0.5, as Ray has it",
        ),
        Option(name="num_cpus", check=parse_count, default=None, doc="CPUs that Ray may give to tasks; default all"),
        Option(name="fuse", default=False, doc="let Ray fuse operators declared by cost", choices=(True, False)),
        Option(name="concurrency", default=None, doc="most tasks of a declared operator at once, by operator: { load = 4 }"),
        Option(
            name="materialize", default=False, choices=(True, False),
            doc="materialise every declared operator's output before the next begins: the staged way",
        ),
    )  # fmt: skip
    capabilities = Capabilities(
        gaps={"declared join": DECLARED_JOIN},
        features={
            "processes": "worker processes that Ray starts for tasks and actors; it retries tasks of lost ones",
            "retries": "lost blocks are computed again from their lineage",
            "kernels": "map_batches on Arrow tables that lie in shared memory",
            "batches": "as they come (iter_batches), two blocks ahead, in any order",
            "state": "loaded again: Ray restarts the pool's actor, which loads anew, and repeats its calls",
            **ray_cluster.FEATURES,
        },
    )

    def version(self) -> str:
        """Ray's version."""
        return ray_cluster.version()

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> RaySession:
        """Start a cluster bound to loopback, or connect to ``cluster.address``."""
        return RaySession(cluster, resolve_options(self.name, self.options, options))
