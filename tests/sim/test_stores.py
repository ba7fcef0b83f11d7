"""Simulated commits: the protocol by hand, closed forms of rounds and latency, and what conflicts do; the relay by a server of its own."""

from __future__ import annotations

import http.client
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windtunnel.engines.models.commits import SCAN_ROUNDS, Answer, delta
from windtunnel.errors import InputError, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec

APPEND_ROUNDS, INCREMENT_ROUNDS = 11, 11 + SCAN_ROUNDS


def simulated(data_root: Path, parameters: dict[str, object], **options: object) -> dict[str, float]:
    bound = load_workload("lake", **{"scale": 0.02, "readers": 0, "rows": 20, **parameters}).bind(data_root)
    session = load_engine("sim:delta").open(ClusterSpec.here(cpus=2), {"store": "own", **options})
    session.prepare(bound)
    recorder = Recorder()
    session.run(bound, recorder, Path())
    return recorder.counters


@pytest.mark.parametrize(("operation", "rounds"), [("append", APPEND_ROUNDS), ("increment", INCREMENT_ROUNDS)])
def test_one_writer_pays_every_round(operation: str, rounds: int, data_root: Path) -> None:
    found = simulated(
        data_root, {"operation": operation, "writers": 1, "commits": 3}, latency="100ms", client="1ms", write="10ms"
    )
    assert found[f"{operation}_p50_s"] == pytest.approx(rounds * 0.101 + 0.01)
    assert found["commits_per_s"] == pytest.approx(1 / (rounds * 0.101 + 0.01))
    assert found["conflicts"] == 0


def test_writers_in_step_let_one_of_them_through(data_root: Path) -> None:
    found = simulated(data_root, {"operation": "increment", "writers": 4, "commits": 5}, latency="100ms")
    assert (found["acknowledged"], found["refused"]) == (5, 15)
    more = simulated(data_root, {"operation": "increment", "writers": 4, "commits": 5, "retries": 50}, latency="100ms")
    assert (more["acknowledged"], more["refused"]) == (20, 0) and more["conflicts"] > 15


def test_appends_conflict_with_nothing_and_have_a_ceiling(data_root: Path) -> None:
    far = {"latency": "100ms", "latency_cv": 0.3, "seed": 1, "commit_retries": 200}
    rates = [simulated(data_root, {"writers": n, "commits": 6}, **far) for n in (1, 4, 16)]
    assert all(r["conflicts"] == 0 and r["refused"] == 0 for r in rates)
    assert rates[0]["commits_per_s"] < rates[1]["commits_per_s"] < rates[2]["commits_per_s"] < 2 * rates[1]["commits_per_s"]


def test_a_store_with_one_server_makes_requests_wait(data_root: Path) -> None:
    free = simulated(data_root, {"writers": 4, "commits": 4}, latency="10ms", service="5ms")
    full = simulated(data_root, {"writers": 4, "commits": 4}, latency="10ms", service="5ms", servers=1)
    assert full["virtual_makespan_s"] >= full["requests"] * 0.005
    assert full["commits_per_s"] < free["commits_per_s"]


def test_retries_that_run_out_refuse_an_append() -> None:
    steps = delta("append", 1)
    ask, tries = next(steps), 0
    with pytest.raises(StopIteration) as end:
        while True:
            tries += ask.verb == "put_if_absent"
            ask = steps.send(Answer(latest=0, done=ask.verb != "put_if_absent"))
    assert end.value.value == -1 and tries == 2


def test_the_same_seed_says_the_same_and_another_does_not(data_root: Path) -> None:
    one, again, other = (simulated(data_root, {"writers": 3}, latency="50ms", latency_cv=0.5, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_what_has_no_rule_is_refused(data_root: Path) -> None:
    with pytest.raises(Unsupported, match="add_column"):
        simulated(data_root, {"operation": "add_column"})
    with pytest.raises(InputError):
        simulated(data_root, {}, commit_retries=-1)


# -- the relay -----------------------------------------------------------------------------------------------------------


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "200000")
        self.end_headers()
        self.wfile.write(b"x" * 200_000)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def ask(upstream: int, log: Path, **settings: object) -> tuple[int, int, float]:
    """(status, bytes, seconds) of one request through a relay."""
    told = json.dumps({"upstream": upstream, "log": str(log), **settings})
    relay = subprocess.Popen(
        [sys.executable, "-m", "windtunnel.engines.stores.relay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert relay.stdin is not None and relay.stdout is not None
    try:
        relay.stdin.write(told + "\n")
        relay.stdin.flush()
        connection = http.client.HTTPConnection("127.0.0.1", json.loads(relay.stdout.readline())["port"], timeout=30)
        begun = time.monotonic()
        connection.request("GET", "/", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=me/2026/x, Signature=y"})
        answer = connection.getresponse()
        try:
            size = len(answer.read())
        except http.client.IncompleteRead as error:
            size = len(error.partial)
        return answer.status, size, time.monotonic() - begun
    finally:
        relay.stdin.close()
        assert relay.wait(timeout=20) == 0  # it ends when nobody is there any more
        relay.stdout.close()


def test_the_relay_delays_limits_refuses_and_cuts(upstream: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ask(upstream, log)[:2] == (200, 200_000)
    assert ask(upstream, log, latency_s={"GET": 0.3})[2] >= 0.3
    assert ask(upstream, log, bytes_per_s=500_000)[2] >= 0.4
    assert ask(upstream, log, refused=1.0)[0] == 503
    assert ask(upstream, log, cut=1.0)[:2] == (200, 100_000)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["status"] for e in entries] == ["200", "200", "200", "503", "cut"]
    assert {e["who"] for e in entries} == {"me"}
