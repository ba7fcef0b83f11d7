"""Engines without a server of their own, behind the thin front: rounds of a batch engine, tasks of Dask."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

pytest.importorskip("httptools")

from windtunnel.engines.serving.load import Loop

from tests.serving.conftest import running
from windtunnel.serving import ArrivalSpec

TEXT = (
    '[[deployments]]\nname = "a"\nreplicas = 2\ncost = { per_call = "20ms" }\ncalls = ["b"]\n'
    + '[[deployments]]\nname = "b"\ncost = { per_call = "1ms" }\n'
)


@pytest.mark.parametrize("name", ["bulk", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dask", "spark"))])
def test_every_request_is_answered_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed", "spark": "pyspark"}.get(name, "httptools"))
    with running(tmp_path, TEXT, engine=f"{name}-serve", work="sleep") as session:
        family = psutil.Process(session.processes[0].pid).children(recursive=True)
        sent = session.ask(ArrivalSpec(kind="uniform"), Loop(times=(0.0,) * 8))
    assert Counter(r.outcome for r in sent) == {"ok": 8}
    assert all([v[0] for v in r.trace] == ["a", "b"] for r in sent)
    if name != "spark":  # it may give the few requests of a micro-batch to one worker
        assert {r.trace[0][1] for r in sent} == {0, 1}
    if name == "bulk":  # rounds: the first request alone or with others, and shares that differ by one at most in each
        assert max(v[3] for r in sent for v in r.trace) >= 4 * 0.02
    assert not psutil.wait_procs(family, timeout=20)[1]  # multiprocessing's own helper ends a moment later
