"""Reading a TOML table strictly: every key is known, every value has its type, its unit and its range.

The module owns how a broken rule is told: one line with the file, the key path, the value, the rule and the nearest known key.
It knows no scenario.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

from windtunnel.errors import InputError, nearest
from windtunnel.spec.units import parse_quantity

T = TypeVar("T")
#: no quantity of a scenario may pass this (an exabyte, thirty billion years)
LARGEST = 1e18
_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


@dataclass(frozen=True, slots=True)
class Place:
    """A key inside a file: ``memory.toml: cluster.nodes[0].cpus``.

    ``quotes`` False: of a file that another one names, which may be any file of this machine, no text is told.
    """

    file: str
    path: str = ""
    quotes: bool = True

    def key(self, name: str) -> Place:
        """The place of a key of the table here."""
        text = name if _BARE.match(name) else json.dumps(name, ensure_ascii=True)
        return replace(self, path=f"{self.path}.{text}" if self.path else text)

    def item(self, index: int) -> Place:
        """The place of an item of the list here."""
        return replace(self, path=f"{self.path}[{index}]")

    def fail(self, rule: str, value: object = None) -> NoReturn:
        """Raise InputError for this place, with the value when there is one."""
        told = value is not None and (self.quotes or isinstance(value, (int, float)))
        shown = f" = {shorten(value)}" if told else ""
        where = f"{self.path}{shown}: " if self.path else ""
        raise InputError(one_line(f"{self.file}: {where}{rule}"))

    def rule(self, function: Callable[..., T], *args: Any, **keywords: Any) -> T:
        """Call a constructor or parser; an InputError of its own is told as one of this place."""
        try:
            return function(*args, **keywords)
        except InputError as error:
            self.fail(str(error) if self.quotes else "is not valid")


def shorten(value: object) -> str:
    """The value as text of at most 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class Table:
    """One TOML table. Building it refuses unknown keys; reading refuses wrong values. A default of ``None`` = required."""

    def __init__(self, data: object, place: Place, known: Iterable[str]) -> None:
        self.place = place
        if not isinstance(data, dict):
            place.fail("must be a table of keys and values", data)
        self._data: dict[str, Any] = data
        self._known = tuple(known)
        for name in data:
            if name not in self._known:
                place.key(str(name)).fail(f"unknown key{nearest(str(name), self._known)}")

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def raw(self, name: str) -> Any:
        """The value as it stands; required."""
        if name not in self._data:
            hint = f"missing key {name!r}; known keys: {', '.join(sorted(self._known))}"
            self.place.fail(hint)
        return self._data[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it stands, or the default."""
        return self._data.get(name, default)

    def fail(self, name: str, rule: str) -> NoReturn:
        """Raise for the value of a key of this table."""
        self.place.key(name).fail(rule, self._data.get(name))

    def text(self, name: str, default: str | None = None) -> str:
        """A string that is not empty."""
        if name not in self._data and default is not None:
            return default
        value = self.raw(name)
        if not isinstance(value, str) or not value.strip():
            self.fail(name, "must be a string that is not empty")
        if not value.isprintable():
            self.fail(name, "must be one line of printable text")
        return value

    def choice(self, name: str, choices: Iterable[str], default: str | None = None) -> Any:
        """One of a few strings."""
        value = self.text(name, default)
        allowed = tuple(choices)
        if value not in allowed:
            self.fail(name, f"is not one of its values{nearest(value, allowed)}")
        return value

    def integer(self, name: str, default: int | None = None, *, least: int = 0, most: int = 10**9) -> int:
        """A whole number within bounds."""
        if name not in self._data and default is not None:
            return default
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, "must be a whole number")
        if not least <= value <= most:
            self.fail(name, f"must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float | None = None, *, least: float = 0.0, above: float | None = None) -> float:
        """A finite number within bounds; ``above`` excludes its bound."""
        if name not in self._data and default is not None:
            return default
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(name, "must be a number")
        if not abs(value) <= LARGEST:
            self.fail(name, f"must be a finite number below {LARGEST:g}")
        if above is not None and not value > above:
            self.fail(name, f"must be above {above:g}")
        if value < least:
            self.fail(name, f"must be {least:g} or more")
        return float(value)

    def bytes(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A number of bytes, such as "32GiB"."""
        if name not in self._data and default is not None:
            return default
        return round(self._quantity(name, "bytes", least))

    def seconds(self, name: str, default: float | None = None, *, above: float | None = None) -> float:
        """A duration, such as "20ms"."""
        if name not in self._data and default is not None:
            return default
        value = self._quantity(name, "seconds", 0)
        if above is not None and not value > above:
            self.fail(name, f"must be longer than {above:g} s")
        return value

    def rate(self, name: str, default: float | None = None) -> float:
        """Bytes per second above 0, such as "10Gbit/s"."""
        if name not in self._data and default is not None:
            return default
        value = self._quantity(name, "bytes per second", 0)
        if value <= 0:
            self.fail(name, "must be above 0")
        return value

    def _quantity(self, name: str, dimension: str, least: float) -> float:
        value = self.raw(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) <= LARGEST:
            self.fail(name, f"must be a finite number of {dimension} below {LARGEST:g}")
        try:
            number = parse_quantity(value, dimension)
        except InputError as error:
            self.place.key(name).fail(str(error) if self.place.quotes else f"is not a quantity of {dimension}")
        if number > LARGEST:
            self.fail(name, f"must be below {LARGEST:g} {dimension}")
        if number < least:
            self.fail(name, f"must be {least:g} {dimension} or more")
        return number

    def table(self, name: str, known: Iterable[str]) -> Table:
        """A table inside this one; an absent one reads as empty."""
        return Table(self._data.get(name, {}), self.place.key(name), known)

    def tables(self, name: str, known: Iterable[str], *, required: bool = True) -> tuple[Table, ...]:
        """A list of tables (``[[name]]``)."""
        value = self.raw(name) if required else self._data.get(name, [])
        if not isinstance(value, list) or (required and not value):
            self.fail(name, f"must be a list of tables, written [[{self.place.key(name).path}]]")
        keys = tuple(known)
        return tuple(Table(v, self.place.key(name).item(i), keys) for i, v in enumerate(value))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; absent = empty."""
        value = self._data.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.fail(name, "must be a list of strings")
        return tuple(value)

    def plain(self, name: str) -> dict[str, Any]:
        """A table of plain values (strings, numbers, booleans, lists and tables of them); absent = empty."""
        value = self._data.get(name, {})
        if not isinstance(value, dict):
            self.fail(name, "must be a table of keys and values")
        check_plain(value, self.place.key(name))
        return dict(value)


def check_plain(value: object, place: Place) -> None:
    """Refuse dates, infinities and other values that JSON cannot hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(item, place.key(str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_plain(item, place.item(index))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST or (isinstance(value, float) and not math.isfinite(value)):
            place.fail(f"must be a finite number below {LARGEST:g}", value)
    elif not isinstance(value, (str, bool)):
        place.fail("must be a string, number, boolean, list or table", value)


def unique(names: Iterable[str], place: Place, what: str) -> None:
    """Refuse a name that is used twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            place.fail(f"{what} {name!r} is used twice; names must be unique")
        seen.add(name)


def known_name(name: str, known: Mapping[str, object] | Iterable[str], place: Place, what: str) -> None:
    """Refuse a reference to something that does not exist."""
    names = tuple(known)
    if name not in names:
        place.fail(f"there is no {what} of that name{nearest(name, names)}", name)
