"""Rows of the synthetic data sets, a chunk at a time: ``f(rng, rows, number of the chunk) -> table``, vectorised.

Each has the irregularities its job is about: unreadable fields, hot keys, users whose sessions span files. Text is put
together from tables of ready strings. The module knows no file and no seed; values stay where every format and engine
holds them exactly (integers below 2^53, no empty strings, no backslashes)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Rng = np.random.Generator
CHUNK_ROWS = 250_000

# -- flights ----------------------------------------------------------------------------------------------------------

CARRIERS = ("UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO", "9E")
ORIGINS = ("EWR", "JFK", "LGA")
DESTINATIONS = (
    "ATL", "ORD", "LAX", "BOS", "MCO", "CLT", "SFO", "FLL", "MIA", "DCA", "DTW", "DFW", "RDU", "TPA", "DEN", "IAH",
    "MSP", "PBI", "BNA", "LAS", "SJU", "IAD", "BUF", "PHX", "CLE", "STL", "MDW", "SEA", "CVG", "MSY",
)  # fmt: skip
UNREADABLE_TIMES = ("--:--", "2460", "late", "17h", "12:5x", "05170", "13:10 PM", "7")
UNREADABLE_FLIGHTS = ("UA-15", "??", "charter")
_MINUTES = [(m // 60, m % 60) for m in range(1440)]
_PLANNED = [f"{h:02d}{m:02d}" for h, m in _MINUTES]
_COLON = [f"{h:02d}:{m:02d}" for h, m in _MINUTES]
_HALVES = [f"{h % 12 or 12}:{m:02d} {'AM' if h < 12 else 'PM'}" for h, m in _MINUTES]
_DEPARTURES = [*_PLANNED, *_COLON, *_HALVES, "NA", *UNREADABLE_TIMES]


def _pick(values: Any, index: Any) -> pa.Array:
    return pa.array(values).take(pa.array(index))


def _join(*pieces: Any) -> pa.Array:
    """Element-wise concatenation of arrays and constants."""
    return pc.binary_join_element_wise(*pieces, "")


def flights(rng: Rng, rows: int, number: int) -> pa.Table:
    """Flight records; the time of departure comes in three spellings, "NA" when cancelled, or unreadable."""
    weights = 1.0 / np.arange(1, len(CARRIERS) + 1)
    carrier = rng.choice(len(CARRIERS), rows, p=weights / weights.sum())
    destination = rng.integers(0, len(DESTINATIONS), rows)
    planned = rng.integers(300, 1440, rows)
    delay = np.clip(np.rint(rng.gamma(0.6, 30.0, rows) - 8), -30, 700).astype(np.int64)
    return pa.table(
        {
            "flight": _flight_names(rng, carrier),
            "route": _pick([f"{o}-{d}" for o in ORIGINS for d in DESTINATIONS], rng.integers(0, 3, rows) * 30 + destination),
            "day": _pick(_days("2013-01-01", 365), rng.integers(0, 365, rows)),
            "planned": _pick(_PLANNED, planned),
            "departure": _pick(_DEPARTURES, _spelled(rng, (planned + delay) % 1440)),
            "distance": pa.array(200 + 83 * destination),
            "passengers": pa.array(rng.integers(20, 320, rows)),
        }
    )


def _days(first: str, count: int) -> list[str]:
    return [str(day) for day in np.datetime64(first) + np.arange(count)]


def _flight_names(rng: Rng, carrier: Any) -> pa.Array:
    """Carrier and number such as UA1545; 1 % in lower case with a space before, 0.5 % unreadable."""
    carriers = np.array(CARRIERS)
    index = carrier + len(CARRIERS) * (rng.random(len(carrier)) < 0.01)
    prefixes = [*CARRIERS, *(f" {c.lower()}" for c in carriers)]
    names = _join(_pick(prefixes, index), _pick([str(n) for n in range(1, 3000)], rng.integers(0, 2999, len(carrier))))
    broken = _pick(UNREADABLE_FLIGHTS, rng.integers(0, len(UNREADABLE_FLIGHTS), len(carrier)))
    return pc.if_else(pa.array(rng.random(len(carrier)) < 0.005), broken, names)


def _spelled(rng: Rng, minute: Any) -> Any:
    """Indices into `_DEPARTURES`: 60 % "0517", 20 % "05:17", 14 % "5:17 AM", 3 % cancelled, 3 % unreadable."""
    style = np.searchsorted([0.60, 0.80, 0.94, 0.97], rng.random(len(minute)), side="right")
    unreadable = 3 * 1440 + 1 + rng.integers(0, len(UNREADABLE_TIMES), len(minute))
    return np.where(style < 3, style * 1440 + minute, np.where(style == 3, 3 * 1440, unreadable))


# -- logs -------------------------------------------------------------------------------------------------------------

SERVICES = ("web", "cart", "search", "auth", "billing", "stock")
PATHS = (
    ("/items/", ""),
    ("/items/", "/reviews"),
    ("/users/", "/orders"),
    ("/carts/", ""),
    ("/search/", ""),
    ("/health/", ""),
)
STATUSES = ("200", "201", "204", "301", "400", "404", "429", "500", "503")
GARBAGE = ("--- mark ---", "Traceback (most recent call last):", "[]", "null", "{}", "  at app.handler(app.py:17)")
_CLOCK = [f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(86400)]
_TENTHS = [f"{i // 10}.{i % 10}" for i in range(100_000)]


def logs(rng: Rng, rows: int, number: int) -> pa.Table:
    """Lines: 84 % JSON objects, 10 % legacy text, 3 % cut off, 2 % with a word instead of a number, 1 % no record."""
    fields = _log_fields(rng, rows)
    good = _json_lines(fields, fields["ms"])
    lines = [good, _legacy_lines(fields), pc.utf8_slice_codeunits(good, 0, 40), _json_lines(fields, '"fast"')]
    lines.append(_pick(GARBAGE, rng.integers(0, len(GARBAGE), rows)))
    style = np.searchsorted([0.84, 0.94, 0.97, 0.99], rng.random(rows), side="right")
    return pa.table({"line": pc.choose(pa.array(style), *lines)})


def _log_fields(rng: Rng, rows: int) -> dict[str, pa.Array]:
    path = rng.integers(0, len(PATHS), rows)
    tenths = np.clip(rng.lognormal(5.5, 1.0, rows), 0, len(_TENTHS) - 1).astype(np.int64)
    status = rng.choice(len(STATUSES), rows, p=[0.72, 0.06, 0.04, 0.03, 0.03, 0.06, 0.02, 0.03, 0.01])
    return {
        "day": _pick(_days("2024-03-01", 30), rng.integers(0, 30, rows)),
        "clock": _pick(_CLOCK, rng.integers(0, 86400, rows)),
        "service": _pick(SERVICES, (rng.random(rows) ** 2 * len(SERVICES)).astype(np.int64)),
        "path": _join(
            _pick([p for p, _ in PATHS], path),
            pa.array(rng.integers(1, 100_000, rows)).cast(pa.string()),
            _pick([s for _, s in PATHS], path),
        ),
        "status": _pick(STATUSES, status),
        "ms": _pick(_TENTHS, tenths),
        "bytes": pa.array(rng.integers(100, 50_000, rows)).cast(pa.string()),
    }


def _json_lines(f: dict[str, pa.Array], ms: Any) -> pa.Array:
    stamp = ('{"ts":"', f["day"], "T", f["clock"], 'Z","service":"', f["service"], '","path":"', f["path"])
    return _join(*stamp, '","status":', f["status"], ',"ms":', ms, ',"bytes":', f["bytes"], "}")


def _legacy_lines(f: dict[str, pa.Array]) -> pa.Array:
    stamp = (f["day"], " ", f["clock"], " ", f["service"], " GET ", f["path"])
    return _join(*stamp, " -> ", f["status"], " ", f["ms"], "ms ", f["bytes"], "B")


# -- shuffles ---------------------------------------------------------------------------------------------------------


class _Zipf:
    """Numbers below ``count`` with probability ∝ rank^-``skew``; ranks are scattered over the numbers. 0 = uniform."""

    def __init__(self, count: int, skew: float) -> None:
        weights = np.arange(1, count + 1, dtype=np.float64) ** -skew
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._names = np.random.default_rng(count).permutation(count)

    def draw(self, rng: Rng, rows: int) -> Any:
        rank = np.searchsorted(self._cumulative, rng.random(rows), side="right")
        return self._names[np.minimum(rank, len(self._names) - 1)]


class Events:
    """``key, amount, value`` with Zipf keys."""

    def __init__(self, *, keys: int, skew: float) -> None:
        self._zipf = _Zipf(keys, skew)

    def __call__(self, rng: Rng, rows: int, number: int) -> pa.Table:
        """A chunk."""
        key, amount = self._zipf.draw(rng, rows), rng.integers(0, 1000, rows)
        return pa.table(
            {"key": pa.array(key), "amount": pa.array(amount), "value": pa.array(np.round(rng.random(rows) * 100, 4))}
        )


_WORDS = 4096


def records(rng: Rng, rows: int, number: int) -> pa.Table:
    """``key, id, payload``: keys in ±2^52 (every JSON reader holds them exactly), ids unique, 64 bytes of payload."""
    words = [f"{w:016x}" for w in np.random.default_rng(_WORDS).integers(0, 2**63, _WORDS)]
    payload = _join(*(_pick(words, rng.integers(0, _WORDS, rows)) for _ in range(4)))
    ids = number * CHUNK_ROWS + np.arange(rows)
    return pa.table({"key": pa.array(rng.integers(-(2**52), 2**52, rows)), "id": pa.array(ids), "payload": payload})


class Clicks:
    """``user_id, ts_ms, bytes`` sorted by time within a chunk; a chunk covers the time in which its rows fall due.

    Sessions start at random, last a geometric number of clicks (mean 8) some 30 s apart, and may run into the next
    chunk's time: so a user's clicks, and even a session's, lie in several files."""

    START_MS = 1_709_251_200_000  # 2024-03-01

    def __init__(self, *, rows: int, skew: float) -> None:
        self._zipf = _Zipf(max(1, rows // 50), skew)
        self._ms_per_row = 7 * 86_400_000 / rows  # a week for all rows

    def __call__(self, rng: Rng, rows: int, number: int) -> pa.Table:
        """A chunk."""
        lengths = rng.geometric(1 / 8, rows)
        sessions = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
        lengths = lengths[:sessions]
        starts = (number * CHUNK_ROWS + rng.random(sessions) * rows) * self._ms_per_row
        users = np.repeat(self._zipf.draw(rng, sessions), lengths)[:rows]
        ts = self.START_MS + np.repeat(starts, lengths)[:rows].astype(np.int64) + _offsets(rng, lengths)[:rows]
        order = np.argsort(ts, kind="stable")
        return pa.table(
            {
                "user_id": pa.array(users[order]),
                "ts_ms": pa.array(ts[order]),
                "bytes": pa.array(rng.integers(200, 20_000, rows)),
            }
        )


def _offsets(rng: Rng, lengths: Any) -> Any:
    """Milliseconds of each click since its session began."""
    steps = rng.exponential(30_000, int(lengths.sum())).astype(np.int64)
    first = np.cumsum(lengths) - lengths
    total = np.cumsum(steps)
    return total - np.repeat(total[first], lengths)
