"""What may be done in a situation: the command line in this process, or in one of its own with limits, signals and odd streams."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.frame import MARK, Ending, Scene
from windtunnel.cli import main

PATIENCE_S = 25.0


def inside(*args: str) -> Callable[[Scene], Ending]:
    """The command line in this process, in the scene's folder: milliseconds."""

    def act(scene: Scene) -> Ending:
        out, err = io.StringIO(), io.StringIO()
        with _place(scene), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(args))
            except Exception:
                traceback.print_exc()
                code = 1
        return Ending(code, out.getvalue(), err.getvalue())

    return act


def python(function: Callable[[Scene], object]) -> Callable[[Scene], Ending]:
    """A call from Python: an expected error ends as it does on the command line, what is returned is shown."""

    def act(scene: Scene) -> Ending:
        from windtunnel.errors import WindtunnelError

        with _place(scene):
            try:
                return Ending(0, out=repr(function(scene)))
            except WindtunnelError as error:
                return Ending(int(error.exit_code), err=str(error))
            except Exception:
                return Ending(1, err=traceback.format_exc())

    return act


@contextlib.contextmanager
def _place(scene: Scene) -> Iterator[None]:
    """The scene's folder as the current one, its scratch folder for everything temporary."""
    before, kept = Path.cwd(), {name: os.environ.get(name) for name in environment(scene)}
    os.environ |= environment(scene)
    tempfile.tempdir = None
    os.chdir(scene.folder)
    try:
        yield
    finally:
        os.chdir(before)
        tempfile.tempdir = None
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def environment(scene: Scene) -> dict[str, str]:
    """What everything that a situation starts finds in its environment."""
    return {"TMPDIR": str(scene.scratch), MARK: str(scene.folder), "WINDTUNNEL_DATA": str(scene.folder / "data")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """The command line in a process of its own.

    ``shell`` sets the stage and becomes the program: ``ulimit -f 8; exec "$@"``, ``exec "$@" >/dev/full``. ``then`` is called with the
    running process, e.g. to send a signal. ``program``: what Python runs instead of the command line.
    """

    args: tuple[str, ...]
    shell: str = 'exec "$@"'
    then: Callable[[subprocess.Popen[bytes], Scene], object] | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "windtunnel.cli")

    def __call__(self, scene: Scene) -> Ending:
        """Run it to its end; one that lasts longer than `PATIENCE_S` is killed, and so ends by SIGKILL."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # a pipe that nobody reads would hold it back
            process = subprocess.Popen(
                ["/bin/sh", "-c", self.shell, "sh", sys.executable, *self.program, *self.args], cwd=scene.folder, stdout=out,
                stderr=err, stdin=subprocess.DEVNULL, env={**os.environ, **environment(scene), **self.more}, start_new_session=True,
            )  # fmt: skip
            try:
                if self.then is not None:
                    self.then(process, scene)
                code = process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            out.seek(0)
            err.seek(0)
            return Ending(code, *(file.read().decode("utf-8", "replace") for file in (out, err)))


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    """Look every 20 ms until it is true; False when it never was."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
