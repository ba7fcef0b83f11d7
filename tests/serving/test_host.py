"""The embedded host under what goes wrong: killed replicas, too much load, bad bodies, and its own end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httptools")

from tests.serving.conftest import free_port, replicas, running, scenario
from windtunnel.engines.serving.client import Sent, Target
from windtunnel.engines.serving.load import open_loop
from windtunnel.engines.serving.session import ServingSession


@contextmanager
def host(deployments: str, **options: Any) -> Iterator[ServingSession]:
    """A running host."""
    with TemporaryDirectory() as folder, running(Path(folder), deployments, **options) as session:
        yield session


def _ask(session: ServingSession, path: str = "", body: bytes | None = b"x", kind: str = "text/plain") -> tuple[int, str, Any]:
    request = urllib.request.Request(session.url + path, data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def _load(session: ServingSession, times: list[float]) -> list[Sent]:
    return asyncio.run(open_loop(Target(url=session.url, body_bytes=3, answer_bytes=3, timeout_s=20), times))


SLEEPER = '[[deployments]]\nname = "a"\nreplicas = 2\nmax_ongoing = 4\ncost = { per_call = "5ms" }\n'


def test_a_killed_replica_is_replaced_and_every_request_is_accounted_for() -> None:
    with host(SLEEPER, work="sleep") as session:

        async def both() -> list[Sent]:
            load = asyncio.create_task(
                open_loop(Target(url=session.url, body_bytes=3, answer_bytes=3, timeout_s=20), [i / 200 for i in range(200)])
            )
            await asyncio.sleep(0.4)
            os.kill(replicas(session)[0].pid, signal.SIGKILL)
            return await load

        sent = asyncio.run(both())
        assert Counter(r.outcome for r in sent) == {"ok": 200}
        assert 'windtunnel_replicas_lost_total{deployment="a"} 1' in _ask(session, "-/metrics", None)[1]


def test_overload_is_refused_and_passes() -> None:
    slow = '[[deployments]]\nname = "a"\nmax_ongoing = 1\ncost = { per_call = "50ms" }\n'
    with host(slow, work="sleep", max_queued_requests=2) as session:
        outcomes = Counter(r.outcome for r in _load(session, [0.0] * 20))
        assert outcomes == {"ok": 3, "rejected": 17}
        assert Counter(r.outcome for r in _load(session, [0.0, 0.2, 0.4])) == {"ok": 3}


def test_a_passed_deadline_gives_its_place_back() -> None:
    slow = '[[deployments]]\nname = "a"\nmax_ongoing = 1\ncost = { per_call = "300ms" }\n'
    with host(slow, work="sleep", request_timeout="100ms") as session:
        assert _ask(session)[0] == 408
        assert _ask(session)[0] == 408
        assert 'windtunnel_ongoing{deployment="a"} 0' in _settled(session)


def _settled(session: ServingSession) -> str:
    import time

    time.sleep(1.0)
    return _ask(session, "-/metrics", None)[1]


def test_calls_run_in_order_and_side_by_side() -> None:
    text = '[[deployments]]\nname = "a"\ncost = { per_call = "1ms" }\ncalls = ["b", ["c", "d"]]\n' + "".join(
        f'[[deployments]]\nname = "{n}"\ncost = {{ per_call = "80ms" }}\n' for n in "bcd"
    )
    with host(text, work="sleep") as session:
        (request,) = _load(session, [0.0])
    visits = {v[0]: v for v in request.trace}
    assert visits["b"][4] <= visits["c"][3] and visits["b"][4] <= visits["d"][3]
    assert visits["c"][3] < visits["d"][4] and visits["d"][3] < visits["c"][4]


def test_batches_fill() -> None:
    text = '[[deployments]]\nname = "a"\ncost = { per_call = "5ms" }\nbatch = { max_size = 4, wait = "500ms" }\n'
    with host(text, work="sleep") as session:
        assert [r.trace[0][5] for r in _load(session, [0.0] * 8)] == [4] * 8


@pytest.mark.parametrize(("path", "body", "kind", "status"), [
    ("", b"{", "application/json", 400), ("", b"x" * 2000, "text/plain", 413), ("nowhere", b"x", "text/plain", 404),
    ("", None, "text/plain", 405),
])  # fmt: skip
def test_bad_requests_are_told_so(path: str, body: bytes | None, kind: str, status: int) -> None:
    with host(SLEEPER, max_body="1000B") as session:
        assert _ask(session, path, body, kind)[0] == status
        assert _ask(session)[:2] == (200, "x")
        assert _ask(session, "-/healthz", None)[:2] == (200, "ok\n")


def test_its_end_leaves_no_process() -> None:
    with host(SLEEPER) as session:
        family = [psutil.Process(session.processes[0].pid), *replicas(session)]
        assert len(family) == 3
    assert not [p for p in family if p.is_running()]


@pytest.mark.parametrize("engine", ["serving", "fastapi"])
def test_a_scenario_runs_in_both_worlds(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients in a closed loop, two deployments: the same document from both, and never faster than the work itself."""
    import json

    from windtunnel.cli import main

    file = tmp_path / "s.toml"
    two = '[[deployments]]\nname = "a"\ncost = { per_call = "2ms" }\ncalls = ["b"]\n'
    two += '[[deployments]]\nname = "b"\ncost = { per_call = "3ms" }\n'
    file.write_text(scenario(two, engine, 'kind = "closed"\nconcurrency = 2'), encoding="utf-8")
    documents = {}
    for command in (["run", str(file), "--no-aa", "-n", "1"], ["simulate", str(file)]):
        folder = tmp_path / command[0]
        assert main([*command, "--json", "--results", str(folder)]) == 0
        [documents[command[0]]] = json.loads(capsys.readouterr().out)["runs"]
    real, simulated = documents["run"], documents["simulate"]
    assert real.keys() == simulated.keys()
    for run in (real, simulated):
        assert run["requests"]["ok"] == run["requests"]["sent"] > 10
        assert run["latency_s"]["p50"] >= 0.0049
    assert real["throughput_per_s"] <= simulated["throughput_per_s"] * 1.1, "no overheads are simulated but the declared work"
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "lowest p99" in capsys.readouterr().out


