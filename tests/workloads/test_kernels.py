"""Kernels on rows whose results were worked out by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from windtunnel.workloads.kernels.records import (
    CANCELLED,
    FLIGHTS_SCHEMA,
    LOGS_SCHEMA,
    UNREADABLE,
    clean_flights,
    departure_minute,
    parse_logs,
)
from windtunnel.workloads.kernels.sessions import sessionize


@pytest.mark.parametrize(
    ("text", "minute"),
    [
        ("0517", 317), ("05:17", 317), ("5:17 AM", 317), ("5:17 PM", 1037), ("12:00 AM", 0), ("12:30 PM", 750),
        ("0000", 0), ("2359", 1439), ("NA", CANCELLED), ("2460", UNREADABLE), ("13:10 PM", UNREADABLE),
        ("0:10 AM", UNREADABLE), ("--:--", UNREADABLE), ("late", UNREADABLE), ("7", UNREADABLE),
        ("05170", UNREADABLE), ("12:5x", UNREADABLE), ("-100", UNREADABLE), ("0560", UNREADABLE),
    ],
)  # fmt: skip
def test_departure_minute(text: str, minute: int) -> None:
    assert departure_minute(text) == minute


def _flights(*rows: tuple[str, str, str]) -> pa.RecordBatch:
    flights, planned, departures = zip(*rows, strict=True)
    return pa.RecordBatch.from_pydict(
        {
            "flight": flights, "day": ["2013-10-05"] * len(rows), "planned": planned, "departure": departures,
            "distance": [100] * len(rows), "passengers": [7] * len(rows),
        }
    )  # fmt: skip


def test_clean_flights_classifies_and_counts_every_row() -> None:
    batch = _flights(
        ("UA1545", "0515", "0510"), (" b67", "0600", "06:14"), ("AA1", "0600", "6:15 AM"), ("AA1", "2355", "0055"),
        ("DL9", "0600", "NA"), ("DL9", "0600", "late"), ("charter", "0600", "0600"), ("??", "0600", "NA"),
    )  # fmt: skip
    out = clean_flights(batch).to_pydict()
    assert out["carrier"] == ["UA", "B6", "AA", "AA", "DL", "DL", "??", "??"]
    assert out["category"] == [
        "early",
        "on_time",
        "late",
        "very_late",
        "cancelled",
        "malformed",
        "malformed",
        "malformed",
    ]
    assert out["delay_min"] == [-5, 14, 15, 60, 0, 0, 0, 0]
    assert out["distance"] == [100, 100, 100, 100, 0, 0, 0, 0]
    assert out["seat_miles"] == [700, 700, 700, 700, 0, 0, 0, 0]
    assert out["month"] == [10] * 8


def test_parse_logs_reads_both_spellings_and_keeps_broken_lines() -> None:
    lines = [
        '{"ts":"2024-03-01T00:00:01Z","service":"cart","path":"/items/12/reviews","status":204,"ms":999.9,"bytes":10}',
        "2024-03-01 00:00:02 web GET /users/7/orders -> 503 1000.0ms 20B",
        '{"ts":"2024-03-01T00:00:01Z","service":"cart","path":"/i',
        '{"service":"cart","path":"/x","status":200,"ms":"fast","bytes":10}',
        '{"service":"cart"}', "null", "--- mark ---",
    ]  # fmt: skip
    out = parse_logs(pa.RecordBatch.from_pydict({"line": lines})).to_pydict()
    assert out["service"] == ["cart", "web"] + ["unknown"] * 5
    assert out["endpoint"] == ["/items/{id}/reviews", "/users/{id}/orders"] + ["unknown"] * 5
    assert out["outcome"] == ["2xx", "5xx"] + ["malformed"] * 5
    assert out["ms"] == [999.9, 1000.0, 0, 0, 0, 0, 0]
    assert out["bytes"] == [10, 20, 0, 0, 0, 0, 0]
    assert out["slow"] == [0, 1, 0, 0, 0, 0, 0]


def test_slow_threshold_is_a_parameter() -> None:
    line = "2024-03-01 00:00:02 web GET /users/7/orders -> 503 50.0ms 20B"
    assert parse_logs(pa.RecordBatch.from_pydict({"line": [line]}), slow_ms=50).to_pydict()["slow"] == [1]


def _clicks(*rows: tuple[int, int, int]) -> pa.RecordBatch:
    users, seconds, size = zip(*rows, strict=True) if rows else ((), (), ())
    arrays = {"user_id": users, "ts_ms": [s * 1000 for s in seconds], "bytes": size}
    return pa.RecordBatch.from_pydict({n: pa.array(a, pa.int64()) for n, a in arrays.items()})


def test_sessions_break_after_the_gap_and_between_users() -> None:
    out = sessionize(_clicks((1, 0, 5), (1, 10, 6), (1, 21, 7), (2, 22, 8), (2, 32, 9), (3, 32, 1)), gap_s=10).to_pylist()
    assert [tuple(row.values()) for row in out] == [
        (1, 0, 0, 10_000, 2, 11),
        (1, 1, 21_000, 0, 1, 7),
        (2, 0, 22_000, 10_000, 2, 17),
        (3, 0, 32_000, 0, 1, 1),
    ]


def test_kernels_take_empty_batches() -> None:
    assert sessionize(_clicks()).num_rows == 0
    flights = clean_flights(_flights(("UA1", "0600", "0600")).slice(0, 0))
    assert flights.num_rows == 0
    assert [(f.name, str(f.type)) for f in flights.schema] == list(FLIGHTS_SCHEMA)
    logs = parse_logs(pa.RecordBatch.from_pydict({"line": pa.array([], pa.string())}))
    assert logs.num_rows == 0
    assert [(f.name, str(f.type)) for f in logs.schema] == list(LOGS_SCHEMA)
