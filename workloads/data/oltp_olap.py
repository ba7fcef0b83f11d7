"""``oltp_olap``: small transactions and analytic scans on the same database, and the judge of both.

``accounts`` hold balances that transfers move, two rows a transaction; ``orders`` are read by key, and scanned by ranges of days. What a
row of ``orders`` holds follows from its number, so that every answer is known beforehand; balances must add up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from windtunnel.errors import WrongResult
from windtunnel.spec.clients import ClientsSpec, Retries, Role
from windtunnel.spec.plan import Operator, Pipeline, Scan
from windtunnel.spec.workload import BoundWorkload, DatasetSpec, Format, Oracle, TableData, Workload
from windtunnel.workloads.data.history import WITNESS, Call, Done, history_of
from windtunnel.workloads.storage import materialise, write_table

ROOM = "windtunnel.workloads.data"
ROWS_AT_SCALE_1 = 2_000_000
ACCOUNTS, DAYS, GROUPS, BALANCE = 1000, 1000, 10, 1000
ORDERS = pa.schema([("id", pa.int64()), ("customer", pa.int64()), ("day", pa.int64()), ("amount", pa.int64())])
WARM_ROWS = 1000
KINDS = ("wrong_answers", "unbalanced", "unreadable")

Mix = Literal["point", "scan", "transfer", "audit", "both"]
_MIXES: dict[str, tuple[tuple[str, float], ...]] = {
    "point": (("point", 1.0),), "scan": (("scan", 1.0),), "transfer": (("transfer", 1.0),), "audit": (("transfer", 4.0), ("audit", 1.0)),
    "both": (("transfer", 1.0),),
}  # fmt: skip


def oltp_olap(
    *, scale: float = 0.1, partitions: int = 1, seed: int = 7, format: Format = "parquet", mix: Mix = "point", clients: int = 1,
    operations: int = 200, days: int = 200, layout: Literal["heap", "index", "sorted"] = "heap", retries: int = 5,
) -> Workload:  # fmt: skip
    """``clients`` make ``operations`` each: point reads, scans over ``days`` of 1,000 days, transfers, transfers with audits, or ``both``:
    transfers while one more client scans. ``layout`` of orders: as they came, with an index on the day, or sorted by it."""
    roles = [Role(name="client", kinds=_MIXES[mix], clients=clients, operations=operations)]
    if mix == "both":
        roles.append(Role(name="analyst", kinds=(("scan", 1.0),)))
    spec = ClientsSpec(
        script=f"{ROOM}.oltp_olap:OltpOlap", roles=tuple(roles), retries=Retries(most=retries, backoff_s=0.01),
        parameters=(("days", days), ("layout", layout), ("seed", seed)),
    )  # fmt: skip
    data = DatasetSpec(
        name="orders", generator=f"{ROOM}.oltp_olap:tables", scale=scale, seed=seed, format=format, partitions=partitions,
        rows=max(DAYS, round(scale * ROWS_AT_SCALE_1)),
    )  # fmt: skip
    return Workload(
        name="oltp_olap", kind="data", dataset=data, clients=spec, oracle=Oracle(check=f"{ROOM}.oltp_olap:check"),
        pipeline=Pipeline((Operator(name="orders", kind="scan", kernel=Scan(table="orders", columns=tuple(ORDERS.names))),)),
        description="point reads, transfers and analytic scans on 2 M orders a scale unit: answers known, balances that add up",
    )  # fmt: skip


def tables(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``orders``; accounts are made by the script."""
    return materialise(
        spec,
        folder,
        lambda scratch: (write_table(scratch, "orders", spec.format, ORDERS, [[orders(spec.rows or 0, spec.seed)]]),),
    )


def orders(rows: int, seed: int) -> pa.Table:
    """A row's number tells all of it: days in no order, amounts of 0 to 999."""
    number = np.arange(rows, dtype=np.int64)
    columns = [number, (number * 7919 + seed) % 50_021, (number * 6_700_417 + seed) % DAYS, amounts(number)]
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=ORDERS)


def amounts(number: Any) -> Any:
    """Of orders by number."""
    return (number * 104_729) % 1000


