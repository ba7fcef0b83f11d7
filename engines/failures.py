"""How a failing kernel is told: operator, partition, the exception, and the user's own line.

`KernelFailed` carries its facts in its text too, between marks, because foreign engines pass on only the text of an exception
(through a JVM, a C++ scan, another process); `unwrap` finds them again. The module knows no engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from windtunnel.errors import OutOfMemory, RunFailed

_ENGINES = str(Path(__file__).resolve().parent) + os.sep
_MARK = re.compile(r"⟦(\[.*?\])⟧", re.DOTALL)
_CAUSE = "Caused by: "
_MEMORY = re.compile(r"OutOfMemoryError|Out of Memory Error|std::bad_alloc|MemoryError|Java heap space", re.IGNORECASE)


class KernelFailed(Exception):
    """A user's kernel raised. ``args`` are plain, so that it survives pickling."""

    def __init__(self, operator: str, partition: int | None, reason: str) -> None:
        super().__init__(operator, partition, reason)
        self.operator, self.partition, self.reason = operator, partition, reason

    def __str__(self) -> str:
        return f"⟦{json.dumps([self.operator, self.partition, self.reason])}⟧"


@contextlib.contextmanager
def kernel_failure(operator: str, partition: int | None = None) -> Iterator[None]:
    """Turn whatever the block raises into KernelFailed."""
    try:
        yield
    except KernelFailed:
        raise
    except Exception as error:
        raise KernelFailed(operator, partition, describe(error)) from error


def sentence(operator: str, partition: int | None, reason: str) -> str:
    """One sentence for the user."""
    place = "" if partition is None else f", partition {partition}"
    return f"operator {operator!r}{place} failed: {reason}"


def describe(error: BaseException) -> str:
    """The exception and the user's own line: the last frame outside this package's engines and installed libraries."""
    if isinstance(error, RunFailed):
        return str(error)
    own = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not own:
        return text
    last = own[-1]
    return f'{text} (File "{last.filename}", line {last.lineno}, in {last.name}: {last.line})'


def _is_users(file: str) -> bool:
    """Compiled libraries name files that are not there; ours and installed ones are not the user's."""
    return not file.startswith(_ENGINES) and "site-packages" not in file and os.path.isfile(file)


def unwrap(engine: str, error: BaseException) -> RunFailed:
    """The failure behind an engine's exception: a kernel's, memory, or the engine's own first line."""
    if isinstance(error, RunFailed):
        return error
    texts = [str(e) for e in _chain(error)]
    for text in texts:
        if found := _MARK.search(text):
            operator, partition, reason = json.loads(found[1])
            return RunFailed(sentence(operator, partition, reason), operator=operator, partition=partition)
    reason = f"{engine}: {type(error).__name__}: {_first_line(texts[0])}"
    if isinstance(error, MemoryError) or any(_MEMORY.search(t) for t in texts):
        return OutOfMemory(reason)
    return RunFailed(reason)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    """The line that tells most: the first, or of a Java trace that came through Py4J the deepest cause that has a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("An error occurred while calling"):
        causes = [line.removeprefix(_CAUSE) for line in lines if line.startswith(_CAUSE) and ": " in line.removeprefix(_CAUSE)]
        return (causes or [lines[1].removeprefix(": ")])[-1][:500]
    return lines[0][:500] if lines else "no message"
