"""OpenAI's completions interface in front of the emulated language model: requests in, answers and streams of chunks out.

``/v1/completions``, ``/v1/chat/completions`` and ``/v1/models``, as existing clients and load tools speak them. No model runs: a prompt
has a token for every four bytes of its text (or as many as it lists), an answer has as many as it may have, and each is a short word.
Not offered: more than one choice, log probabilities, tools, images. The module owns the two formats; how tokens are made is
`windtunnel.engines.serving.streamed`'s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from windtunnel.engines.serving import streamed
from windtunnel.engines.serving.messages import Answer
from windtunnel.errors import InputError

PATHS = {"/v1/completions": False, "/v1/chat/completions": True}
MODELS = "/v1/models"
JSON = "application/json"
BYTES_A_TOKEN = 4
_EVENT = b"data: "


class UnknownModel(InputError):
    """The request names a model that is not served."""


class Completion:
    """One request: ``body`` asks the emulated model for it; pieces of its stream become chunks (`piece`) or one answer (`whole`)."""

    def __init__(self, body: bytes, chat: bool, model: str, number: int) -> None:
        told = _object(body)
        if told.get("model", model) != model:
            raise UnknownModel(f"there is no model {told.get('model')!r} here; it is called {model!r}")
        if told.get("n", 1) != 1 or told.get("best_of", 1) not in (None, 1):
            raise InputError("n must be 1: an emulated model has one answer")
        self.stream, self._chat, self._model = bool(told.get("stream")), chat, model
        self.prompt = _chat_tokens(told.get("messages")) if chat else _prompt_tokens(told.get("prompt"))
        self.output = _most(told)
        options = told.get("stream_options")
        self._usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
        self._id, self._made = f"{'chatcmpl' if chat else 'cmpl'}-{number}", int(time.time())
        self._count = 0
        self.body = streamed.request("", self.prompt, self.output)

    def piece(self, data: bytes) -> bytes:
        """Chunks for tokens of the stream; its end has a reason, the usage where it was asked for, and ``[DONE]``."""
        tokens = [part for part in data.split(b"\n\n") if part.startswith(_EVENT) and part != streamed.DONE.strip()]
        chunks = []
        for _ in tokens:
            chunks.append(self._chunk([self._choice(self._word(), None)]))
            self._count += 1
        if streamed.DONE.strip() in data:
            chunks.append(self._chunk([self._choice("", "length")]))
            if self._usage:
                chunks.append(self._chunk([], usage=self._used()))
            chunks.append(streamed.DONE)
        return b"".join(chunks)

    def whole(self) -> Answer:
        """The answer to a request that wants no stream."""
        text = "".join(f" t{n}" for n in range(self.output))
        self._count = self.output
        said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        kind = "chat.completion" if self._chat else "text_completion"
        return Answer(200, json.dumps(self._document(kind, [choice], usage=self._used())).encode(), kind=JSON)

    def _word(self) -> str:
        return f" t{self._count}"

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        if not self._chat:
            return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        role = {"role": "assistant"} if not self._count else {}
        return {"index": 0, "delta": {**role, **({"content": text} if text else {})}, "logprobs": None, "finish_reason": reason}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return _EVENT + json.dumps(self._document(kind, choices, **more)).encode() + b"\n\n"

    def _document(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._made, "model": self._model, "choices": choices, **more}

    def _used(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt, "completion_tokens": self._count, "total_tokens": self.prompt + self._count}


def refused(status: int, text: str, *more: str) -> Answer:
    """An error as clients of this interface read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = "model_not_found" if status == 404 else None
    body = json.dumps({"error": {"message": text.strip(), "type": kind, "param": None, "code": code}}).encode()
    return Answer(status, body, more, JSON)


def models(model: str) -> Answer:
    """The list of models: one."""
    one = {"id": model, "object": "model", "created": 0, "owned_by": "windtunnel"}
    return Answer(200, json.dumps({"object": "list", "data": [one]}).encode(), kind=JSON)


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body must be JSON: {error}") from error
    if not isinstance(told, dict):
        raise InputError("the body must be a JSON object")
    return told


def _most(told: dict[str, Any]) -> int:
    count = next((told[k] for k in ("max_completion_tokens", "max_tokens") if told.get(k) is not None), 16)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= streamed.MOST_TOKENS:
        raise InputError(f"max_tokens = {count!r} must be a whole number from 1 to {streamed.MOST_TOKENS}")
    return count


def _text_tokens(text: str) -> int:
    return max(1, -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN))


def _prompt_tokens(prompt: Any) -> int:
    """A text, a list of one text, or a list of tokens."""
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return min(_text_tokens(prompt), streamed.MOST_TOKENS)
    if isinstance(prompt, list) and prompt and all(isinstance(t, int) for t in prompt):
        return min(len(prompt), streamed.MOST_TOKENS)
    raise InputError("prompt must be a text, or a list of tokens")


def _chat_tokens(messages: Any) -> int:
    """All texts of a conversation."""
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise InputError("messages must be a list of { role, content }")
    texts = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [p.get("text") if isinstance(p, dict) else None for p in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("the content of a message must be text")
    return min(_text_tokens("".join(map(str, texts))), streamed.MOST_TOKENS)