def test_a_run_whose_requests_were_sent_late_is_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from windtunnel.cli import main

    file = tmp_path / "s.toml"
    one = '[[deployments]]\nname = "a"\ncost = { per_call = "1ms" }\n'
    file.write_text(scenario(one, options='send_lag = "1ns"'), encoding="utf-8")
    assert main(["run", str(file), "--no-aa", "-n", "1", "--results", str(tmp_path / "results")]) == 7
    said = capsys.readouterr()
    assert "the rate or use a quieter machine" in " ".join((said.out + said.err).split())


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["python", "haproxy"])
def test_ray_serve_answers_batches_and_compositions(proxy: str) -> None:
    """A Ray of its own for each: the same scenario as the embedded host's, and nothing left of it afterwards."""
    pytest.importorskip("ray.serve")
    text = '[[deployments]]\nname = "a"\nreplicas = 2\ncost = { per_call = "1ms" }\ncalls = ["b"]\n'
    text += '[[deployments]]\nname = "b"\ncost = { per_call = "1ms" }\nbatch = { max_size = 4, wait = "20ms" }\n'
    with host(text, engine="ray-serve", proxy=proxy) as session:
        family = psutil.Process(session.processes[0].pid).children(recursive=True)
        sent = _load(session, [0.05 * i for i in range(20)])
    assert Counter(r.outcome for r in sent) == {"ok": 20}
    assert all([v[0] for v in r.trace] == ["a", "b"] for r in sent)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["python", "haproxy"])
def test_ray_serve_answers_over_grpc_beside_http_on_loopback_only(proxy: str) -> None:
    pytest.importorskip("ray.serve")
    grpc = pytest.importorskip("grpc")
    from windtunnel.engines.serving.wire import TRACE

    port = free_port()
    text = '[[deployments]]\nname = "a"\ncost = { per_call = "1ms" }\ncalls = ["b"]\n'
    text += '[[deployments]]\nname = "b"\ncost = { per_call = "1ms" }\n'
    with host(text, engine="ray-serve", proxy=proxy, grpc_port=port, max_body="1kB") as session:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary("/windtunnel.Serving/Ask")
            answer, call = ask.with_call(b"abc", timeout=30, metadata=((TRACE, "1"),))
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"x" * 1100, timeout=30)
        sent = _load(session, [0.05 * i for i in range(5)])
        ears = {
            c.laddr.ip.removeprefix("::ffff:")
            for c in psutil.net_connections("tcp")
            if c.status == "LISTEN" and c.laddr.port == port
        }
    assert answer.startswith(b"abc")
    assert [v[0] for v in json.loads(dict(call.trailing_metadata())[TRACE])] == ["a", "b"]
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert Counter(r.outcome for r in sent) == {"ok": 5}
    assert ears == {"127.0.0.1"}
