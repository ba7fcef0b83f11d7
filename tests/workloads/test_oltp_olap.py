"""The judge of transactions and scans, and each database through client processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.test_stores import run
from windtunnel.engines.stores.postgres import programs
from windtunnel.errors import WrongResult
from windtunnel.registry import load_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.workloads.data.history import FINAL, WITNESS, Done
from windtunnel.workloads.data.oltp_olap import ACCOUNTS, BALANCE, OltpOlap, amounts, judge, orders

SMALL = {"workload": "oltp_olap", "scale": 0.002}


def transfer(number: int, amount: int, outcome: Any = "ok") -> Done:
    return Done(
        role="c", client=0, number=number, kind="transfer", start_s=number, end_s=number + 1, outcome=outcome, seen=[0, 1, amount]
    )


def last(first: int, second: int) -> Done:
    balances = [first, second, *[BALANCE] * (ACCOUNTS - 2)]
    return Done(role=WITNESS, client=-1, number=0, kind=FINAL, start_s=9, end_s=9, outcome="ok", seen=balances)


def test_balances_add_up_account_by_account() -> None:
    done = [transfer(0, 5), transfer(1, 7), transfer(2, 9, "refused")]
    assert judge([*done, last(BALANCE - 12, BALANCE + 12)])["unbalanced"] == 0
    assert judge([*done, last(BALANCE - 5, BALANCE + 5)])["unbalanced"] == 2  # a lost transfer keeps the sum
    done.append(transfer(3, 1, "unknown"))
    assert judge([*done, last(BALANCE - 13, BALANCE + 13)])["unbalanced"] == 0
    assert judge([*done, last(BALANCE - 13, BALANCE + 12)])["unbalanced"] == 1


def test_an_audit_that_sees_half_of_a_transfer_is_told() -> None:
    audits = [
        Done(role="c", client=0, number=n, kind="audit", start_s=0, end_s=1, outcome="ok", seen={"sum": ACCOUNTS * BALANCE - n})
        for n in (0, 3)
    ]
    assert judge([*audits, last(BALANCE, BALANCE)])["unbalanced"] == 1


def test_scans_are_known_beforehand(data_root: Path) -> None:
    script = OltpOlap(load_workload("oltp_olap", scale=0.002, mix="scan").bind(data_root))
    table = orders(4000, 7)
    call = script.call("scan", 0, 0)
    first, last_ = call.arguments["first"], call.arguments["last"]
    rows = [r for r in table.to_pylist() if first <= r["day"] <= last_]
    groups = sorted({r["day"] // 100 for r in rows})
    answer = [(g, len(found := [r["amount"] for r in rows if r["day"] // 100 == g]), sum(found)) for g in groups]
    assert script.seen(call, answer) == {"right": True}
    assert script.seen(call, answer[1:]) == {"right": False}
    assert int(amounts(3)) == table["amount"][3].as_py()


@pytest.mark.parametrize(("engine", "mix"), [("sqlite", "audit"), ("duckdb-file", "scan"), ("postgresql", "both")])
def test_databases_answer_rightly(engine: str, mix: str, data_root: Path, two_cpus: ClusterSpec, tmp_path: Path) -> None:
    if engine == "postgresql" and programs() is None:
        pytest.skip("PostgreSQL's server is not here; run: apt-get install postgresql")
    clients = 1 if engine == "duckdb-file" else 2
    bound, outcome, counters = run(
        engine, data_root, two_cpus, tmp_path, **SMALL, mix=mix, operations=10, clients=clients, layout="index", retries=30
    )
    bound.verify(outcome.table)
    assert counters["acknowledged"] >= 10 * clients and counters["anomalies"] == 0
    assert outcome.table is not None
    told = [s and s.replace("true", "false").replace(str(BALANCE), "1") for s in outcome.table["seen"].to_pylist()]
    wrong = outcome.table.set_column(outcome.table.schema.get_field_index("seen"), "seen", [told])
    with pytest.raises(WrongResult, match="wrong"):
        bound.verify(wrong)
