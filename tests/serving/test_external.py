"""Servers that windtunnel did not start: the record of a run, the ways of asking, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import scenario
from windtunnel.cli import main
from windtunnel.errors import InputError
from windtunnel.registry import load_engine
from windtunnel.spec.cluster import ClusterSpec

ONE = '[[deployments]]\nname = "server"\ncost = { per_call = "1ms" }\n'


class _Handler(BaseHTTPRequestHandler):
    """Answers what it was asked for, and keeps it."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]] = []

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers.get("X-Key", ""), body))
        self.send_response(503 if b"7" in body else 201)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """A server of the standard library."""
    _Handler.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/a/b?c=d"
        found.shutdown()


def test_a_scenario_with_the_engine_url_leaves_the_record_of_any_serving_run(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.toml"
    options = f'url = "{server}", method = "PUT", body = "n={{n}}", headers = {{ X-Key = "k" }}, expect = 201, send_lag = "10s"'
    file.write_text(scenario(ONE, "url", options=options), encoding="utf-8")
    assert main(["run", str(file), "--no-aa", "-n", "1", "--json", "--results", str(tmp_path / "r")]) == 0
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert run["requests"] == {"sent": 10, "ok": 9, "rejected": 1, "timed_out": 0, "failed": 0}
    assert run["latency_s"]["p50"] > 0
    assert {(path, key) for path, key, _ in _Handler.seen} == {("/a/b?c=d", "k")}
    assert {body for _, _, body in _Handler.seen} >= {b"n=%d" % n for n in range(10)}


def test_any_server_is_asked_in_the_ways_of_mlperf(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["load", "--url", server, "--method", "PUT", "--body", "x", "--expect", "201", "--seconds", "0.3", "--json"]
    assert main([*asked, "--as", "single-stream"]) == 0
    assert json.loads(capsys.readouterr().out)["value_s"] > 0
    assert main([*asked, "--as", "offline"]) == 0
    assert json.loads(capsys.readouterr().out)["answered_per_s"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": "http://192.0.2.1/"}, "allow-remote"),
        ({"url": "http://localhost.example/"}, "allow-remote"),
        ({"url": "https://127.0.0.1/"}, "https is not spoken"),
        ({"url": "127.0.0.1:8000"}, "must be like"),
        ({"url": "http://127.0.0.1:99999/"}, "no address"),
        ({"url": "http://127.0.0.1/", "headers": {"X": "a\r\nB: c"}}, "one line of text"),
        ({"url": "http://127.0.0.1/", "headers": {"Content-Length": "3"}}, "the client sets"),
        ({"url": "http://127.0.0.1/", "expect": 99}, "status of HTTP"),
    ],
)
def test_what_is_no_address_or_not_this_machine_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_engine("url").open(ClusterSpec.here(), options)


def test_nobody_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--url", "http://127.0.0.1:9/", "--as", "offline"]) == 5
    assert main(["load"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nobody answers at 127.0.0.1:9" in said and "name a SCENARIO" in said
