"""What clients see of the embedded host: HTTP as it is and as it should not be, pieces, gRPC, a mounted application, cancellation."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")
pytest.importorskip("grpc")

import grpc
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import free_port, running

ONE = '[[deployments]]\nname = "a"\nmax_ongoing = 4\ncost = { per_call = "0s" }\n'
GRPC = free_port()


@pytest.fixture(scope="module")
def host(handlers: Path) -> Iterator[Any]:
    options = {"work": "shouting:Shout", "app": "shouting:app", "grpc_port": GRPC, "client_timeout": "400ms", "max_body": "1kB"}
    with running(handlers, ONE, request_timeout="5s", **options) as session:
        yield session


def _raw(session: Any, data: bytes, wait_s: float = 5.0, end: bool = True) -> bytes:
    """All that comes back for these bytes until the connection is closed or nothing more comes."""
    with closing(socket.create_connection(("127.0.0.1", session._port), wait_s)) as client:
        found = b""
        try:
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
            while got := client.recv(65536):
                found += got
        except (TimeoutError, ConnectionError):
            pass
    return found


def _post(body: bytes, more: bytes = b"", path: bytes = b"/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n%b" % (path, len(body), more, body)


def _metric(session: Any, line: str) -> float:
    with urllib.request.urlopen(session.url + "-/metrics", timeout=10) as response:
        text = response.read().decode()
    return next((float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line)), 0.0)


def _statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def test_the_handler_of_the_user_answers(host: Any) -> None:
    assert _raw(host, _post(b"abc")).endswith(b"\r\n\r\nABC")
    failed = _raw(host, _post(b"raise"))
    assert _statuses(failed) == [500] and b"ValueError: no" in failed
    assert _raw(host, _post(b"abc")).endswith(b"ABC"), "the replica goes on"


def test_requests_sent_at_once_are_answered_in_order(host: Any) -> None:
    answers = _raw(host, _post(b"sleep.1") + _post(b"x") + b"GET /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n" + _post(b"y"))
    assert [part.rpartition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [
        b"SLEEP.1",
        b"X",
        b"ok\n",
        b"Y",
    ]


def test_a_request_may_come_in_any_pieces(host: Any) -> None:
    with closing(socket.create_connection(("127.0.0.1", host._port), 5)) as client:
        for byte in _post(b"abc"):
            client.sendall(bytes([byte]))
        assert client.recv(65536).endswith(b"ABC")


def test_an_answer_in_pieces_is_chunked_and_comes_while_it_is_made(host: Any) -> None:
    with closing(socket.create_connection(("127.0.0.1", host._port), 5)) as client:
        client.sendall(_post(b"pieces0.2"))
        first = client.recv(65536)
        assert b"Transfer-Encoding: chunked" in first and b"<4>" not in first
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += client.recv(65536)
    assert b"<4>" in rest


def test_a_client_that_leaves_stops_its_answer(host: Any) -> None:
    before = _metric(host, 'windtunnel_requests_total{status="499"}')
    with closing(socket.create_connection(("127.0.0.1", host._port), 5)) as client:
        client.sendall(_post(b"pieces1"))
        client.recv(65536)
    begun = time.monotonic()
    assert _raw(host, _post(b"next")).endswith(b"NEXT")
    assert time.monotonic() - begun < 3.5, "the replica's only thread was free after one piece, not after four"
    assert _metric(host, 'windtunnel_requests_total{status="499"}') == before + 1


def test_other_paths_belong_to_the_mounted_application(host: Any) -> None:
    assert _raw(host, b"GET /app?q=1 HTTP/1.1\r\nHost: h\r\n\r\n").endswith(b"mounted")
    assert _statuses(_raw(host, b"GET /-/nothing HTTP/1.1\r\nHost: h\r\n\r\n")) == [404]


def test_the_pages(host: Any) -> None:
    with urllib.request.urlopen(host.url + "-/openapi.json", timeout=10) as response:
        document = json.load(response)
    assert document["openapi"].startswith("3.1") and {"/", "/-/healthz", "/-/metrics"} <= document["paths"].keys()
    assert _metric(host, 'windtunnel_request_seconds_bucket{le="+Inf"}') == _metric(host, "windtunnel_request_seconds_count") > 0
    assert _raw(host, b"HEAD /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n").endswith(b"\r\n\r\n")


def test_clients_that_send_too_slowly_are_told_so(host: Any) -> None:
    for start in (b"POST / HT", b"POST / HTTP/1.1\r\nHost: h\r\n", _post(b"abc")[:-1]):
        assert _statuses(_raw(host, start, end=False)) == [408], start
    assert _raw(host, b"", wait_s=3.0, end=False) == b"", "closed without a word"


@pytest.mark.parametrize(("data", "status"), [
    (b"no HTTP at all\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (_post(b"x" * 1001), 413),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", 413),
    (_post(b"a", b"X-Long: " + b"x" * 70_000 + b"\r\n"), 431),
    (_post(b"{", b"Content-Type: application/json\r\n"), 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    (b"POST /-/metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 405),
    (b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 405),
])  # fmt: skip
def test_what_is_wrong_is_said(host: Any, data: bytes, status: int) -> None:
    assert _statuses(_raw(host, data)) == [status]
    assert _raw(host, _post(b"abc")).endswith(b"ABC")


@given(cut=st.integers(0, 60), noise=st.binary(max_size=40), at=st.integers(0, 60))
@example(cut=0, noise=b"\x00", at=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_requests_get_an_answer_or_an_end(host: Any, cut: int, noise: bytes, at: int) -> None:
    """A good request with bytes cut out and put in: what comes back is HTTP, and the next client sees nothing of it."""
    good = _post(b"abc")
    begun = time.monotonic()
    answers = _raw(host, good[:at] + noise + good[at + cut :])
    assert time.monotonic() - begun < 4.0
    assert answers == b"" or all(s in (200, 400, 404, 405, 408, 413, 417, 431, 500, 501, 505) for s in _statuses(answers))
    assert _raw(host, good).endswith(b"\r\n\r\nABC")


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_the_openapi_document(host: Any, data: st.DataObject) -> None:
    """Any body and content type on any documented path and method: a documented status and content type, and a right answer."""
    with urllib.request.urlopen(host.url + "-/openapi.json", timeout=10) as response:
        paths = json.load(response)["paths"]
    path = data.draw(st.sampled_from(sorted(paths)))
    method = data.draw(st.sampled_from(sorted(paths[path])))
    body = data.draw(st.binary(max_size=1200) | st.sampled_from([b"raise", b"pieces", b"{}", b"{", b"[" * 900]))
    kind = data.draw(st.sampled_from([b"application/json", b"Application/JSON; charset=utf-8", b"text/plain", b"", b"\xff"]))
    head = b"%b %b HTTP/1.1\r\nHost: h\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    answer = _raw(host, head % (method.upper().encode(), path.encode(), kind, len(body)) + body)
    documented = paths[path][method]["responses"]
    (status,) = _statuses(answer)
    assert str(status) in {**documented, "400": None, "413": None}
    if str(status) in documented:
        said = next(line for line in answer.split(b"\r\n") if line.startswith(b"Content-Type: ")).decode()
        assert said.removeprefix("Content-Type: ").partition(";")[0] in documented[str(status)]["content"]
    if path == "/" and status == 200 and b"chunked" not in answer:
        assert answer.partition(b"\r\n\r\n")[2] == body.upper()


#: RFC 9112 and 9110, one request each: what it sends, and the status of the answer
RULES = [
    (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc", 400),
    (b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 3\r\n\r\nabc", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: h\r\nExpect: wonders\r\nContent-Length: 3\r\n\r\n", 417),
    (b"POST / HTTP/2.0\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 505),
    (b"POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 200),
    (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 200),
    (_post(b'{"a": NaN}', b"Content-Type: application/json\r\n"), 400),
    (_post('{"a": 1}'.encode("utf-16"), b"Content-Type: application/json\r\n"), 400),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), RULES)
def test_the_rules_of_http(host: Any, data: bytes, status: int) -> None:
    assert _statuses(_raw(host, data)) == [status]


def test_head_gets_no_body_whatever_is_wrong(host: Any) -> None:
    head = b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{"
    answers = _raw(host, head + _post(b"abc"))
    assert _statuses(answers) == [400, 200] and answers.count(b"\r\n\r\n") == 2 and b"JSON" not in answers
    assert _raw(host, b"HEAD / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").endswith(b"\r\n\r\n")


def test_an_old_client_gets_pieces_without_chunks(host: Any) -> None:
    answer = _raw(host, b"POST / HTTP/1.0\r\nContent-Length: 6\r\n\r\npieces")
    assert b"chunked" not in answer and answer.endswith(b"\r\n\r\n<0><1><2><3><4>")


def test_continue_is_said_where_it_is_asked_for_and_nowhere_else(host: Any) -> None:
    asked = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
    assert _statuses(_raw(host, asked + b"Content-Length: 3\r\n\r\nabc")) == [100, 200]
    assert _statuses(_raw(host, asked + b"Content-Length: 99999999\r\n\r\n")) == [413]
    assert _statuses(_raw(host, asked.replace(b"1.1", b"1.0") + b"Content-Length: 3\r\n\r\nabc")) == [200]
    trailer = b"3\r\nabc\r\n0\r\nExpect: 100-continue\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert _statuses(_raw(host, chunked + trailer)) == [200], "trailers change nothing"


def test_a_field_that_does_not_end_is_refused_while_it_comes(host: Any) -> None:
    parts = host.url.removeprefix("http://").strip("/").split(":")
    for start in (
        b"POST / HTTP/1.1\r\nHost: h\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ):
        with socket.create_connection((parts[0], int(parts[1])), timeout=10) as client:
            client.sendall(start)
            answer = b""
            client.settimeout(0.01)
            for _ in range(40):
                client.sendall(b"x" * 8192)
                try:
                    answer += client.recv(1000)
                    break
                except TimeoutError:
                    continue
            assert answer.startswith(b"HTTP/1.1 431")


def test_thousands_of_requests_at_once_are_answered_in_order(host: Any) -> None:
    page = b"GET /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    assert _statuses(_raw(host, _post(b"x") + page * 3000, wait_s=20.0)) == [200] * 3001


def test_who_asks_and_never_reads_is_asked_to_wait(host: Any) -> None:
    """Pipelined pages of metrics: what the host would hold for a client that reads nothing stays below a few of its reads."""
    import psutil

    parts = host.url.removeprefix("http://").strip("/").split(":")
    page = b"GET /-/metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 1000
    process = psutil.Process(host.processes[0].pid)
    before, sent = process.memory_info().rss, 0
    with socket.create_connection((parts[0], int(parts[1]))) as client:
        client.settimeout(0.5)
        try:
            for _ in range(2000):
                sent += client.send(page)
        except TimeoutError:
            pass
        assert sent < 32e6, "the host stopped reading"
        assert process.memory_info().rss - before < 100e6


def test_slow_clients_do_not_hold_up_others(host: Any) -> None:
    slow = [socket.create_connection(("127.0.0.1", host._port), 5) for _ in range(60)]
    try:
        for client in slow:
            client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Le")
        assert all(_raw(host, _post(b"n%d" % i)).endswith(b"N%d" % i) for i in range(20))
        assert {client.recv(4096)[:12] for client in slow} == {b"HTTP/1.1 408"}
    finally:
        for client in slow:
            client.close()


def test_grpc_answers_streams_and_keeps_the_callers_deadline(host: Any) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{GRPC}") as channel:
        ask = channel.unary_unary("/windtunnel.Serving/Ask")
        assert ask(b"abc", timeout=5) == b"ABC"
        assert ask(b"pieces", timeout=5) == b"<0><1><2><3><4>"
        assert list(channel.unary_stream("/windtunnel.Serving/Stream")(b"pieces", timeout=5)) == [b"<%d>" % i for i in range(5)]
        for body, timeout, code in (
            (b"raise", 5, grpc.StatusCode.INTERNAL), (b"sleep.6", 0.2, grpc.StatusCode.DEADLINE_EXCEEDED),
            (b"x" * 1100, 5, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):  # fmt: skip
            with pytest.raises(grpc.RpcError) as caught:
                ask(body, timeout=timeout)
            assert caught.value.code() == code


def test_a_run_verifies_every_answer(handlers: Path) -> None:
    from tests.serving.conftest import scenario
    from windtunnel.errors import WrongResult
    from windtunnel.records.record import Recorder
    from windtunnel.scenario.reading import parse_scenario

    with running(handlers, ONE, work="shouting:Shout", send_lag="10s") as session:
        bound = parse_scenario(scenario(ONE)).workload.bind(handlers)
        outcome = session.run(bound, Recorder(), handlers)
        assert outcome.verified and outcome.rows == 10
        session._samples = ((b"a", b"B"), *session._samples)
        with pytest.raises(WrongResult, match="3 of 10 answers"):
            session.run(bound, Recorder(), handlers)
