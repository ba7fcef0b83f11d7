"""Calibration files: what is saved is what is read, and a broken file is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import InputError
from windtunnel.sim.costs.laws import StageLaw, StepLaw
from windtunnel.sim.costs.many import works
from windtunnel.sim.costs.measured import Calibration, EngineCost, OperatorCost, Residual
from windtunnel.spec.plan import Cost

SECONDS = st.floats(0, 1e3, allow_nan=False)
NAMES = st.text("abcxyz_é ", min_size=1, max_size=8)
OPERATORS = st.builds(
    OperatorCost, workload=NAMES, operator=NAMES, phase=st.sampled_from(["Scan", "Join", "Exchange"]), fixed_s=SECONDS,
    per_row_s=SECONDS, per_byte_s=SECONDS, cv=SECONDS, rows_factor=SECONDS, row_bytes_out=st.none() | SECONDS,
)  # fmt: skip
ENGINES = st.builds(
    EngineCost, engine=NAMES, startup_s=SECONDS, launch_s=SECONDS, slowdown=st.sampled_from([(), ((1.0, 1.0), (2.0, 1.25))])
)
RESIDUALS = st.builds(Residual, cell=NAMES, engine=NAMES, measured_s=SECONDS, fitted_s=SECONDS, error=SECONDS)
CALIBRATIONS = st.builds(
    Calibration, operators=st.lists(OPERATORS, max_size=3).map(tuple), engines=st.lists(ENGINES, max_size=2).map(tuple),
    residuals=st.lists(RESIDUALS, max_size=2).map(tuple), provenance=st.dictionaries(NAMES, NAMES | st.integers(), max_size=3),
)  # fmt: skip


@given(CALIBRATIONS)
@settings(max_examples=40, deadline=None)
def test_what_is_saved_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, calibration: Calibration) -> None:
    path = tmp_path_factory.mktemp("costs") / "deep" / "calibration.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert Calibration.load(path).digest() == calibration.digest()
    assert [p.name for p in path.parent.iterdir()] == ["calibration.json"]


def valid() -> dict[str, Any]:
    """A file with one entry of each kind, as plain data."""
    import dataclasses

    calibration = Calibration(
        operators=(OperatorCost(workload="w", operator="o", phase="Scan"),),
        engines=(EngineCost(engine="bulk", slowdown=((1.0, 1.0),)),),
        residuals=(Residual(cell="c", engine="bulk", measured_s=1.0, fitted_s=1.1, error=0.1),),
    )
    return {"schema": 1, **dataclasses.asdict(calibration)}


BROKEN = {
    "not JSON": b"{",
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "no schema": b"{}",
    "another schema": json.dumps({**valid(), "schema": 2}).encode(),
    "no engines": json.dumps({k: v for k, v in valid().items() if k != "engines"}).encode(),
    "engines of another kind": json.dumps({**valid(), "engines": 5}).encode(),
    "an engine that is a text": json.dumps({**valid(), "engines": ["bulk"]}).encode(),
    "an operator that is a number": json.dumps({**valid(), "operators": [1]}).encode(),
    "an unknown field": json.dumps({**valid(), "operators": [{**valid()["operators"][0], "colour": 1}]}).encode(),
    "a text for seconds": json.dumps({**valid(), "operators": [{**valid()["operators"][0], "fixed_s": "1"}]}).encode(),
    "nothing for seconds": json.dumps({**valid(), "engines": [{**valid()["engines"][0], "launch_s": None}]}).encode(),
    "a negative cost": json.dumps({**valid(), "operators": [{**valid()["operators"][0], "per_row_s": -1}]}).encode(),
    "not a number": json.dumps({**valid(), "operators": [{**valid()["operators"][0], "per_row_s": float("nan")}]}).encode(),
    "a slowdown below 1": json.dumps({**valid(), "engines": [{**valid()["engines"][0], "slowdown": [[1, 0.5]]}]}).encode(),
    "a slowdown out of order": json.dumps(
        {**valid(), "engines": [{**valid()["engines"][0], "slowdown": [[2, 1], [1, 1]]}]}
    ).encode(),
    "provenance that is a text": json.dumps({**valid(), "provenance": "here"}).encode(),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_broken_file_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(BROKEN[what])
    with pytest.raises(InputError) as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value)
    assert 20 < len(str(caught.value)) < 500


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json cannot be read: there is no such file.*windtunnel calibrate"):
        Calibration.load(tmp_path / "gone.json")
    with pytest.raises(InputError, match="is a folder"):
        Calibration.load(tmp_path)


def test_an_unmeasured_phase_says_what_to_do() -> None:
    calibration = Calibration(operators=(OperatorCost(workload="tpch_q1", operator="scan", phase="Scan", per_row_s=2.0),))
    assert calibration.operator("tpch_q1", "scan", "Scan").per_row_s == 2.0
    assert calibration.has("tpch_q1", "scan", "Scan") and not calibration.has("tpch_q1", "scan", "Filter")
    with pytest.raises(InputError, match=r"no measured cost of Scan .* 'tpch_q2'; did you mean 'tpch_q1'.*calibrate"):
        calibration.operator("tpch_q2", "scan", "Scan")


def test_an_engine_never_measured_has_the_defaults() -> None:
    calibration = Calibration(engines=(EngineCost(engine="bulk", task_s=1.0),))
    assert calibration.engine("bulk").task_s == 1.0
    assert calibration.engine("streaming") == EngineCost(engine="streaming")


STEPS = st.builds(
    StepLaw, operator=st.just("a"), rows_factor=st.sampled_from([0.0, 0.3, 1.0, 2.5]), rows_exponent=st.sampled_from([0.0, 0.7, 1.0]),
    cost=st.builds(Cost, per_batch_s=SECONDS, per_row_s=SECONDS, per_byte_s=SECONDS, cv=st.sampled_from([0.0, 0.3])),
    max_rows=st.sampled_from([7.0, float("inf")]), row_bytes_out=st.none() | st.sampled_from([0.0, 8.0, 1e6]),
    batch_rows=st.sampled_from([0, 1, 3]), flow_rows=st.sampled_from([0, 4]), at_end=st.booleans(),
    curve=st.sampled_from([(), ((0.0, 0.1), (4.0, 0.5), (16.0, 1.0))]), work_class=st.sampled_from(["cpu", "sleep", "device"]),
)  # fmt: skip
KINDS = st.tuples(st.integers(0, 40), st.integers(0, 10**9))


@given(st.lists(STEPS, max_size=3), st.none() | STEPS, st.lists(KINDS, min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_many_tasks_at_once_do_what_each_does(
    steps: list[StepLaw], exchange: StepLaw | None, source: list[tuple[int, int]]
) -> None:
    law = StageLaw(steps=tuple(steps), exchange=exchange)
    each = [law.work(rows, size) for rows, size in source]
    rows, sizes = np.array(source, dtype=np.int64).T
    many = works(law, rows, sizes)
    assert many.seconds.tolist() == [[s.seconds for s in w.steps] for w in each]
    assert many.cvs.tolist() == [[s.cv for s in w.steps] for w in each]
    for name in ("rows_out", "row_bytes", "batches", "moved_bytes"):
        assert getattr(many, name).tolist() == [getattr(w, name) for w in each], name
    assert many.seconds_of("device").tolist() == [sum(s.seconds for s in w.steps if s.work_class == "device") for w in each]
