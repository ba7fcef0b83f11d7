"""The embedded engines under trouble: killed workers, full store, dead driver; verified answers and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tests.conformance.harness import answer_of
from windtunnel.engines.local.engine import LocalSession
from windtunnel.engines.local.store import create_session, memory_folder
from windtunnel.engines.physical import compile_job, program
from windtunnel.errors import InputError, RunFailed
from windtunnel.model import Action, Event, ExecutionModel, Job, Launch, View
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import MapBatches, Pipeline, Sink
from windtunnel.spec.workload import Workload

ENGINES = ("bulk", "streaming")

#: every phase that a task can be in, and a workload that has it
PHASES = {
    "Scan": "tpch_q6", "Filter": "tpch_q18", "Project": "tpch_q1", "MapBatches": "flights_udf", "PartialAggregate": "tpch_q1",
    "FinalAggregate": "tpch_q18", "Join": "tpch_q12", "BroadcastJoin": "tpch_q5", "TopN": "tpch_q3", "SampleKeys": "distributed_sort",
    "RangeBounds": "distributed_sort", "Sort": "distributed_sort", "GroupMap": "sessionization", "Sink": "sessionization",
}  # fmt: skip


@pytest.fixture(params=ENGINES)
def session(request: pytest.FixtureRequest, two_cpus: ClusterSpec, no_leftovers: None) -> Iterator[LocalSession]:
    """An open embedded engine."""
    found = load_engine(request.param).open(two_cpus, {})
    yield found
    found.close()


class Assassin:
    """A model that lets the real one decide, and kills the worker of the first tasks of one stage shortly after their launch."""

    def __init__(self, model: ExecutionModel, stage: int, pid_of: Callable[[int], int | None]) -> None:
        self._model, self._stage, self._pid_of = model, stage, pid_of
        self.tick_s = model.tick_s
        self.kills: list[float] = [0.0, 0.004]  # seconds after the launch: before it begins, and while it computes

    def start(self, job: Job, view: View) -> list[Action]:
        """As the model."""
        return self._model.start(job, view)

    def on_event(self, event: Event, view: View) -> list[Action]:
        """As the model, and a knife."""
        actions = self._model.on_event(event, view)
        for action in actions:
            if isinstance(action, Launch) and action.stage == self._stage and self.kills:
                pid = self._pid_of(action.worker)
                if pid is not None:
                    threading.Timer(self.kills.pop(), os.kill, (pid, signal.SIGKILL)).start()
        return actions


QUICK = ("Scan", "MapBatches", "Join", "Sink")  # the others run with the long suite


@pytest.mark.linux
@pytest.mark.parametrize("phase", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PHASES])
def test_killed_workers_in_every_phase_cost_time_but_no_rows(
    session: LocalSession, phase: str, data_root: Path, tmp_path: Path
) -> None:
    workload: Workload = load_workload(PHASES[phase], scale=0.05)
    bound = workload.bind(data_root)
    job = compile_job(bound, partitions=2)
    stage = next(s.index for s in job.stages if phase in {type(p.phase).__name__ for p in program(s).steps})
    model, world = session._model, session.world

    def pid_of(worker: int) -> int | None:
        process = world._by_worker.get(worker)
        return None if process is None else process.popen.pid

    session._model = lambda: Assassin(model(), stage, pid_of)
    lost = 0.0
    for attempt in range(5):  # a short task may end before the knife falls
        recorder = Recorder()
        output = tmp_path / str(attempt)
        output.mkdir()
        session.prepare(bound)
        bound.verify(answer_of(session.run(bound, recorder, output)))
        lost = recorder.counters.get("workers_lost", 0)
        if lost:
            break
    assert lost >= 1


@pytest.mark.linux
def test_workers_that_died_between_runs_are_replaced(session: LocalSession, data_root: Path, tmp_path: Path) -> None:
    """Nobody listened when they died: the next run tells a job to processes that hear nothing."""
    bound = load_workload("tpch_q12", scale=0.002).bind(data_root)
    session.prepare(bound)
    for process in list(session.world._processes.values()):
        process.popen.kill()
        process.popen.wait()
    bound.verify(answer_of(session.run(bound, Recorder(), tmp_path)))


def test_a_worker_that_always_dies_fails_the_run_in_one_sentence(session: LocalSession, data_root: Path, tmp_path: Path) -> None:
    bound = _with_kernel("tests.engines.test_local_world:suicide").bind(data_root)
    session.prepare(bound)
    with pytest.raises(RunFailed, match="its worker died 4 times"):
        session.run(bound, Recorder(), tmp_path)


def suicide(batch: Any) -> Any:
    """A kernel that takes its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return batch


def _with_kernel(function: str) -> Workload:
    workload: Workload = load_workload("flights_udf", scale=0.002)
    operators = [
        replace(op, kernel=replace(op.kernel, function=function)) if isinstance(op.kernel, MapBatches) else op
        for op in workload.pipeline.operators
    ]
    return replace(workload, pipeline=Pipeline(tuple(operators)))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("workload", ["distributed_sort", "skewed_groupby", "tpch_q12"])