class OltpOlap:
    """The script."""

    def __init__(self, bound: BoundWorkload) -> None:
        spec = bound.workload.clients
        assert spec is not None
        self._rows = bound.workload.dataset.rows or 0
        self._days, self._seed = cast(int, spec.parameter("days")), cast(int, spec.parameter("seed"))
        self._layout = str(spec.parameter("layout"))

    def initial(self, warm: bool = False) -> dict[str, pa.Table]:
        """Both tables; the layout is in the metadata of orders."""
        made = orders(WARM_ROWS if warm else self._rows, self._seed).replace_schema_metadata({"layout": self._layout})
        accounts = {"id": pa.array(range(ACCOUNTS), pa.int64()), "balance": pa.array([BALANCE] * ACCOUNTS, pa.int64())}
        return {"orders": made, "accounts": pa.table(accounts)}

    def call(self, kind: str, client: int, number: int) -> Call:
        """Arguments follow from client and number."""
        dice = np.random.default_rng([self._seed, client, number])
        if kind == "point":
            return Call(kind=kind, arguments={"number": int(dice.integers(self._rows))}, rows=1)
        if kind == "transfer":
            source, target = (int(n) for n in dice.choice(ACCOUNTS, 2, replace=False))
            return Call(kind=kind, arguments={"source": source, "target": target, "amount": int(dice.integers(1, 100))}, rows=2)
        if kind == "scan":
            first = int(dice.integers(DAYS - self._days + 1))
            return Call(
                kind=kind, arguments={"first": first, "last": first + self._days - 1}, rows=self._rows * self._days // DAYS
            )
        return Call(kind=kind)

    def seen(self, call: Call, answer: Any) -> Any:
        """Whether the answer is the known one; of a transfer what it moved, of an audit the sum, at the end all balances."""
        if call.kind == "point":
            return {"right": answer == int(amounts(call.arguments["number"]))}
        if call.kind == "transfer":
            return list(call.arguments.values())
        if call.kind == "scan":
            return {"right": [list(map(int, row)) for row in answer] == self._expected(**call.arguments)}
        return {"sum": int(answer)} if call.kind == "audit" else [int(b) for b in answer]

    def _expected(self, first: int, last: int) -> list[list[int]]:
        number = np.arange(self._rows, dtype=np.int64)
        day = (number * 6_700_417 + self._seed) % DAYS
        found = (day >= first) & (day <= last)
        group = day[found] // (DAYS // GROUPS)
        counts, sums = np.bincount(group, minlength=GROUPS), np.bincount(group, weights=amounts(number[found]), minlength=GROUPS)
        return [[g, int(counts[g]), int(sums[g])] for g in range(GROUPS) if counts[g]]

    def judged(self, history: list[Done]) -> dict[str, int]:
        """Counts of `KINDS`."""
        return judge(history)


def judge(history: list[Done]) -> dict[str, int]:
    """Wrong answers; audits and last balances that do not add up, account by account where no transfer's end is unknown."""
    done = [d for d in history if d.role != WITNESS]
    right = [d.seen["right"] for d in done if d.outcome == "ok" and d.kind in ("point", "scan")]
    unbalanced = sum(d.seen["sum"] != ACCOUNTS * BALANCE for d in done if d.outcome == "ok" and d.kind == "audit")
    last = next((d for d in history if d.role == WITNESS), None)
    unreadable = int(last is None or last.seen is None) + sum(d.outcome == "failed" and d.kind != "transfer" for d in done)
    if last is not None and last.seen is not None:
        transfers = [d for d in done if d.kind == "transfer"]
        expected = np.full(ACCOUNTS, BALANCE)
        for d in transfers:
            if d.outcome == "ok":
                source, target, amount = d.seen
                expected[source] -= amount
                expected[target] += amount
        sure = all(d.outcome in ("ok", "refused") for d in transfers)
        wrong = int((np.array(last.seen) != expected).sum()) if sure else int(sum(last.seen) != ACCOUNTS * BALANCE)
        unbalanced += wrong
    return {"wrong_answers": right.count(False), "unbalanced": unbalanced, "unreadable": unreadable}


def check(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult with what is wrong."""
    found = {name: count for name, count in judge(history_of(output)).items() if count}
    if found:
        raise WrongResult("answers or balances are wrong: " + ", ".join(f"{name} {count}" for name, count in found.items()))
