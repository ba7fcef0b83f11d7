"""Clients of one run: their processes are started, begin together, are started again where they were killed, and their journals read.

The module knows no system. Times of the history are seconds since the clients began together.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.engines.foreign.codec import encode
from windtunnel.engines.stores.api import Place
from windtunnel.errors import RunFailed, Unsupported
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.data.history import Done

LEAD_S = 0.2  # between telling all clients and their beginning
READY_S = 300.0
STOP_S = 30.0
_GOLDEN = 0.618033988749895  # spreads the moments of kills evenly, however many there are


@dataclass(slots=True, kw_only=True)
class Task:
    """What all client processes of a run are told."""

    system: str
    place: Place
    options: Mapping[str, Any]
    bound: BoundWorkload
    seed: int
    folder: Path


class Process:
    """A client's process; ``begun`` counts those before it."""

    def __init__(self, task: Task, role: int, client: int, die: list[tuple[int, float]]) -> None:
        self.role, self.client, self._task, self._die = role, client, task, die
        self.journal = task.folder / f"client-{client}.jsonl"
        self.log = task.folder / f"client-{client}.log"
        self.restarts = 0
        self._start(0, [])

    def _start(self, first: int, durations: list[float]) -> None:
        told = {
            "system": self._task.system, "options": dict(self._task.options), "workload": encode(self._task.bound), "seed": self._task.seed,
            "place": {"folder": str(self._task.place.folder), "name": self._task.place.name, "store": dict(self._task.place.store),
                      "server": dict(self._task.place.server)},
            "role": self.role, "client": self.client, "from": first, "die": [d for d in self._die if d[0] >= first],
            "durations": durations, "journal": str(self.journal),
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "windtunnel.engines.stores.client"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
            )  # fmt: skip
        self.say(told)

    def say(self, line: object) -> None:
        """Send a line; a process that is gone hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()

    def ready(self) -> None:
        """Wait until it is. Raises Unsupported or RunFailed."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], READY_S)[0]:
            raise RunFailed(f"client {self.client} was not ready within {READY_S:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise RunFailed(f"client {self.client} ended before it was ready: {self.last_words()}")
        if "unsupported" in (answer := json.loads(line)):
            raise Unsupported(answer["unsupported"])

    def last_words(self) -> str:
        """The last line of its standard error."""
        lines = [t for t in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if t.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def again(self) -> None:
        """Start it anew behind the last operation that it had begun."""
        self.restarts += 1
        self.shut()
        done = list(read_journal(self.journal, ""))
        durations = [d.end_s - d.start_s for d in done if d.outcome == "ok"]
        self._start(max((d.number for d in done), default=-1) + 1, durations[-20:])

    def shut(self) -> None:
        """End it and close its pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def moments(kills: int, clients: int, operations: int) -> list[list[tuple[int, float]]]:
    """By client: (operation, share of an operation's usual duration) of each kill, spread over operations and over their course."""
    found: list[list[tuple[int, float]]] = [[] for _ in range(clients)]
    for kill in range(kills):
        each = -(-kills // clients)
        number = (kill // clients) * operations // each + (operations // each) // 2
        found[kill % clients].append((number, 0.02 + 1.1 * ((kill + 1) * _GOLDEN % 1.0)))
    return found


def run_clients(task: Task) -> tuple[list[Done], float]:
    """(history, seconds from the beginning to the last end). Raises Unsupported, RunFailed; no process survives."""
    spec = task.bound.workload.clients
    assert spec is not None
    processes: list[Process] = []
    try:
        for index, role in enumerate(spec.roles):
            die = moments(role.kills, max(1, role.clients), role.operations)
            processes += [Process(task, index, len(processes) + n, die[n]) for n in range(role.clients)]
        for process in processes:
            process.ready()
        start_s = time.monotonic() + LEAD_S
        for process in processes:
            process.say({"start_s": start_s})
        counted = [p for p in processes if spec.roles[p.role].operations]
        _wait(counted, start_s)
        for process in processes:
            process.say("stop")
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(timeout=STOP_S)
    finally:
        for process in processes:
            process.shut()
    history = [d for p in processes for d in read_journal(p.journal, spec.roles[p.role].name, p.client)]
    names = {spec.roles[p.role].name for p in counted}
    return history, max((d.end_s for d in history if d.role in names and d.end_s != float("inf")), default=0.0)


def _wait(counted: list[Process], start_s: float) -> None:
    """Until each client with a number of operations has made them; those that were killed go on in a new process."""
    waiting = list(counted)
    while waiting:
        process = waiting[0]
        code = process.process.wait()
        if code == 0:
            waiting.pop(0)
        elif code == -9:
            process.again()
            process.ready()
            process.say({"start_s": start_s})
        else:
            raise RunFailed(f"client {process.client} ended with code {code}: {process.last_words()}")


def read_journal(path: Path, role: str, client: int = 0) -> Iterator[Done]:
    """Operations of a journal; those without an end are unknown. A last line that was cut short is none."""
    if not path.exists():
        return
    open_: Done | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "b" in entry:
            if open_ is not None:
                yield open_
            open_ = Done(
                role=role, client=client, number=entry["b"], kind=entry["kind"], start_s=entry["t"], end_s=float("inf"),
                outcome="unknown", rows=entry["rows"],
            )  # fmt: skip
        elif open_ is not None:
            open_.end_s, open_.outcome, open_.attempts = entry["t"], entry["o"], entry["a"]
            open_.reason, open_.seen = entry["w"], entry["s"]
            yield open_
            open_ = None
    if open_ is not None:
        yield open_