def test_blocks_beyond_the_budget_spill_and_come_back(
    name: str, workload: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path
) -> None:
    engine = load_engine(name)
    session = engine.open(two_cpus, {"store_bytes": "256KiB", "block_bytes": "64KiB", "spill_dir": str(tmp_path)})
    try:
        bound = load_workload(workload, scale=0.02).bind(data_root)
        session.prepare(bound)
        recorder = Recorder()
        bound.verify(answer_of(session.run(bound, recorder, _folder(tmp_path))))
        assert recorder.counters["spilled_bytes"] > 0
        stored = [value for metric, _, value in recorder.samples if metric == "store_bytes"]
        assert max(stored) <= 2**18 + 2 * 2**17, "two workers may each pass the budget by the block they write"
    finally:
        session.close()
    assert not list(tmp_path.glob("windtunnel-*"))


@pytest.mark.parametrize("name", ENGINES)
def test_blocks_are_cut_at_the_asked_size(name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    for block_bytes, least in (("32MiB", 0), ("64KiB", 40)):
        session = load_engine(name).open(two_cpus, {"block_bytes": block_bytes})
        try:
            bound = load_workload("distributed_sort", scale=0.02).bind(data_root)
            session.prepare(bound)
            recorder = Recorder()
            bound.verify(answer_of(session.run(bound, recorder, _folder(tmp_path, block_bytes))))
            assert recorder.counters["blocks"] >= least
        finally:
            session.close()


@pytest.mark.parametrize("name", ENGINES)
def test_a_full_disk_is_one_sentence(name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from windtunnel.spec.cluster import ClusterSpec\n"
        "from windtunnel.errors import RunFailed\n"
        "from windtunnel.records.record import Recorder\n"
        "from windtunnel.registry import load_engine, load_workload\n"
        "bound = load_workload('distributed_sort', scale=0.02).bind(Path(sys.argv[1]))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "session = load_engine(sys.argv[2]).open(ClusterSpec.here(cpus=2, memory_bytes=2**32), {'store_bytes': 0})\n"
        "session.prepare(bound)\n"
        "try:\n"
        "    session.run(bound, Recorder(), Path(sys.argv[3]))\n"
        "except RunFailed as error:\n"
        "    print('SENTENCE', error)\n"
        "finally:\n"
        "    session.close()\n"
    )
    load_workload("distributed_sort", scale=0.02).bind(data_root)
    done = subprocess.run(
        [sys.executable, "-c", code, str(data_root), name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "SENTENCE" in done.stdout, done.stderr
    assert "could not be written" in done.stdout or "no space left" in done.stdout


@pytest.mark.linux
@pytest.mark.parametrize("name", ENGINES)
def test_a_killed_driver_leaves_no_process_and_no_memory(name: str, data_root: Path, tmp_path: Path) -> None:
    load_workload("distributed_sort", scale=0.02).bind(data_root)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from windtunnel.spec.cluster import ClusterSpec\n"
        "from windtunnel.records.record import Recorder\n"
        "from windtunnel.registry import load_engine, load_workload\n"
        "session = load_engine(sys.argv[2]).open(ClusterSpec.here(cpus=2), {})\n"
        "bound = load_workload('distributed_sort', scale=0.02).bind(Path(sys.argv[1]))\n"
        "session.prepare(bound)\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    session.run(bound, Recorder(), Path(sys.argv[3]))\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(data_root), name, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline().strip() == "up"
    time.sleep(0.3)
    workers = psutil.Process(driver.pid).children(recursive=True)
    assert workers
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and list(memory_folder().glob(f"windtunnel-{driver.pid}-*")):
        time.sleep(0.05)
    assert not list(memory_folder().glob(f"windtunnel-{driver.pid}-*"))


@pytest.mark.linux
def test_folders_of_dead_sessions_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    orphan = memory_folder() / f"windtunnel-{dead.pid}-orphan"
    orphan.mkdir()
    for folder in create_session(tmp_path):
        folder.joinpath("x").touch()
        shutil.rmtree(folder)
    assert not orphan.exists()


def test_a_sink_writes_files_in_order(session: LocalSession, data_root: Path, tmp_path: Path) -> None:
    workload: Workload = load_workload("distributed_sort", scale=0.01)
    assert isinstance(workload.pipeline.output.kernel, Sink)
    bound = workload.bind(data_root)
    session.prepare(bound)
    outcome = session.run(bound, Recorder(), tmp_path)
    files = sorted(tmp_path.glob("*.parquet"))
    assert len(files) >= 2
    assert outcome.rows == sum(pq.read_metadata(f).num_rows for f in files) == workload.dataset.rows
    bound.verify(answer_of(outcome))


def _folder(tmp_path: Path, name: str = "output") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_a_closed_session_says_so(two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    session = load_engine("bulk").open(two_cpus, {})
    bound = load_workload("tpch_q6", scale=0.002).bind(data_root)
    session.prepare(bound)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(bound, Recorder(), tmp_path)


def test_unknown_options_name_the_nearest(two_cpus: ClusterSpec) -> None:
    with pytest.raises(InputError, match="did you mean 'queued_blocks'"):
        load_engine("streaming").open(two_cpus, {"queued_block": 3})
