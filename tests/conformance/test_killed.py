"""A worker process of every engine is killed at a random time, twenty times: the answer is verified, or the engine's own failure is
told in a sentence; nothing hangs, and the next run works."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conformance.harness import REAL, answer_of, marks
from windtunnel.errors import RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.running.measure import MARKER, marked, tree
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload

KILLS = 20
HANGS_S = 240.0
OURS = f"killed-{os.getpid()}"  # in the environment of all that the engines start

#: engine → what the command line of its worker processes holds (a raylet ends with its agents, and a JVM names its workers)
WORKERS = {
    "bulk": "windtunnel.engines.local.worker", "streaming": "windtunnel.engines.local.worker", "dask": "multiprocessing.spawn",
    "spark": "pyspark.daemon", "ray": "^ray::(?!.*Agent)", "ray-core": "^ray::(?!.*Agent)",
    "daft": "daft.execution.udf_worker", "flink": "pyflink.fn_execution",
    "mapreduce": r"^\S*python\S* -m \S*mapreduce_worker$",
}  # fmt: skip
NO_WORKER = {"duckdb": "one process: killing it is killing the cell", "polars": "one process: killing it is killing the cell"}

#: engines whose run may end with a worker, and why that is theirs
MAY_FAIL = {
    "spark": "local mode repeats no task: spark.task.maxFailures counts only on a cluster",
    "daft": "a UDF's process is part of the query and is not started again",
    "flink": "without checkpoints a batch job on the mini-cluster is not restarted",
    "mapreduce": "Hadoop's local runner gives a task one attempt",
}


def test_every_engine_says_what_its_workers_are() -> None:
    assert set(WORKERS) | set(NO_WORKER) == set(REAL)


def victims(pattern: str) -> list[psutil.Process]:
    """Worker processes of ours, those too whose parent was killed (Spark's daemon leaves its workers to init)."""
    found = []
    for pid in tree(os.getpid(), marked(OURS)):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if re.search(pattern, " ".join(process.cmdline())) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Killer(threading.Thread):
    """Kills one worker ``delay_s`` from now, or the first that there is after that."""

    def __init__(self, pattern: str, delay_s: float, draw: random.Random) -> None:
        super().__init__(daemon=True)
        self._pattern, self._delay, self._draw = pattern, delay_s, draw
        self.over = threading.Event()
        self.killed = False

    def run(self) -> None:
        """Wait, choose, kill."""
        self.over.wait(self._delay)
        while not self.over.is_set() and not self.killed:
            if found := victims(self._pattern):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._draw.choice(found).pid, signal.SIGKILL)
                    self.killed = True
            self.over.wait(0.02)


def attempt(session: Any, bound: BoundWorkload, output: Path) -> str:
    """ "verified", the sentence of a failure, or "hangs"."""
    ending: list[str] = ["hangs"]

    def run() -> None:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        try:
            bound.verify(answer_of(session.run(bound, Recorder(), output)))
            ending[0] = "verified"
        except RunFailed as error:
            ending[0] = str(error)
        except BaseException as error:
            ending[0] = f"unexpected {type(error).__name__}: {error}"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS_S)
    return ending[0]


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in WORKERS])
def test_a_worker_killed_at_a_random_time(
    name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARKER, OURS)
    bound = load_workload("flights_udf", scale=0.05, partitions=8).bind(data_root)
    draw, endings, kills = random.Random(name), Counter[str](), 0
    session = load_engine(name).open(two_cpus, {})
    try:
        session.prepare(bound)
        assert attempt(session, bound, tmp_path / "first") == "verified"
        start = time.monotonic()
        assert attempt(session, bound, tmp_path / "second") == "verified"
        lasts = time.monotonic() - start
        for number in range(2 * KILLS):
            killer = Killer(WORKERS[name], draw.uniform(0, lasts), draw)
            killer.start()
            start = time.monotonic()
            ending = attempt(session, bound, tmp_path / "killed")
            killer.over.set()
            killer.join()
            if not killer.killed:  # the run was over before its time: they have become shorter
                lasts = min(lasts, time.monotonic() - start)
                continue
            kills += 1
            endings[ending] += 1
            assert ending == "verified" or name in MAY_FAIL, f"kill {number}: {ending}"
            assert ending != "hangs" and not ending.startswith("unexpected") and "\n" not in ending, f"kill {number}: {ending}"
            if kills == KILLS:
                break
        after = attempt(session, bound, tmp_path / "after")  # a worker that is gone may fail the run after, once
        assert after == "verified" or attempt(session, bound, tmp_path / "again") == "verified", after
    finally:
        session.close()
        print(
            f"{name}: {kills} kills, {endings['verified']} verified;",
            *(f"{n} × {e}" for e, n in endings.items() if e != "verified"),
        )
    assert kills == KILLS
