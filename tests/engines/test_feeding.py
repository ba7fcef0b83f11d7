"""The loop that a foreign engine feeds: full batches in order of arrival, few ahead, failures told, nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reports.records import record
from windtunnel.engines import feeding
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.records.training import Training, training
from windtunnel.registry import load_workload
from windtunnel.spec.plan import Concurrency, Cost, Operator, Resources, State, Synthetic


def _loop(rows: int, row_s: float) -> Operator:
    return Operator(
        name="train", kind="map", inputs=("before",), batch_rows=rows, resources=Resources(cpus=0), state=State(kind="actor"),
        kernel=Synthetic(cost=Cost(per_row_s=row_s), fixed_work="sleep"), concurrency=Concurrency(minimum=1, maximum=1),
    )  # fmt: skip


def _table(rows: range) -> pa.Table:
    return pa.table({"payload": pa.array([bytes([n % 256]) for n in rows], pa.binary(1))})


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=8), rows=st.integers(1, 17))
def test_batches_are_full_and_hold_every_row_in_order(sizes: list[int], rows: int) -> None:
    tables, at = [], 0
    for size in sizes:
        tables.append(_table(range(at, at + size)))
        at += size
    found = list(feeding.full_batches(iter(tables), rows))
    assert [b.num_rows for b in found[:-1]] == [rows] * len(found[:-1])
    assert pa.Table.from_batches(found, schema=_table(range(0)).schema) == _table(range(at))


def test_the_loop_steps_at_its_rate_and_waits_for_what_comes_late() -> None:
    def source() -> Iterator[pa.Table]:
        for _ in range(4):
            time.sleep(0.1)
            yield _table(range(10))

    recorder = Recorder()
    made = feeding.train(_loop(10, 0.001), source, recorder)
    assert made.num_rows == 40
    assert [s[0] for s in recorder.spans] == ["step"] * 4
    found = training(_record(recorder))
    assert found is not None
    assert found.rows == 40
    assert found.first_batch_s >= 0.1
    assert found.stall_s >= 0.3, "three more tables came at least 0.1 s apart, and a step takes 0.01 s"


def test_a_loop_that_lags_holds_the_source_back() -> None:
    given_out = 0

    def source() -> Iterator[pa.Table]:
        nonlocal given_out
        for _ in range(100):
            given_out += 1
            yield _table(range(1))

    ahead: list[int] = []
    feeding.train(_loop(1, 0.0005), source, _Watched(lambda: ahead.append(given_out - len(ahead))))
    assert max(ahead) <= feeding.AHEAD + 3, "the line, one in the loop, one on its way, one just asked for"


@pytest.mark.parametrize("where", ["source", "step"])
def test_a_failure_on_either_side_ends_the_other(where: str) -> None:
    closed = threading.Event()

    def source() -> Iterator[pa.Table]:
        try:
            yield _table(range(5))
            if where == "source":
                raise ValueError("the engine broke")
            while True:
                yield _table(range(5))
        finally:
            closed.set()

    recorder = _Watched(_broken) if where == "step" else Recorder()
    with pytest.raises(ValueError, match="broke"):
        feeding.train(_loop(5, 0.0), source, recorder)
    assert closed.wait(5)
    assert not [t for t in threading.enumerate() if t.name == "feeder"]


class _Watched(Recorder):
    """Calls ``watch`` at every span."""

    def __init__(self, watch: Callable[[], None]) -> None:
        super().__init__()
        self._watch = watch

    def span(self, *_: Any, **__: Any) -> None:
        self._watch()


def _broken() -> None:
    raise ValueError("the loop broke")


def test_an_ingest_workload_names_its_loop() -> None:
    workload = load_workload("ingest")
    assert workload.trainer is workload.pipeline["train"]
    assert load_workload("images").trainer is None


def test_stall_is_all_time_up_to_the_last_step_that_is_no_step() -> None:
    recorder = Recorder()
    for start, end in ((2.0, 3.0), (3.0, 4.0), (5.0, 6.0)):
        recorder.span("step", "train", start, end, rows=32)
    recorder.span("query", "augment", 0.0, 7.0, rows=96)
    found = training(_record(recorder))
    assert found == Training(first_batch_s=2.0, end_s=6.0, steps_s=3.0, rows=96)
    assert (found.stall_s, found.stall_share, found.later_stall_s, found.rows_per_s) == (3.0, 0.5, 1.0, 24.0)


def test_other_workloads_and_left_out_spans_tell_nothing() -> None:
    recorder = Recorder()
    recorder.span("step", "train", 0.0, 1.0, rows=1)
    whole = _record(recorder)
    assert training(whole) is not None
    assert training(replace(whole, workload_spec={**whole.workload_spec, "kind": "etl"})) is None
    assert training(replace(whole, counters={"spans_dropped": 1.0})) is None
    assert training(replace(whole, status="failed")) is None


def _record(recorder: Recorder) -> RunRecord:
    plain = record("ray", 7.0, spans=recorder.span_table())
    operators = [{"name": name, "inputs": [], "resources": {"cpus": 1.0, "gpus": 0.0}} for name in ("augment", "train")]
    return replace(plain, workload_spec={**plain.workload_spec, "kind": "ingest", "pipeline": {"operators": operators}})
