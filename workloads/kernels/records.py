"""Cleaning flight records and parsing log lines: work that only Python can do, then vectorised enrichment.

Each kernel keeps the number of rows: what cannot be read leaves as a row of category "malformed", so that it is counted
and never lost. A flight takes about 1 µs of one core and a log line 4, nearly all of it in the interpreter, as user
code does."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FLIGHTS_SCHEMA = (
    ("carrier", "string"), ("month", "int64"), ("category", "string"), ("delay_min", "int64"), ("distance", "int64"),
    ("seat_miles", "int64"),
)  # fmt: skip
LOGS_SCHEMA = (
    ("service", "string"), ("endpoint", "string"), ("outcome", "string"), ("ms", "double"), ("bytes", "int64"),
    ("slow", "int64"),
)  # fmt: skip

CANCELLED, UNREADABLE = -1, -2
_FLIGHT = re.compile(r"\s*([A-Za-z0-9]{2})([0-9]{1,4})$")
_CATEGORIES = ("early", "on_time", "late", "very_late", "cancelled", "malformed")


def departure_minute(text: str) -> int:
    """Minute of the day of "0517", "05:17" or "5:17 AM"; `CANCELLED` for "NA", `UNREADABLE` for all else."""
    if text == "NA":
        return CANCELLED
    try:
        if ":" in text:
            clock, _, half = text.partition(" ")
            hour_text, _, minute_text = clock.partition(":")
            hour, minute = int(hour_text), int(minute_text)
            if half:
                hour = hour % 12 + (12 if half == "PM" else 0) if 1 <= hour <= 12 else 24
        elif len(text) == 4:
            hour, minute = divmod(int(text), 100)
        else:
            return UNREADABLE
    except ValueError:
        return UNREADABLE
    return hour * 60 + minute if 0 <= hour < 24 and 0 <= minute < 60 else UNREADABLE


def clean_flights(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Read carrier and time of departure, compute the delay over midnight, classify, add seat miles."""
    carriers = [m[1].upper() if (m := _FLIGHT.match(f)) else "??" for f in batch.column("flight").to_pylist()]
    departed = np.array([departure_minute(t) for t in batch.column("departure").to_pylist()], dtype=np.int64)
    unreadable = (departed == UNREADABLE) | np.array([c == "??" for c in carriers], dtype=bool)
    flew = (departed >= 0) & ~unreadable
    delay = np.where(flew, _delay(batch.column("planned"), departed), 0)
    category = np.where(unreadable, 5, np.where(flew, np.searchsorted([0, 15, 60], delay, side="right"), 4))
    distance = np.where(flew, batch.column("distance").to_numpy(), 0)
    columns = {
        "carrier": pa.array(carriers, pa.string()),
        "month": pc.cast(pc.utf8_slice_codeunits(batch.column("day"), 5, 7), pa.int64()),
        "category": pa.array(_CATEGORIES).take(pa.array(category)),
        "delay_min": pa.array(delay),
        "distance": pa.array(distance),
        "seat_miles": pa.array(distance * batch.column("passengers").to_numpy()),
    }
    return pa.RecordBatch.from_pydict(columns)


def _delay(planned: pa.Array, departed: Any) -> Any:
    """Minutes after plan, from 6 h early to 18 h late."""
    clock = pc.cast(planned, pa.int64()).to_numpy()
    return (departed - (clock // 100 * 60 + clock % 100) + 360) % 1440 - 360


# -- logs -------------------------------------------------------------------------------------------------------------

_LEGACY = re.compile(r"[0-9-]{10} [0-9:]{8} ([a-z]+) GET ([^ ]+) -> ([0-9]{3}) ([0-9.]+)ms ([0-9]+)B$")
_MALFORMED = ("unknown", "unknown", 0, 0.0, 0)


def parse_line(line: str) -> tuple[str, str, int, float, int]:
    """(service, path, status, ms, bytes) of a JSON or legacy line; status 0 when it cannot be read."""
    try:
        if line.startswith("{"):
            record = json.loads(line)
            return record["service"], record["path"], int(record["status"]), float(record["ms"]), int(record["bytes"])
        match = _LEGACY.match(line)
        if match is None:
            return _MALFORMED
        return match[1], match[2], int(match[3]), float(match[4]), int(match[5])
    except (ValueError, KeyError, TypeError):
        return _MALFORMED


def parse_logs(batch: pa.RecordBatch, slow_ms: float = 1000.0) -> pa.RecordBatch:
    """Parse each line, replace ids in paths, classify the status; ``slow`` is 1 from ``slow_ms`` on."""
    rows = [parse_line(line) for line in batch.column("line").to_pylist()]
    service, path, status, ms, size = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    codes, duration = np.array(status, dtype=np.int64), np.array(ms, dtype=np.float64)
    columns = {
        "service": pa.array(service, pa.string()),
        "endpoint": pc.replace_substring_regex(pa.array(path, pa.string()), r"/[0-9]+", "/{id}"),
        "outcome": pa.array(["malformed", "1xx", "2xx", "3xx", "4xx", "5xx"]).take(pa.array(codes // 100)),
        "ms": pa.array(duration),
        "bytes": pa.array(size, pa.int64()),
        "slow": pa.array((duration >= slow_ms).astype(np.int64)),
    }
    return pa.RecordBatch.from_pydict(columns)
