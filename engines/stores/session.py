"""A session of a system that keeps data: each run begins with new tables, lets the clients work, and has a witness read what is left.

Only the clients' time counts. The history is the run's answer; the script's judge and the counters come from it, outside any timing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.engines.api import Capabilities, Outcome
from windtunnel.engines.stores.accounts import note
from windtunnel.engines.stores.api import Place, Sized, Versioned
from windtunnel.engines.stores.driver import Task, run_clients
from windtunnel.errors import Unsupported
from windtunnel.records.record import Recorder
from windtunnel.spec.strict import one_line
from windtunnel.spec.workload import BoundWorkload, resolve
from windtunnel.workloads.data.history import FINAL, READ, VERSION, WITNESS, Call, Done, Script, table_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server of the system that runs: how clients reach it, and how it is ended."""

    address: Mapping[str, Any]
    stop: Callable[[], None]


class StoreSession:
    """``system`` is "module:Class"; ``serve`` starts its server in a folder, where it needs one; ``store`` an object store."""

    def __init__(
        self, name: str, system: str, options: Mapping[str, Any], capabilities: Capabilities, *,
        serve: Callable[[Path, Mapping[str, Any]], Serving] | None = None, store: Callable[[Path], Serving] | None = None, seed: int = 7,
    ) -> None:  # fmt: skip
        self._name, self._system, self._options, self._capabilities, self._seed = name, system, options, capabilities, seed
        self._folder = Path(tempfile.mkdtemp(prefix=f"wt-{name}-"))
        self._servers: list[Serving] = []
        self._runs = 0
        try:
            self._server = self._begin(serve(self._folder, options)) if serve else {}
            self._store = self._begin(store(self._folder)) if store else {}
        except BaseException:
            self.close()
            raise

    @property
    def relay_port(self) -> int:
        """Where the relay before the object store listens."""
        return int(self._store["endpoint"].rpartition(":")[2])

    def _begin(self, server: Serving) -> Mapping[str, Any]:
        self._servers.append(server)
        return server.address

    def prepare(self, workload: BoundWorkload) -> None:
        """Raise Unsupported for a workload without clients, or with an operation that the system lacks."""
        refuse(self._name, self._system, self._capabilities, workload)

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """New tables, the clients' work (which is what counts), and the witness."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        place = Place(folder=folder, name="main", store=self._placed(self._runs), server=self._server)
        assert workload.workload.clients is not None
        script: Script = resolve(workload.workload.clients.script)(workload)
        kind = resolve(self._system)
        with contextlib.closing(kind(place, self._options)) as system:
            system.create(script.initial())
        task = Task(system=self._system, place=place, options=self._options, bound=workload, seed=self._seed, folder=folder)
        begun = time.monotonic()
        history, seconds = run_clients(task)
        ended = time.monotonic()
        walk = bool(dict(workload.workload.clients.parameters).get("walk", False))
        with contextlib.closing(kind(place, self._options)) as system:
            history += witness(system, script, walk, seconds)
            if isinstance(system, Sized):
                files, size = system.size()
                recorder.counters |= {"files": float(files), "data_bytes": float(size)}
        shutil.rmtree(folder, ignore_errors=True)
        note(history, recorder, seconds)
        if self._store:
            recorder.counters |= requests_counted(Path(self._store["log"]), begun, ended)
        return Outcome(table=table_of(history), seconds=seconds, account=lambda: judged(script, history))

    def _placed(self, run: int) -> Mapping[str, str]:
        return {**self._store, "uri": f"{self._store['uri']}/run-{run}"} if self._store else {}

    def close(self) -> None:
        """Stop the servers and remove the folder; idempotent."""
        for server in reversed(self._servers):
            server.stop()
        self._servers = []
        shutil.rmtree(self._folder, ignore_errors=True)


def refuse(name: str, system: str, capabilities: Capabilities, workload: BoundWorkload) -> None:
    """Raise Unsupported for what the system declares that it cannot do, before anything runs."""
    clients = workload.workload.clients
    if clients is None:
        raise Unsupported(f"{name} keeps data for clients and runs no pipelines such as {workload.workload.name!r}; try -w lake")
    for kind in clients.kinds:
        if kind in capabilities.gaps:
            raise Unsupported(f"{name} cannot do {kind!r}: {capabilities.gaps[kind]}")
        if not hasattr(resolve(system), kind):
            raise Unsupported(f"{name} has no operation {kind!r}, which workload {workload.workload.name!r} asks for")


def witness(system: Any, script: Script, walk: bool, seconds: float) -> list[Done]:
    """What the table was, version by version where the system keeps them, and what it is."""
    found: list[Done] = []

    def saw(kind: str, read: Callable[[], Any]) -> None:
        entry = Done(role=WITNESS, client=-1, number=len(found), kind=kind, start_s=seconds, end_s=seconds, outcome="ok")
        try:
            entry.seen = script.seen(Call(kind=READ), read())
        except Exception as error:  # whatever a library raises when it cannot read what is left
            entry.outcome, entry.reason = "failed", one_line(f"{type(error).__name__}: {error}")[:300]
        found.append(entry)

    if hasattr(system, READ):
        if walk and isinstance(system, Versioned):
            for version in system.versions():
                saw(VERSION, lambda v=version: system.read_version(v))  # type: ignore[misc]
        saw(FINAL, system.read)
    return found


def judged(script: Script, history: list[Done]) -> dict[str, float]:
    """The counts of the script's judge."""
    found = {name: float(count) for name, count in script.judged(history).items()}
    return {**found, "anomalies": sum(found.values())}


def requests_counted(log: Path, since_s: float, until_s: float) -> dict[str, float]:
    """Counters of what the store was asked between two monotonic times: requests by method, those refused or cut, seconds a request."""
    found: dict[str, float] = {}
    took = 0.0
    for entry in requests_of(log, since_s, until_s):
        names = [f"requests_{entry['method'].lower()}", "requests"]
        names += [f"requests_{entry['status']}"] if entry["status"] in ("412", "503", "cut") else []
        for name in names:
            found[name] = found.get(name, 0.0) + 1
        took += entry["s"]
    return {**found, "request_mean_s": took / found["requests"]} if found else found


def requests_of(log: Path, since_s: float = 0.0, until_s: float = float("inf")) -> list[dict[str, Any]]:
    """Requests that the relay before a store has passed on, between two monotonic times."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [entry for line in lines if since_s <= (entry := json.loads(line))["t"] < until_s]
