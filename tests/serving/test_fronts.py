"""Engines without a server of their own, behind the thin front: rounds of a batch engine, tasks of Dask."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

pytest.importorskip("httptools")

from tests.serving.conftest import running
from windtunnel.engines.serving.load import Loop
from windtunnel.errors import MissingEngine
from windtunnel.spec.serving import ArrivalSpec, DeploymentSpec

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


def test_lines_of_a_micro_batch_become_answers(handlers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Python worker of Spark's does, without Spark; a handler that raises fails its request alone."""
    from windtunnel.engines.serving import fronts, spark_stream
    from windtunnel.engines.serving.process import Told

    monkeypatch.setattr(fronts, "_held", None)
    told = Told(
        deployments=(DeploymentSpec(name="one"),), options={"work": "shouting:Shout", "seed": 0}, fd=-1, port=0, number=0, timeout_s=1.0,
        max_body=100, response_bytes=None,
    )  # fmt: skip
    lines = [f"{number} {base64.b64encode(body).decode()}" for number, body in ((7, b"a"), (8, b"raise"), (9, b""))]
    (found,) = spark_stream.answered(told, 0, iter([pa.record_batch({"value": lines})]))
    rows = found.to_pydict()
    assert (rows["number"], rows["answer"]) == ([7, 8, 9], [b"A", b"", b""])
    assert rows["error"] == [None, "ValueError: no", None]
    assert [json.loads(v)[0][0] for v in rows["visits"][::2]] == ["one", "one"]


def test_spark_without_java_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.engines.adapters.spark_session.find_java", lambda: None)
    with pytest.raises(MissingEngine, match="needs Java"), running(tmp_path, TEXT, engine="spark-serve"):
        pass
