"""Hadoop MapReduce: a JVM a task, map output sorted onto local disk, reducers fetch and merge, job output replicated.

What the model knows, with its source (Hadoop 3.4 mapred-default.xml):

* Every exchange is a job's shuffle; everything between operators goes through disk.
* A task runs in a JVM of its own (``mapreduce.job.jvm.numtasks`` = 1).
* Map output beyond the sort buffer (``mapreduce.task.io.sort.mb`` = 100 MB, spilled at 0.80) is written in spills and merged:
  once more to disk and back. Reducers merge what they fetched the same way (``io.sort.factor`` = 10 keeps it to one pass).
* Four attempts a task (``mapreduce.map.maxattempts``); the output of a job is replicated (``dfs.replication`` = 3).

Slow start (``mapreduce.job.reduce.slowstart.completedmaps`` = 0.05) lets reducers fetch while maps run; here a reducer
begins when all maps have ended, and reads what it fetches while it works.
"""

from __future__ import annotations

from windtunnel.engines.api import Option
from windtunnel.engines.models.bulk import Bulk
from windtunnel.engines.models.entry import ModelEntry
from windtunnel.engines.models.spark import plan
from windtunnel.engines.models.traits import Constant, Traits

TRAITS = Traits(
    outputs="disk",
    overlap=True,
    page_cache=True,
    constants=(
        Constant(name="startup_s", value=8.0, source="submission, splits, application master; a small local job took 7.2 s"),
        Constant(name="launch_s", value=1e-3, source="container request and launch in the application master"),
        Constant(name="done_s", value=0.5e-3, source="as launch_s"),
        Constant(name="task_s", value=1.0, source="start and warm-up of a JVM a task"),
        Constant(name="merge_bytes", value=80e6, source="sort buffer of 100 MB spilled at 0.80"),
        Constant(name="worker_memory_bytes", value=1e9, source="mapreduce.map.memory.mb = 1024"),
        Constant(name="bridge_bytes_per_s", value=0.3e9, source="lines through the pipes of Hadoop Streaming"),
        Constant(name="bridge_row_s", value=1e-6, source="as above"),
    ),
)  # fmt: skip


class MapReduce(Bulk):
    """The model; see the module for the rules and their sources."""

    def __init__(self) -> None:
        super().__init__(prefetch=False)


ENTRY = ModelEntry(
    name="mapreduce",
    build=MapReduce,
    plan=plan,
    traits=TRAITS,
    world={
        "partitions": Option(name="shuffle_partitions", default=None, doc="reduce tasks; default as many as CPUs, or as before"),
        "compression": Option(name="compression", default=1.0, doc="size of files over the size of their rows"),
        "replication": Option(name="replication", default=3, doc="copies of the job's output"),
    },
    options=(),
    features={"barrier": "reduce begins when all maps have ended", "shuffle": "sorted onto local disk, merged by the reducer"},
)
