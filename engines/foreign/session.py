"""The front's end of an engine in an interpreter of its own: a session that sends what is asked of it through a pipe.

Requests and answers are lines of JSON; tables come back as Arrow files in a folder that both share, which goes when the session
closes. The other end is `host`: it runs an ordinary session with this very package (linked into the shared folder, so that there is
one version of it) and ends with all it started when this process does. The module knows no engine.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

import windtunnel
from windtunnel import errors
from windtunnel.engines.api import Capabilities, Outcome
from windtunnel.engines.foreign.codec import encode
from windtunnel.records.record import Recorder
from windtunnel.running.interpreters import Interpreter
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload

ROOMS = ("engines", "workloads")
CLOSE_S = 20.0


class HostedSession:
    """A session of ``dotted`` ("module:Class", built with a cluster and options) in another interpreter."""

    def __init__(
        self, where: Interpreter, dotted: str, cluster: ClusterSpec, options: Mapping[str, Any], capabilities: Capabilities
    ) -> None:
        self._name, self._capabilities = where.engine, capabilities
        self._folder = Path(tempfile.mkdtemp(prefix=f"wt-{where.engine}-"))
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log = self._folder / "log"
        _link_package(self._folder / "package")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(where.python), "-P", "-m", "windtunnel.engines.foreign.host", str(self._folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                start_new_session=True, env=_environment(self._folder),
            )  # fmt: skip
        threading.Thread(target=self._read, name="answers", daemon=True).start()
        try:
            self._ask("open", session=dotted, cluster=encode(cluster), options=dict(options))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that runs the engine."""
        return self._process.pid

    def prepare(self, workload: BoundWorkload) -> None:
        """Untimed. Raises Unsupported for declared gaps."""
        self._ask("prepare", workload=encode(workload))
        self._planned = workload

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Timed; the table maps the Arrow file that came back."""
        if getattr(self, "_planned", None) is not workload:
            self.prepare(workload)
        answer = self._ask("run", output=str(output))
        for span in answer["spans"]:
            recorder.spans.append(tuple(span))
        for name, value in answer["counters"].items():
            recorder.count(name, value)
        if answer["table"] is None:
            return Outcome(path=output, rows=answer["rows"], seconds=answer["seconds"])
        with pa.memory_map(answer["table"]) as file:
            table = pa.ipc.open_file(file).read_all()
        os.unlink(answer["table"])
        return Outcome(table=table, rows=table.num_rows, seconds=answer["seconds"])

    def close(self) -> None:
        """Ask it to close, then end its process and all it started; idempotent."""
        if self._process.poll() is None:
            with contextlib.suppress(errors.WindtunnelError):
                self._ask("close", timeout_s=CLOSE_S)
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
                self._process.wait(timeout=2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads the group of whatever it started
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- the pipe ------------------------------------------------------------------------------------------------------

    def _ask(self, what: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Send a request and wait for its answer. Raises what the other end raised, or RunFailed when it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout_s)
        except (OSError, ValueError):
            line = None
        except queue.Empty:
            raise errors.RunTimeout(f"{self._name} did not answer {what!r} within {timeout_s:g} s") from None
        if line is None:
            raise errors.RunFailed(f"{self._name}: {self._ending()}")
        answer = json.loads(line)
        if "error" in answer:
            raise _raised(answer)
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _ending(self) -> str:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self._log.exists() else []
        return f"its process {how}" + (f": {words[-1][:300]}" if words and code > 0 else "")


def _raised(answer: dict[str, Any]) -> errors.WindtunnelError:
    kind = getattr(errors, answer["error"], errors.RunFailed)
    if issubclass(kind, errors.RunFailed):
        return kind(answer["text"], operator=answer.get("operator"), partition=answer.get("partition"))
    found: errors.WindtunnelError = kind(answer["text"])
    return found


def _link_package(folder: Path) -> None:
    """This package as the other interpreter imports it: links to the rooms that it needs, wherever they were installed."""
    (target := folder / "windtunnel").mkdir(parents=True)
    for entry in Path(windtunnel.__file__).parent.iterdir():
        if entry.name not in (*ROOMS, "__pycache__"):
            (target / entry.name).symlink_to(entry)
    for room in ROOMS:
        module = importlib.import_module(f"windtunnel.{room}")
        assert module.__file__ is not None
        (target / room).symlink_to(Path(module.__file__).parent)


def _environment(folder: Path) -> dict[str, str]:
    """Ours without what belongs to this interpreter; the user's own folders of modules go along, installed libraries do not."""
    paths = sysconfig.get_paths()
    ours = tuple(str(Path(p).resolve()) for p in (paths["stdlib"], paths["purelib"], paths["platlib"]))
    users = [str(Path(p or ".").resolve()) for p in sys.path if not str(Path(p or ".").resolve()).startswith(ours)]
    users = [p for p in users if Path(p).is_dir() and "site-packages" not in p]
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")}
    scratch = folder / "tmp"
    scratch.mkdir()
    return {**kept, "PYTHONPATH": os.pathsep.join([str(folder / "package"), *users]), "TMPDIR": str(scratch),
            "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
