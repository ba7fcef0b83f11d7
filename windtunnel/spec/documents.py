"""Reading text that anybody may have written: a regular file of bounded size, TOML of bounded depth. One sentence for what is wrong.

The module owns those bounds. Parsers take longer and longer for each step of a dotted key (fifty thousand steps take minutes) and
recurse into what is nested, so that both are bounded before they see it. It knows nothing of what a document means.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from windtunnel.spec.strict import Place, one_line

T = TypeVar("T")
MOST_BYTES = 2 * 2**20  # of a text that people write
MOST_STEPS = 64  # of a dotted key, and levels of a document
#: one step of a dotted key and its dot, many times; possessive, so that a long name is looked at once
_STEP = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"""(?<![\w\-"'])(?:{_STEP}){{{MOST_STEPS}}}""")


def read_text(path: Path, place: Place, most: int = MOST_BYTES) -> str:
    """The text of a file of at most ``most`` bytes. Raises InputError; what is no regular file is not opened: it may never end."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            place.fail("is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file")
        if found.st_size > most:
            place.fail(f"has {found.st_size} bytes; at most {most} are read")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        place.fail(f"cannot be read: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError as error:
        place.fail(f"is not UTF-8 text: byte {error.start} is invalid")
    except ValueError:  # a path with a null byte
        place.fail("cannot be read: no file can have that name")


def parse_toml(text: str, place: Place) -> dict[str, Any]:
    """The document of a text in TOML. Raises InputError."""
    if _LONG_KEY.search(text):
        place.fail(f"has a dotted key of more than {MOST_STEPS} parts; no key of this format has more than ten")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        place.fail("is nested too deeply")
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        place.fail(f"is not valid TOML: {one_line(str(error))}")
    return _bounded(document, place)


def parse_json(text: str, place: Place) -> Any:
    """The document of a text in JSON, whose numbers are finite. Raises InputError."""
    try:
        document = json.loads(text, parse_constant=_refused)
    except RecursionError:
        place.fail("is nested too deeply")
    except ValueError as error:
        place.fail(f"is not JSON: {one_line(str(error))}")
    return _bounded(document, place)


def _bounded(document: T, place: Place) -> T:
    """The same document, if what walks through it by recursion can."""
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(MOST_STEPS):
        level = [
            v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner) if isinstance(v, (dict, list))
        ]
        if not level:
            return document
    return place.fail(f"is nested too deeply: {MOST_STEPS} levels are the most")


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
