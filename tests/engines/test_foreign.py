"""An engine in an interpreter of its own: what crosses the pipe, how failures are told, and that nothing outlives the front."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines.foreign_toy import opened
from windtunnel import registry
from windtunnel.cli import main
from windtunnel.engines.foreign.codec import decode, encode
from windtunnel.errors import InputError, MissingEngine, RunFailed, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import WORKLOADS, load_engine, load_workload
from windtunnel.running import interpreters
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload


def bound(folder: Path, name: str = "tpch_q12") -> BoundWorkload:
    return BoundWorkload(workload=load_workload(name), tables=(), folder=folder)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_cross_as_data(name: str, tmp_path: Path) -> None:
    import json

    workload = bound(tmp_path, name)
    again = decode(json.loads(json.dumps(encode(workload))))
    assert again == workload
    assert again.workload.digest() == workload.workload.digest()


def test_only_specifications_are_built_from_data() -> None:
    with pytest.raises(KeyError):
        decode({"$": "Popen", "args": ["true"]})
    with pytest.raises(TypeError, match="cannot be sent"):
        encode(object())


def test_a_session_answers_from_its_own_process(tmp_path: Path) -> None:
    session = opened(tmp_path / "own", "answer")
    try:
        work = bound(tmp_path)
        session.prepare(work)
        recorder = Recorder()
        outcome = session.run(work, recorder, tmp_path)
        assert outcome.table is not None
        assert outcome.table["name"].to_pylist() == ["tpch_q12", "tpch_q12"]
        assert outcome.table["pid"][0].as_py() == session.pid != os.getpid()
        assert recorder.counters == {"rows": 2} and len(recorder.spans) == 1
    finally:
        session.close()
        session.close()
    assert not psutil.pid_exists(session.pid)
    assert not session._folder.exists()


def test_its_failures_are_ours(tmp_path: Path) -> None:
    session = opened(tmp_path / "a", "unsupported")
    with pytest.raises(Unsupported, match="toy cannot"):
        session.prepare(bound(tmp_path))
    session.close()
    session = opened(tmp_path / "b", "raise")
    with pytest.raises(RunFailed, match="ValueError: a mistake of the engine"):
        session.run(bound(tmp_path), Recorder(), tmp_path)
    session.close()


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_lost_process_is_a_sentence(how: str, tmp_path: Path) -> None:
    session = opened(tmp_path / "own", "exit" if how == "exit" else "sleep")
    if how == "kill":
        threading.Timer(0.5, os.kill, (session.pid, signal.SIGKILL)).start()
    ending = "ended with code 3" if how == "exit" else "was killed by SIGKILL"
    with pytest.raises(RunFailed, match=ending):
        session.run(bound(tmp_path), Recorder(), tmp_path)
    session.close()
    assert not session._folder.exists()


FRONT = """
import sys
from pathlib import Path
from tests.engines.foreign_toy import opened
from tests.engines.test_foreign import bound
from windtunnel.records.record import Recorder
folder = Path(sys.argv[1])
session = opened(folder / "own", "sleep")
(folder / "shared").write_text(str(session._folder))
session.run(bound(folder), Recorder(), folder)
"""


@pytest.mark.linux
def test_it_dies_with_its_front(tmp_path: Path) -> None:
    """SIGKILL for the front in the middle of a run: the engine's process, its child and the folder go."""
    front = subprocess.Popen([sys.executable, "-c", FRONT, str(tmp_path)], cwd=Path(__file__).parents[2])
    pids = _wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split())
    front.kill()
    front.wait()
    assert _wait_for(lambda: not any(_alive(int(p)) for p in pids))
    assert _wait_for(lambda: not Path((tmp_path / "shared").read_text()).exists())


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition: Any) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within a minute")


# -- installing -------------------------------------------------------------------------------------------------------


def test_an_absent_environment_is_a_sentence_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDTUNNEL_ENVIRONMENTS", str(tmp_path))
    with pytest.raises(MissingEngine, match="run: windtunnel engines install flink"):
        load_engine("flink")
    assert main(["doctor", "--json"]) == 0
    assert "windtunnel engines install flink" in capsys.readouterr().out
    assert main(["engines", "install", "dask"]) == 2
    assert "needs none of its own" in capsys.readouterr().err
    assert main(["engines", "install", "flunk"]) == 2


def test_installing_makes_the_environment_and_a_failure_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDTUNNEL_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setattr(interpreters, "OWN_NEEDS", ())
    nowhere = tmp_path / "no-such-package"
    monkeypatch.setitem(registry.ENGINES, "flink", registry.EngineEntry("x:y", own=(str(nowhere),)))
    assert main(["engines", "install", "flink"]) == 5
    assert "could not be installed" in capsys.readouterr().err
    assert not interpreters.interpreter("flink").ready
    (nowhere / "src").mkdir(parents=True)
    (nowhere / "pyproject.toml").write_text('[project]\nname = "no-such-package"\nversion = "1.5"\n')
    with pytest.raises(InputError, match="no extra 'nothing'"):
        interpreters.extra_requirements("nothing")
    assert "onnxruntime>=1.20" in interpreters.extra_requirements("inference")


def test_a_cluster_crosses_as_data() -> None:
    cluster = ClusterSpec.here(cpus=2, memory_bytes=2**30)
    assert decode(encode(cluster)) == cluster


def test_the_bottom_of_a_java_stack_is_told() -> None:
    from windtunnel.engines.adapters.flink import root_cause

    trace = "TableException: Failed\n\tat a.B\nCaused by: java.io.IOException: x\n\tat c\nCaused by: ConnectException: refused\n"
    assert root_cause(trace) == "ConnectException: refused"
    assert root_cause("py4j: lost\n\tat x") == "py4j: lost"
    assert root_cause("") == "no message"
