"""What clients did, as one Arrow table: a row an operation, raw. The judges of this folder read it; nothing is computed here.

``outcome``: ``ok`` (acknowledged), ``refused`` (a conflict, and the client gave up), ``failed`` (any other error: it may have happened
or not), ``unknown`` (the client was killed in the middle). ``attempts`` counts tries. ``seen`` is JSON of what a read saw, as the
workload's script tells it. Rows of the role `WITNESS` come after the clients have ended: the table's versions in their order, where the
system keeps them, and its last state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

from windtunnel.errors import WrongResult

Outcome = Literal["ok", "refused", "failed", "unknown"]
READ = "read"
WITNESS = "witness"
VERSION, FINAL = "version", "final"  # kinds of the witness's rows

SCHEMA = pa.schema(
    [
        ("role", pa.string()), ("client", pa.int32()), ("number", pa.int32()), ("kind", pa.string()), ("start_s", pa.float64()),
        ("end_s", pa.float64()), ("outcome", pa.string()), ("attempts", pa.int32()), ("rows", pa.int64()), ("reason", pa.string()),
        ("seen", pa.string()),
    ]
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Done:
    """One operation; times in seconds since the clients began. An operation without an end has ``end_s`` infinite."""

    role: str
    client: int
    number: int
    kind: str
    start_s: float
    end_s: float
    outcome: Outcome
    attempts: int = 1
    rows: int = 0
    reason: str = ""
    seen: Any = None

    @property
    def tag(self) -> tuple[int, int]:
        """What the operation wrote into its rows."""
        return self.client, self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asks of a system: the method ``kind`` with ``arguments``; ``rows`` it writes or touches."""

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    rows: int = 0


class Script(Protocol):
    """A data workload's own words: what it begins with, each call, and what an answer says. Pure, equal in every process."""

    def initial(self, warm: bool = False) -> dict[str, pa.Table]:
        """The tables that a run begins with; ``warm``: small ones, for a client to warm up on."""
        ...

    def call(self, kind: str, client: int, number: int) -> Call:
        """The call of operation ``number`` of a client."""
        ...

    def seen(self, call: Call, answer: Any) -> Any:
        """What the judge needs of an answer, as JSON types; None for nothing."""
        ...

    def judged(self, history: list[Done]) -> dict[str, int]:
        """How often each thing went wrong that the oracle looks for, zeros included."""
        ...


def table_of(history: Iterable[Done]) -> pa.Table:
    """The history as a table of `SCHEMA`, by client and number."""
    rows = [{**asdict(d), "seen": None if d.seen is None else json.dumps(d.seen)} for d in history]
    return pa.Table.from_pylist(sorted(rows, key=lambda r: (r["role"] == WITNESS, r["client"], r["number"])), schema=SCHEMA)


def history_of(table: pa.Table) -> list[Done]:
    """Inverse of `table_of`. Raises WrongResult for a table that is no history."""
    if table.schema.names != SCHEMA.names:
        raise WrongResult(f"the output has columns {', '.join(table.schema.names)}, a history {', '.join(SCHEMA.names)}")
    return list(_rows(table))


def _rows(table: pa.Table) -> Iterator[Done]:
    for row in table.to_pylist():
        seen = row.pop("seen")
        yield Done(**row, seen=None if seen is None else json.loads(seen))
