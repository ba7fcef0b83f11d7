"""Probes: programs are watched to their end and past it, and what they say is counted."""

from __future__ import annotations

import os
from pathlib import Path

from windtunnel.commands.probes import clarity, installed, run_probe, watch
from windtunnel.records.store import Store

CODE = """
import os
print("count: work_s 0.5")
if os.environ["FAULT"] == "bug":
    int("row 777")
"""
FIND = {"cause": "invalid literal", "type": "ValueError", "row": "row 777"}


def test_clarity_by_hand() -> None:
    text = "Traceback\n\n  File k.py\nValueError: invalid literal: 'row 777'\nat java.lang.Thread\nat java.lang.Thread\n"
    assert clarity(text, FIND) == {"lines": 5.0, "kept_cause": 1.0, "kept_type": 1.0, "kept_row": 1.0, "cause_after": 2.0}
    lost = clarity("Job failed\n", FIND)
    assert (lost["kept_cause"], lost["kept_type"], lost["cause_after"]) == (0.0, 0.0, 1.0)


def test_a_program_is_watched_and_leaves_nothing() -> None:
    code = """
import os, subprocess, time
subprocess.Popen(["sleep", "60"])
print("result:", os.environ["FAULT"], os.getcwd(), flush=True)
time.sleep(1)
"""
    seen = watch(code, {"k.py": "x = 1"}, {"FAULT": "bug"})
    assert seen.code == 0 and "result: bug" in seen.text and seen.first_line_s is not None and seen.first_line_s < seen.seconds
    assert seen.processes >= 2
    folder = seen.text.split()[2]
    assert not os.path.exists(folder)


def test_a_program_that_hangs_is_ended() -> None:
    seen = watch("import time; time.sleep(60)", {}, {}, timeout_s=1.0)
    assert seen.code is None and seen.seconds < 20


def test_records_are_kept_and_not_made_twice(tmp_path: Path) -> None:
    probe = {
        "repetitions": 1, "points": [{"FAULT": "none"}, {"FAULT": "bug"}],
        "expect": [{"at": {"FAULT": "bug"}, "find": FIND}],
        "programs": {
            "python": {"code": CODE, "needs": ["click"]},
            "broken": {"code": "raise SystemExit(3)"}, "absent": {"code": "", "needs": ["no_such_module"]},
        },
    }  # fmt: skip
    store = Store(tmp_path)
    shown: list[str] = []
    run_probe(probe, "claim x", store, shown.append)
    found = {(r.label, r.sweep["FAULT"]): r for r in store.records()}
    assert set(found) == {(e, f) for e in ("python", "broken") for f in ("none", "bug")} and len(shown) == 4
    good, bug = found["python", "none"], found["python", "bug"]
    assert good.status == bug.status == "ok" and good.counters["work_s"] == 0.5
    assert (bug.counters["kept_type"], bug.counters["kept_row"]) == (1.0, 1.0) and bug.counters["lines"] >= 3
    assert found["broken", "none"].status == "failed" and "code 3" in (found["broken", "none"].reason or "")
    run_probe(probe, "claim x", store, shown.append)
    assert len(shown) == 4


def test_packages_are_counted_with_what_they_require() -> None:
    found = installed(("rich",))  # rich needs pygments and markdown-it-py, which needs mdurl
    assert found["packages"] == 4.0 and found["installed_bytes"] > 1_000_000
