"""``lake``: writers and a reader on one table of a lake, and the judge of what became of their commits.

The table has ``hot`` rows (keys below `HOT`), which all upserts and increments touch together, and others, which belong to the operation
that wrote them: every row carries the tag (client, number) of its last writer. So what a state holds tells which commits it is made of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from windtunnel.errors import WrongResult
from windtunnel.spec.clients import ClientsSpec, Retries, Role
from windtunnel.spec.plan import Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, Format, Oracle, TableData, Workload
from windtunnel.workloads.data.history import READ, Call, Done, history_of
from windtunnel.workloads.data.linear import KINDS, Findings, judge
from windtunnel.workloads.storage import materialise, write_table

ROOM = "windtunnel.workloads.data"
ROWS_AT_SCALE_1 = 10_000
HOT = 100  # rows that all upserts and increments touch
WALKED = 400  # operations up to which every version of the table is read at the end
SCHEMA = pa.schema([("key", pa.int64()), ("value", pa.int64()), ("client", pa.int32()), ("number", pa.int32())])
ADDED = "added_"

Mix = Literal["append", "overwrite", "upsert", "increment", "delete", "add_column", "compact", "mixed"]
_WRITERS: dict[str, tuple[tuple[tuple[str, float], ...], bool]] = {
    "append": ((("append", 1.0),), False),
    "overwrite": ((("overwrite", 1.0),), False),
    "upsert": ((("upsert", 1.0),), False),
    "increment": ((("increment", 1.0),), False),
    "delete": ((("append", 1.0), ("delete", 1.0)), True),
    "add_column": ((("append", 9.0), ("add_column", 1.0)), False),
    "compact": ((("append", 1.0),), False),
    "mixed": (tuple((k, 1.0) for k in ("append", "upsert", "append", "delete", "increment")), True),
}


def lake(
    *, scale: float = 0.1, partitions: int = 1, seed: int = 7, format: Format = "parquet", operation: Mix = "append", writers: int = 2,
    readers: int = 1, commits: int = 30, rows: int = 1000, kills: int = 0, retries: int = 0, backoff_ms: float = 50.0,
) -> Workload:  # fmt: skip
    """``writers`` make ``commits`` of ``rows`` rows each, all of one kind or mixed; ``readers`` read the whole table meanwhile.

    ``compact``: appends while one more client compacts. ``retries``: of a client that is told of a conflict, after a random wait of up to
    ``backoff_ms``, doubled each time. ``kills``: operations in whose middle their writer is killed.
    """
    kinds, in_turn = _WRITERS[operation]
    roles = [
        Role(name="writer", kinds=kinds, in_turn=in_turn, clients=writers, operations=commits, kills=kills),
        Role(name="reader", kinds=((READ, 1.0),), clients=readers, pause_s=0.01),
    ]
    if operation == "compact":
        roles.append(Role(name="compactor", kinds=(("compact", 1.0),), pause_s=0.05))
    clients = ClientsSpec(
        script=f"{ROOM}.lake:Lake", roles=tuple(roles), retries=Retries(most=retries, backoff_s=backoff_ms / 1000),
        parameters=(("rows", rows), ("walk", (writers * commits) <= WALKED)),
    )  # fmt: skip
    data = DatasetSpec(
        name="lake", generator=f"{ROOM}.lake:table", scale=scale, seed=seed, format=format, partitions=partitions,
        rows=max(HOT, round(scale * ROWS_AT_SCALE_1)),
    )  # fmt: skip
    names = tuple(SCHEMA.names)
    return Workload(
        name="lake", kind="data", dataset=data, clients=clients, oracle=Oracle(check=f"{ROOM}.lake:check"),
        pipeline=Pipeline((Operator(name="table", kind="scan", kernel=Scan(table="table", columns=names)),)),
        description="commits of concurrent writers to one table of a lake, with a reader: all or nothing, none lost, each once",
    )  # fmt: skip


def table(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``table``: `HOT` hot rows and ``spec.rows`` − `HOT` others, of nobody, all with value 0."""
    count = spec.rows or HOT
    return materialise(spec, folder, lambda scratch: (write_table(scratch, "table", spec.format, SCHEMA, [[_begin(count)]]),))


def _begin(count: int) -> pa.Table:
    return _rows(np.arange(count), 0, -1, -1)


def _rows(keys: Any, value: int, client: int, number: int) -> pa.Table:
    columns = [keys, np.full(len(keys), value), np.full(len(keys), client), np.full(len(keys), number)]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


class Lake:
    """The script: rows of a commit have keys of their own, so that a row that is there twice shows."""

    def __init__(self, bound: BoundWorkload) -> None:
        clients = bound.workload.clients
        assert clients is not None
        self._size = cast(int, clients.parameter("rows"))
        self._bound = bound

    def initial(self, warm: bool = False) -> dict[str, pa.Table]:
        """The table."""
        return {"table": _begin(self._bound.table("table").rows)}

    def call(self, kind: str, client: int, number: int) -> Call:
        """Arguments by kind; a delete takes away what the client appended just before."""
        if kind in ("append", "overwrite"):
            keys = np.arange(self._size) + ((client + 1) * 1_000_000 + number + 1) * 1_000_000
            return Call(kind=kind, arguments={"rows": _rows(keys, 1, client, number)}, rows=self._size)
        if kind == "upsert":
            return Call(kind=kind, arguments={"rows": _rows(np.arange(HOT), number, client, number)}, rows=HOT)
        if kind == "increment":
            return Call(kind=kind, arguments={"below": HOT, "client": client, "number": number}, rows=HOT)
        if kind == "delete":
            return Call(kind=kind, arguments={"client": client, "number": number - 1}, rows=self._size)
        if kind == "add_column":
            return Call(kind=kind, arguments={"name": f"{ADDED}{client}_{number}"})
        return Call(kind=kind)

    def seen(self, call: Call, answer: Any) -> Any:
        """Of a state: rows by tag, values of hot rows by tag, added columns."""
        return content(answer) if call.kind == READ else None

    def judged(self, history: list[Done]) -> dict[str, int]:
        """Counts of `linear.KINDS`."""
        found = findings(self._bound, history)
        return {kind: found.counts[kind] for kind in KINDS}


def content(state: pa.Table) -> dict[str, Any]:
    """What the judge needs of a state. A commit written twice has twice its rows."""
    tags = ["client", "number"]
    cold = state.filter(pc.greater_equal(state["key"], HOT)).group_by(tags).aggregate([("key", "count")])
    hot = state.filter(pc.less(state["key"], HOT)).group_by(tags)
    groups = hot.aggregate([("key", "count"), ("value", "min"), ("value", "max")])
    columns = (*tags, "key_count", "value_min", "value_max")
    rows_of = dict(zip(zip(*(cold[t].to_pylist() for t in tags), strict=True), cold["key_count"].to_pylist(), strict=True))
    return {
        "batches": [[c, n, rows] for (c, n), rows in sorted(rows_of.items())],
        "hot": [list(g) for g in zip(*(groups[c].to_pylist() for c in columns), strict=True)],
        "columns": sorted(n for n in state.schema.names if n.startswith(ADDED)),
    }  # fmt: skip


# -- the judge -----------------------------------------------------------------------------------------------------------


def findings(bound: BoundWorkload, history: list[Done]) -> Findings:
    """What contradicts a linear history."""
    return judge(history, hot_rows=HOT, base_rows=bound.table("table").rows - HOT)


def check(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult with all that is wrong with the history."""
    found = findings(bound, history_of(output))
    if found:
        raise WrongResult(f"no order of whole commits explains what was seen: {found.sentence()}")
