"""Quantities with units: "32GiB", "10Gbit/s", "20ms" to base units (bytes, seconds, bytes per second) and back.

The module owns the spelling of units. GB is 10^9 and GiB is 2^30. It knows no field names.
"""

from __future__ import annotations

import math
import re

from windtunnel.errors import InputError

_BYTES = {"B": 1, **{p + "B": 10 ** (3 * i) for i, p in enumerate("kMGTP", 1)}}
_BYTES |= {"KB": 1000, **{p + "iB": 2 ** (10 * i) for i, p in enumerate("KMGTP", 1)}}
_BITS = {"bit": 1 / 8, **{p + "bit": 10 ** (3 * i) / 8 for i, p in enumerate("kMGT", 1)}}
_TIME = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS: dict[str, dict[str, float]] = {
    "bytes": dict(_BYTES),
    "seconds": dict(_TIME),
    "bytes per second": {f"{u}/s": f for u, f in (_BYTES | _BITS).items()},
}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµ/]*)\s*$")


def units(dimension: str) -> tuple[str, ...]:
    """Every unit that `parse_quantity` knows of a dimension."""
    return tuple(_UNITS[dimension])


def parse_quantity(value: object, dimension: str) -> float:
    """``value`` (number in the base unit, or string with a unit) as a finite, non-negative float of ``dimension``.

    ``dimension`` is "bytes", "seconds" or "bytes per second". Raises InputError.
    """
    units = _UNITS[dimension]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{value!r} is not a quantity; write a number of {dimension} or a string such as {_example(dimension)}")
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if not match or (match[2] and match[2] not in units):
            raise InputError(f"{value!r} is not a quantity of {dimension}; write for example {_example(dimension)}")
        number = float(match[1]) * (units[match[2]] if match[2] else 1.0)
    else:
        number = float(value)
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{value!r} must be a finite number of {dimension}, not below 0")
    return number


def parse_bytes(value: object) -> int:
    """Bytes, rounded to an integer."""
    return round(parse_quantity(value, "bytes"))


def parse_size(value: object) -> int:
    """Bytes of something that holds data: at least one. Raises InputError."""
    number = parse_bytes(value)
    if number < 1:
        raise InputError(f"{value!r} must be at least one byte; write for example {_example('bytes')}")
    return number


def parse_count(value: object) -> int:
    """A whole number of at least one. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{value!r} must be a whole number of at least 1")
    return value


def parse_seconds(value: object) -> float:
    """Seconds."""
    return parse_quantity(value, "seconds")


def parse_rate(value: object) -> float:
    """Bytes per second; bits are divided by eight."""
    return parse_quantity(value, "bytes per second")


def parse_fraction(value: object) -> float:
    """A fraction of 0 or more: "10%", "0.1" or 0.1. Raises InputError."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise InputError(f'{value!r} is not a share; write for example "10%" or 0.1')
    return number


def _example(dimension: str) -> str:
    return {"bytes": '"32GiB"', "seconds": '"20ms"', "bytes per second": '"10Gbit/s"'}[dimension]


def format_bytes(count: float | None) -> str:
    """1536 → '1.5 KiB'; None → '–'."""
    if count is None:
        return "–"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_chance(share: float) -> str:
    """A probability from a model: 0.936 → '94 %', never 0 or 100 %."""
    percent = round(100 * share)
    return "over 99 %" if percent >= 100 else "under 1 %" if percent <= 0 else f"{percent} %"


def format_seconds(seconds: float | None) -> str:
    """Three significant digits with a fitting unit; None → '–'."""
    if seconds is None:
        return "–"
    size = abs(seconds)
    if size < 0.5e-9:  # what rounding leaves of nothing
        return "0 s"
    if size >= 7200:
        return f"{seconds / 3600:.3g} h"
    if size >= 600:
        return f"{seconds / 60:.3g} min"
    if size >= 1:
        return f"{seconds:.3g} s" if size < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e3:.3g} ms" if size >= 1e-3 else f"{seconds * 1e6:.3g} µs"
