"""What a request for tokens and its streamed answer look like on the wire: JSON in, server-sent events out. Emulated: tokens are numbers.

The module owns the format. A request says how many tokens its prompt has and how many are to come; each token is an event that names
the request, so that a mixed-up stream is seen; the last event is ``[DONE]``, as in OpenAI's interface.
"""

from __future__ import annotations

import json
from typing import Any

from windtunnel.errors import InputError

EVENTS = "text/event-stream"
DONE = b"data: [DONE]\n\n"
MOST_TOKENS = 1 << 20  # of a prompt, or of an answer


def request(name: str, prompt: int, output: int, size: int = 0) -> bytes:
    """The body, filled up with spaces to so many bytes."""
    return json.dumps({"id": name, "prompt_tokens": prompt, "max_tokens": output}).encode().ljust(size)


def lengths(body: bytes) -> tuple[str, int, int]:
    """Its name, tokens of its prompt, tokens that are to come. Raises InputError."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body must be JSON: {error}") from error
    if not isinstance(told, dict):
        raise InputError("the body must be a JSON object with prompt_tokens and max_tokens")
    name = told.get("id", "")
    if not isinstance(name, str) or len(name) > 64:
        raise InputError("id must be a text of at most 64 characters")
    return name, _count(told, "prompt_tokens"), _count(told, "max_tokens")


def _count(told: dict[str, Any], key: str) -> int:
    count = told.get(key)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_TOKENS:
        raise InputError(f"{key} = {count!r} must be a whole number from 1 to {MOST_TOKENS}")
    return count


def event(name: str, number: int) -> bytes:
    """One token."""
    return b"data: %b\n\n" % json.dumps({"id": name, "token": number}).encode()


def answer(name: str, output: int) -> bytes:
    """The whole stream."""
    return b"".join(event(name, number) for number in range(output)) + DONE
