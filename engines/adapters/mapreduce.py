"""Hadoop MapReduce: real jobs of Hadoop 3.5 through the jars that PySpark ships, with Python functions behind pipes.

What it is, exactly: Hadoop's ``Job`` with its ``LocalJobRunner``: splits, map tasks, partitioner, sort and spill to disk, shuffle, merge,
reduce tasks, output committer; one JVM for the session, a thread a task, no YARN, no HDFS, no daemon. A pipeline becomes a job an
exchange (and a map-only job where there is none between), each of which writes its output to disk before the next starts: the model
of Dean and Ghemawat (OSDI 2004). Map and reduce functions run in Python processes, one a CPU, kept for the session (Hadoop Streaming
would start one a task). A record is a partition's number and a block of rows as Arrow bytes, not a row: Hadoop moves and sorts
blocks by partition, the rows inside are grouped, joined and sorted by Arrow in the reducer, and aggregates are combined inside the
mapper. Sorts are split by sampled ranges, as TeraSort's are.

The Java side is `WindtunnelMapReduce.java`, compiled by Janino from the same jars when the JVM starts, so no JDK is needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa

from windtunnel.engines import physical
from windtunnel.engines.adapters.common import DECLARED, ForeignSession, output_is_files
from windtunnel.engines.adapters.mapreduce_worker import read_blocks
from windtunnel.engines.api import Capabilities, Option, resolve_options
from windtunnel.engines.foreign.codec import encode
from windtunnel.errors import MissingEngine, RunFailed
from windtunnel.model import Stage
from windtunnel.running.java import WAY_OUT, find_java
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_bytes, parse_count, parse_size
from windtunnel.spec.workload import BoundWorkload

SOURCE = Path(__file__).with_name("WindtunnelMapReduce.java")
_WORKER = "windtunnel.engines.adapters.mapreduce_worker"
NO_REASON = "NA"  # what Hadoop's JobStatus says where nobody told it why


class HadoopFailed(Exception):
    """What Hadoop, or a Python worker through it, said."""


class MapReduceSession(ForeignSession):
    """A JVM that runs one job at a time, and the Python workers that it starts."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any], java: Path, jars: Path) -> None:
        super().__init__("mapreduce", cluster, options, MapReduceEngine.capabilities)
        memory = cluster.memory_bytes // 2**20
        arguments = [str(self._scratch / "hadoop"), str(cluster.cpus), str(max(16, min(256, memory // 32)))]
        command = [
            str(java / "bin" / "java"), f"-Xmx{max(512, memory // 2)}m", "-XX:-UsePerfData", "-Dlog4j2.level=ERROR",
            f"-Djava.io.tmpdir={self._scratch}", "-cp", f"{jars}/*", "org.codehaus.janino.SimpleCompiler", str(SOURCE), SOURCE.stem,
        ]  # fmt: skip
        with (self._scratch / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *arguments, sys.executable, "-m", _WORKER],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env={**os.environ, "POLARS_MAX_THREADS": "1"},
            )  # fmt: skip
        self._runs = 0
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            ending = self._ending()
            self.close()
            raise RunFailed(f"mapreduce did not start: {ending}")

    @property
    def pid(self) -> int:
        """The JVM."""
        return self._process.pid

    def _plan(self, workload: BoundWorkload) -> None:
        self._partitions = int(self._options["partitions"] or self._cluster.cpus)
        self._stages = physical.compile_job(workload, partitions=self._partitions).stages

    def _execute(self, workload: BoundWorkload, output: Path) -> pa.Table | None:
        self._runs += 1
        folder = self._scratch / f"run-{self._runs}"
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps(encode(workload)), encoding="utf-8")
        try:
            files = self._jobs(folder, str(output))
            if output_is_files(workload):
                return None
            tables = [t for path in files for _, t in read_blocks(path) if t.num_columns]
            return pa.concat_tables(tables) if tables else pa.table({})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _jobs(self, folder: Path, output: str) -> list[str]:
        """Run a job an exchange, in order; the files of the last stage."""
        plan = _Plan(folder, output, self._stages, self._partitions, parse_bytes(self._options["block_bytes"]))
        for stage in self._stages:
            if not plan.deferred(stage):
                tasks, reducers, reduce = plan.job(stage)
                target = folder / f"stage-{stage.index}"
                listed = folder / f"tasks-{stage.index}"
                listed.write_text("".join(f"{json.dumps(task)}\t{file}\n" for task, file in tasks), encoding="utf-8")
                self._job(str(listed), str(target), str(reducers), json.dumps(reduce))
                plan.files[stage.index] = sorted(map(str, target.glob("part-*.blocks")))
        return plan.files[self._stages[-1].index]

    def _job(self, *fields: str) -> None:
        """One Hadoop job. Raises HadoopFailed with its reason."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\t".join(fields) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().rstrip("\n").split("\t")
        except OSError:
            answer = [""]
        if answer[0] == "failed":
            why = unquote_plus(answer[1])
            raise HadoopFailed(
                "Hadoop ended the job and gave no reason, as when a task's process dies" if why == NO_REASON else why
            )
        if answer[0] != "ok":
            raise HadoopFailed(self._ending())

    def _ending(self) -> str:
        words = (self._scratch / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the JVM ended with code {self._process.wait()}{': ' + words[-1] if words else ''}"

    def close(self) -> None:
        """End the JVM, which ends its workers."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().close()


class _Plan:
    """Which jobs a physical job needs: where each stage's tasks run, and in which files their output lies."""

    def __init__(self, folder: Path, output: str, stages: tuple[Stage, ...], partitions: int, block_bytes: int) -> None:
        self._stages = stages
        self._shared = {
            "spec": str(folder / "spec.json"), "output": output, "partitions": partitions, "block_bytes": block_bytes,
        }  # fmt: skip
        self.files: dict[int, list[str]] = {}

    def deferred(self, stage: Stage) -> bool:
        """Whether its tasks run as the mappers of the job whose reducers read its partitions."""
        return physical.program(stage).partitioner is not None and not _wide(stage)

    def job(self, stage: Stage) -> tuple[list[tuple[dict[str, Any], str]], int, dict[str, Any]]:
        """(map tasks with the file each reads, number of reducers, reduce task)."""
        if not _wide(stage):
            return self._maps(stage, "blocks", 0), 0, {}
        tasks = []
        for tag, source in enumerate(i.stage for i in stage.inputs if i.mode == "partition"):
            tasks += self._maps(self._stages[source], "exchange", tag)
        assert stage.partitions is not None
        reduce = {**self._shared, "do": "reduce", "stage": stage.index, "place": ["PARTITION"], "sides": self._sides(stage)}
        return tasks, stage.partitions, reduce

    def _maps(self, stage: Stage, do: str, tag: int) -> list[tuple[dict[str, Any], str]]:
        """Tasks over a table's files or the blocks of another stage; of a wide stage only the cutting is left to do."""
        task = {**self._shared, "do": do, "stage": stage.index, "tag": tag, "sides": self._sides(stage)}
        if _wide(stage):
            return [({**task, "do": "cut", "place": [n]}, file) for n, file in enumerate(self.files[stage.index])]
        forward = [i.stage for i in stage.inputs if i.mode == "forward"]
        if forward:
            return [({**task, "place": [n]}, file) for n, file in enumerate(self.files[forward[0]])]
        assert stage.partitions is not None
        return [({**task, "place": [n]}, "") for n in range(stage.partitions)]

    def _sides(self, stage: Stage) -> list[list[str]]:
        return [self.files[i.stage] for i in stage.inputs if i.mode == "broadcast"]


def _wide(stage: Stage) -> bool:
    return any(i.mode == "partition" for i in stage.inputs)


class MapReduceEngine:
    """Hadoop MapReduce in one JVM."""

    name = "mapreduce"
    options = (
        Option(name="partitions", check=parse_count, default=None, doc="reducers of a job; default the number of CPUs"),
        Option(name="block_bytes", check=parse_size, default="16MiB", doc="rows travel in records of about this size"),
    )
    capabilities = Capabilities(
        gaps={
            "declared": DECLARED,
            "gpu": "Hadoop's local runner knows CPU slots and no devices",
            "remote": "PySpark's jars hold Hadoop's job client and local runner, and no YARN or HDFS to connect to",
        },
        features={
            "processes": "one JVM with a thread a task, and a Python worker process a CPU for map and reduce functions",
            "barrier": "a job an exchange; each materialises its output on disk before the next starts",
            "spill": "map output is sorted in a buffer and spilled to disk, then merged, whatever its size",
            "retries": "none: the local runner fails the job with its first failed task, a lost worker's too",
            "actors": "stateful operators load once a worker process and are kept for the session",
            "state": "the run fails: the local runner repeats no task",
            "kernels": "blocks of Arrow bytes through a pipe; Hadoop's records are blocks, not rows",
        },
    )

    def version(self) -> str:
        """The Hadoop of PySpark's jars."""
        names = (p.name for p in _jars().glob("hadoop-client-api-*.jar"))
        return next((n.removeprefix("hadoop-client-api-").removesuffix(".jar") for n in names), "unknown")

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> MapReduceSession:
        """Start the JVM."""
        if (java := find_java()) is None:
            raise MissingEngine(f"mapreduce needs Java, and there is none; run: {WAY_OUT}")
        chosen = resolve_options(self.name, self.options, options)
        if not any(_jars().glob("hadoop-client-api-*.jar")):
            raise RunFailed(f"no Hadoop jars lie in {_jars()}")
        return MapReduceSession(cluster, chosen, java.home, _jars())


def _jars() -> Path:
    """PySpark's jars, found without importing it."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "jars"
