"""How far simulated commits are off: real writers on Delta tables behind the latency relay, against the same numbers of writers simulated.

    python tests/fidelity/lake_holdout.py measure FILE     # about 6 minutes on a machine at rest
    python tests/fidelity/lake_holdout.py judge FILE       # fits on cells of one writer alone, and tells the others' errors

Two constants are fitted, both of this machine and not of the protocol: what the relay and the store add to a request, and the client's
own time an operation. A request's service, one at a time, is the CPU time of store and relay together (``service_s``), measured alone:
on two cores they and the clients take turns.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from windtunnel.engines.models.commits import SCAN_ROUNDS
from windtunnel.engines.stores.session import StoreSession
from windtunnel.errors import WindtunnelError
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload

LATENCY_MS, CV = 100, 0.3
FITTED = (1,)
WRITERS = (1, 3, 6, 2, 4)
COMMITS = {"increment": 8, "append": 6}
ROUNDS = {"append": 11, "increment": 11 + SCAN_ROUNDS}  # of one writer alone
REPETITIONS = 20  # simulated


def bound(folder: Path, operation: str, writers: int) -> BoundWorkload:
    """A cell's workload."""
    given = {"operation": operation, "writers": writers, "commits": COMMITS[operation], "rows": 20, "scale": 0.02, "readers": 0}
    workload: BoundWorkload = load_workload("lake", **given).bind(folder)
    return workload


def measure(path: Path) -> None:
    """Append a line a cell to the file: counters of the run, after one line of what the store takes a request."""
    options = {"store": "s3", "latency": f"{LATENCY_MS}ms", "latency_cv": CV}
    with tempfile.TemporaryDirectory() as folder, path.open("a", encoding="utf-8") as file:
        session = load_engine("delta").open(ClusterSpec.here(cpus=2), options)
        try:
            file.write(json.dumps({"service_s": service_s(session)}) + "\n")
            for writers in WRITERS:
                for operation in COMMITS:
                    work, recorder = bound(Path(folder), operation, writers), Recorder()
                    session.prepare(work)
                    outcome = session.run(work, recorder, Path(folder))
                    work.verify(outcome.table)
                    file.write(json.dumps({"operation": operation, "writers": writers, **recorder.counters}) + "\n")
                    file.flush()
        except WindtunnelError as error:
            print(error)
        finally:
            session.close()


def service_s(session: StoreSession, requests: int = 100) -> float:
    """CPU seconds of the store and the relay before it for a small request, on a connection that stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", session.relay_port, timeout=30)
    servers = psutil.Process().children()
    before = sum(sum(p.cpu_times()[:2]) for p in servers)
    for _ in range(requests):
        connection.request("GET", "/windtunnel?list-type=2&prefix=nothing")
        connection.getresponse().read()
    connection.close()
    return (sum(sum(p.cpu_times()[:2]) for p in servers) - before) / requests


def judge(path: Path) -> int:
    """Print each cell with its error; 0 when the held-out ones are within the bar."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    service = next((line["service_s"] for line in lines if "service_s" in line), 0.003)
    cells = [line for line in lines if "operation" in line]
    alone = [c for c in cells if c["writers"] in FITTED]
    added = statistics.mean(c["request_mean_s"] for c in alone) - LATENCY_MS / 1000
    write = statistics.mean(1 / c["commits_per_s"] - ROUNDS[c["operation"]] * c["request_mean_s"] for c in alone)
    law = {
        "store": "own", "latency": f"{LATENCY_MS}ms", "latency_cv": CV, "service": f"{service * 1000:.3f}ms", "servers": 1,
        "client": f"{max(0.0, added - service) * 1000:.3f}ms", "write": f"{max(0.0, write) * 1000:.3f}ms",
    }  # fmt: skip
    print(f"fitted on one writer: {law}")
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells:
            told = simulated(bound(Path(folder), cell["operation"], cell["writers"]), law)
            for name in ("commits_per_s", "conflict_share"):
                real, virtual = cell[name], told[name]
                if real == virtual == 0:
                    continue
                error = virtual / real - 1 if real else float("inf")
                held = cell["writers"] not in FITTED
                errors += [abs(error)] if held else []
                print(f"{cell['operation']:10s} {cell['writers']:2d} writers {name:15s} real {real:7.3f} simulated {virtual:7.3f} "
                      f"{error:+7.1%}{'' if held else '  (fitted)'}")  # fmt: skip
    if errors:
        print(f"held out: {len(errors)} numbers, median {statistics.median(errors):.1%}, worst {max(errors):.1%}")
    return int(not errors or statistics.median(errors) > 0.1 or max(errors) > 0.2)


def simulated(work: BoundWorkload, law: dict[str, Any]) -> dict[str, float]:
    """Medians of repetitions with different seeds."""
    runs = list(_runs(work, law))
    return {name: statistics.median(r.get(name, 0.0) for r in runs) for name in ("commits_per_s", "conflict_share")}


def _runs(work: BoundWorkload, law: dict[str, Any]) -> Iterator[dict[str, float]]:
    for seed in range(REPETITIONS):
        session = load_engine("sim:delta").open(ClusterSpec.here(cpus=2), {**law, "seed": seed})
        session.prepare(work)
        recorder = Recorder()
        session.run(work, recorder, Path())
        yield recorder.counters


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("measure", "judge"):
        sys.exit(str(__doc__))
    sys.exit(judge(Path(sys.argv[2])) if sys.argv[1] == "judge" else measure(Path(sys.argv[2])))
