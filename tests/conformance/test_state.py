"""What becomes of a run when the process that holds a model is killed: each engine as its capabilities say (`features["state"]`)."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")

from tests.conformance.harness import REAL, answer_of, marks
from windtunnel.errors import RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import ENGINES, load_engine, load_workload, missing_modules
from windtunnel.spec.cluster import ClusterSpec

AGAIN, FAILS, DIES = "loaded again: ", "the run fails: ", "dies with the engine: "
HERE = tuple(n for n in REAL if not missing_modules(n) and "serving" not in load_engine(n).capabilities.features)


def outcome(name: str) -> str:
    """What the engine declares."""
    said: str = load_engine(name).capabilities.features["state"]
    return next(kind for kind in (AGAIN, FAILS, DIES) if said.startswith(kind))


@pytest.mark.parametrize("name", HERE)
def test_every_engine_says_what_becomes_of_lost_state(name: str) -> None:
    assert outcome(name)
    assert name in ENGINES


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in HERE if outcome(n) != DIES])
def test_a_killed_holder_of_state(name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path) -> None:
    bound = load_workload("images", scale=0.06, partitions=8).bind(data_root)
    session = load_engine(name).open(two_cpus, {})
    try:
        session.prepare(bound)
        recorder, done, killed = Recorder(), threading.Event(), []
        killer = threading.Thread(target=_kill_a_holder, args=(session, done, killed))
        killer.start()
        failure: RunFailed | None = None
        try:
            table = answer_of(session.run(bound, recorder, tmp_path))
        except RunFailed as error:
            failure = error
        finally:
            done.set()
            killer.join()
        assert killed, "the run was over before its model was killed: make it longer"
        if outcome(name) == FAILS:
            assert failure is not None
            assert len(str(failure).splitlines()) == 1
        else:
            assert failure is None, failure
            bound.verify(table)
            assert recorder.counters["loads"] >= 2
    finally:
        session.close()


def _kill_a_holder(session: Any, done: threading.Event, killed: list[int]) -> None:
    """Kill the first process that has loaded the model, a moment after it did."""
    while not done.wait(0.02):
        if (pid := _holder(session)) is not None and pid != os.getpid():
            time.sleep(0.5)
            if not done.is_set():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return


def _holder(session: Any) -> int | None:
    if hasattr(session, "world"):
        loaded = (p for p in list(session.world._by_worker.values()) if p.stage >= 0 and p.loaded and p.tasks)
        return next((p.popen.pid for p in loaded), None)
    for path in session._notes.glob("*.notes"):
        if '"loads"' in path.read_text(encoding="utf-8"):
            return int(path.stem)
    return None
