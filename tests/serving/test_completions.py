"""OpenAI's interface before the emulated language model: by hand, and with OpenAI's own client where it is installed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import running
from tests.serving.test_token_streams import MODEL, TOKENS


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("chat"), MODEL, TOKENS) as session:
        yield session


def _ask(session: Any, path: str, body: Any) -> tuple[int, str, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{session.url}v1/{path}", data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def _events(data: bytes) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in data.strip().split(b"\n\n")]
    assert parts[-1] == b"[DONE]"
    return [json.loads(part) for part in parts[:-1]]


def test_an_answer_as_a_whole(chat: Any) -> None:
    status, kind, data = _ask(chat, "completions", {"model": "chat", "prompt": "x" * 40, "max_tokens": 3})
    told = json.loads(data)
    assert (status, kind, told["object"]) == (200, "application/json", "text_completion")
    assert told["choices"][0]["text"] == " t0 t1 t2"
    assert told["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    told = json.loads(_ask(chat, "chat/completions", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2})[2])
    assert told["choices"][0]["message"] == {"role": "assistant", "content": " t0 t1"} and told["usage"]["prompt_tokens"] == 2


def test_a_stream_of_chunks_with_usage(chat: Any) -> None:
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "max_completion_tokens": 4,
        "stream": True,
    }
    status, kind, data = _ask(chat, "chat/completions", {**body, "stream_options": {"include_usage": True}})
    events = _events(data)
    assert (status, kind) == (200, "text/event-stream")
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]) == " t0 t1 t2 t3"
    assert events[-2]["choices"][0]["finish_reason"] == "length" and events[-1]["usage"]["completion_tokens"] == 4
    assert all("usage" not in e for e in _events(_ask(chat, "chat/completions", body)[2]))


def test_models_and_refusals(chat: Any) -> None:
    assert json.loads(_ask(chat, "models", None)[2])["data"][0]["id"] == "chat"
    refused = [
        ({"model": "other", "prompt": "x"}, 404), ({"prompt": 7}, 400), ({"prompt": "x", "n": 2}, 400), ([], 400),
        ({"prompt": "x", "max_tokens": 0}, 400), ({"prompt": "x" * 8000, "max_tokens": 4}, 413),
    ]  # fmt: skip
    for body, status in refused:
        found, kind, data = _ask(chat, "completions", body)
        assert (found, kind) == (status, "application/json") and json.loads(data)["error"]["message"], body


def test_openais_own_client(chat: Any) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{chat.url}v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}], max_tokens=3)
    assert whole.choices[0].message.content == " t0 t1 t2" and whole.usage.completion_tokens == 3
    stream = client.completions.create(model="chat", prompt="hello", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == " t0 t1 t2 t3 t4"
    assert [m.id for m in client.models.list()] == ["chat"]
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")
