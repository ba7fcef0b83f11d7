"""Streams of tokens for real: the iterations of a replica by hand, and a host that streams them to the load generator."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import UNIFORM, running, scenario
from windtunnel.engines.models.arrivals import token_lengths
from windtunnel.engines.serving import streamed
from windtunnel.engines.serving.load import Loop
from windtunnel.engines.serving.shared import Bodies, create
from windtunnel.engines.serving.token_replica import TokenLoop
from windtunnel.engines.serving.wire import ANSWER, HEAD, LAST, PART, SKIPPED
from windtunnel.errors import InputError, Unsupported
from windtunnel.records.record import Recorder
from windtunnel.scenario.reading import parse_scenario
from windtunnel.spec.serving import ArrivalSpec, TokenLengths, TokenSpec

COSTS = TokenSpec(iteration_s=0.010, prefill_s=0.001, decode_s=0.002)
MODEL = """
[[deployments]]
name = "chat"
max_ongoing = 100
resources = { cpus = 0, gpus = 1 }
tokens = { iteration = "2ms", prefill = "0.1ms", decode = "0.1ms", kv_memory = "1000B", kv_per_token = "1B" }
"""
TOKENS = UNIFORM + "\ntokens = { prompt = 20, output = 5, cv = 0.5 }"
LENGTHS = TokenLengths(prompt=20, output=5, cv=0.5)


# -- a replica ----------------------------------------------------------------------------------------------------------------


def _frame(number: int, name: str, prompt: int, output: int, deadline_s: float = 1e12) -> bytes:
    body = streamed.request(name, prompt, output)
    return HEAD.pack(number, 1, len(body), deadline_s) + body


def _served(data: bytes, spec: TokenSpec = COSTS) -> tuple[list[float], dict[int, list[tuple[int, bytes]]]]:
    """All is there at the beginning: what each iteration took (ms), and the frames of each call."""
    ours, theirs = socket.socketpair()
    spent: list[float] = []
    ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
    TokenLoop(theirs, Bodies(create(), host=False), spec, lambda: 1.0, lambda s: spent.append(round(s * 1e3, 6))).serve()
    theirs.close()
    told, found = b"".join(iter(lambda: ours.recv(1 << 16), b"")), dict[int, list[tuple[int, bytes]]]()
    ours.close()
    while told:
        number, _, length, _, _, kind = ANSWER.unpack_from(told)
        found.setdefault(number, []).append((kind, told[ANSWER.size : ANSWER.size + length]))
        told = told[ANSWER.size + length :]
    return spent, found


def test_one_call_alone() -> None:
    """As in the simulated world: 10 + 20 × 1 ms for the prompt and its first token, then 10 + 2 ms for each of four more."""
    spent, found = _served(_frame(1, "a", 20, 5))
    assert spent == [30, 12, 12, 12, 12]
    assert [kind for kind, _ in found[1]] == [PART] * 5 + [LAST]
    assert b"".join(data for _, data in found[1]) == streamed.answer("a", 5)


def test_two_calls_share_their_iterations() -> None:
    spent, found = _served(_frame(1, "a", 20, 3) + _frame(2, "b", 10, 2))
    assert spent == [10 + 20 + 10, 10 + 2 + 2, 10 + 2]
    assert b"".join(data for _, data in found[2]) == streamed.answer("b", 2)


def test_a_call_that_lost_its_memory_repeats_no_token() -> None:
    """Room for 12 tokens: two prompts of 5 fit, their answers of 5 do not."""
    spec = TokenSpec(iteration_s=0.01, prefill_s=0.001, decode_s=0.002, kv_tokens=12)
    spent, found = _served(_frame(1, "a", 5, 5) + _frame(2, "b", 5, 5), spec)
    assert len(spent) > 5, "the younger one is computed again"
    for number, name in ((1, "a"), (2, "b")):
        assert b"".join(data for _, data in found[number]) == streamed.answer(name, 5)


def test_what_is_late_or_withdrawn_is_not_computed() -> None:
    spent, found = _served(_frame(1, "late", 20, 5, time.monotonic() - 1) + _frame(2, "gone", 20, 5) + HEAD.pack(2, 0, 0, 0.0))
    assert spent == [] and [found[n][0][0] for n in (1, 2)] == [SKIPPED] * 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"prompt_tokens": 1}', b'{"prompt_tokens": true, "max_tokens": 1}',
                                  b'{"prompt_tokens": 1, "max_tokens": 0}', b'{"prompt_tokens": 1, "max_tokens": 1, "id": 7}'])  # fmt: skip
def test_what_asks_for_no_tokens_is_told_so(body: bytes) -> None:
    with pytest.raises(InputError):
        streamed.lengths(body)


# -- a host -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("chat"), MODEL, TOKENS) as session:
        yield session


def _ask(session: Any, body: bytes) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(session.url, data=body), timeout=10) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, "", error.read()


def test_answers_are_server_sent_events(chat: Any) -> None:
    assert _ask(chat, streamed.request("x", 3, 4)) == (200, "text/event-stream", streamed.answer("x", 4))
    assert _ask(chat, b"hello")[0] == 400
    status, _, text = _ask(chat, streamed.request("x", 999, 4))
    assert status == 413 and b"memory for 1000" in text


def test_the_load_generator_verifies_streams_and_times_tokens(chat: Any) -> None:
    spec = ArrivalSpec(kind="poisson", rate_per_s=20, duration_s=2, tokens=LENGTHS)
    sent = chat.ask(spec, Loop(times=tuple(i / 50 for i in range(40))))
    assert all(r.outcome == "ok" for r in sent)
    assert [r.tokens for r in sent] == [output for _, output in islice(token_lengths(spec, 0), 40)], (
        "those of the simulated world"
    )
    for r in sent:
        assert r.first_byte_s - r.sent_s >= 0.002, "an iteration at least"
        assert r.done_s - r.sent_s >= 0.002 * r.tokens, "one for each token"
        assert r.first_byte_s < r.done_s or r.tokens == 1
        assert r.trace[0][0] == "chat" and r.trace[0][3] <= r.first_byte_s


def test_a_client_that_leaves_takes_its_sequence_along(chat: Any) -> None:
    parts = chat.url.removeprefix("http://").strip("/").split(":")
    body = streamed.request("long", 10, 900)
    with socket.create_connection((parts[0], int(parts[1])), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert b"token" in client.recv(1000)
    end = time.monotonic() + 10
    while 'windtunnel_ongoing{deployment="chat"} 0' not in urllib.request.urlopen(chat.url + "-/metrics").read().decode():
        assert time.monotonic() < end, "its place is free long before its 900 tokens would be done"
        time.sleep(0.02)


def test_the_record_has_both_times(chat: Any) -> None:
    from windtunnel.engines.serving.journal import write

    spec = ArrivalSpec(kind="poisson", rate_per_s=20, duration_s=1, tokens=LENGTHS)
    sent, recorder = chat.ask(spec, Loop(times=(0.0, 0.1))), Recorder()
    write(recorder, sent, parse_scenario(scenario(MODEL, arrivals=TOKENS)).workload.serving, 1.0)  # type: ignore[arg-type]
    tokens = sum(r.tokens for r in sent)
    assert recorder.counters["tokens_out"] == tokens and recorder.counters["tokens_per_s"] == pytest.approx(tokens / 1.0)
    assert recorder.counters["ttft_p50_s"] >= 0.002 and recorder.counters["tpot_p50_s"] > 0


def test_who_cannot_says_so(tmp_path: Path) -> None:
    two = MODEL + '[[deployments]]\nname = "other"\ncost = { per_call = "1ms" }\n'
    for engine, text, why in (("fastapi", MODEL, "emulated language model"), ("serving", two, "stands alone")):
        with pytest.raises(Unsupported, match=why), running(tmp_path, text, TOKENS, engine):
            pass
