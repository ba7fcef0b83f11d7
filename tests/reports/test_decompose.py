"""A difference taken apart: accounts and parts computed by hand, sums that are exact, and what cannot be told."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.reports.records import NODE, record
from windtunnel.errors import InputError
from windtunnel.records.record import Recorder, RunRecord
from windtunnel.reports.account import PARTS, Account, account, binding
from windtunnel.reports.compare import build
from windtunnel.reports.decompose import Decomposition, between, decompositions
from windtunnel.reports.render import charts, html, markdown, terminal

CPU, DEVICE = {"cpus": 1.0, "gpus": 0.0}, {"cpus": 0.0, "gpus": 1.0}
SPEC: dict[str, Any] = {
    "description": "a map", "dataset": {"rows": 10, "partitions": 2},
    "pipeline": {"operators": [
        {"name": "scan", "kind": "scan", "inputs": [], "resources": CPU, "kernel": {"table": "t"}},
        {"name": "map", "kind": "map", "inputs": ["scan"], "resources": CPU, "kernel": {"function": "m:f"}},
    ]},
}  # fmt: skip
WITH_DEVICE = {
    **SPEC,
    "pipeline": {"operators": [*SPEC["pipeline"]["operators"], {
        "name": "infer", "kind": "map", "inputs": ["map"], "resources": DEVICE, "kernel": {"cost": {}}}]},
}  # fmt: skip


def embedded(engine: str, makespan_s: float, start_s: float = 1.0, **spans: float) -> RunRecord:
    """A run that tells its slot-seconds by kind; ``scan`` and ``map`` are seconds of compute."""
    recorder = Recorder()
    for name, seconds in spans.items():
        kind = "compute" if name in ("scan", "map", "infer") else name
        recorder.span(kind, name if kind == "compute" else "map", 0.0, seconds)  # type: ignore[arg-type]
    return record(engine, makespan_s, open_s=start_s, prepare_s=0.0, workload_spec=SPEC, counters={}, spans=recorder.span_table())


def foreign(engine: str, makespan_s: float, start_s: float, cpu_cores: float | None, **counters: float) -> RunRecord:
    """A run that tells counters, and its CPU by samples from outside."""
    recorder = Recorder()
    recorder.span("query", "map", 0.0, makespan_s)
    for n in range(4):
        if cpu_cores is not None:
            recorder.sample("cpu_cores", n / 4 * makespan_s, cpu_cores)
    told = {"kernel_s": 0.0, **counters}
    return record(
        engine, makespan_s, open_s=start_s, prepare_s=0.0, workload_spec=SPEC, counters=told, spans=recorder.span_table(),
        samples=recorder.sample_table(),
    )  # fmt: skip


BULK = embedded("bulk", 10.0, scan=4.0, map=10.0, fetch=1.0, emit=1.0)  # 16 of 20 slot-seconds: idle 2 s a slot
STREAMING = embedded("streaming", 9.0, scan=4.0, map=10.0, fetch=1.0, emit=1.0, queue=1.0)  # 17 of 18
SPARK = foreign(
    "spark",
    20.0,
    8.0,
    1.5,
    kernel_cpu_s=9.0,
    bridge_s=4.0,
    exchange_s=2.0,
    scheduling_s=1.0,
    task_s=34.0,
    **{"kernel_s:map": 12.0},
)
RAY = foreign("ray", 12.0, 11.0, 1.75, kernel_cpu_s=10.0, bridge_s=2.0, **{"kernel_s:map": 11.0})


def test_the_account_of_an_embedded_engine_is_its_spans() -> None:
    found = account(BULK)
    assert found is not None and found.open
    assert {k: v for k, v in found.parts.items() if v} == {"own": 2.0, "kernels": 5.0, "bridge": 1.0, "idle": 2.0}
    assert "spill" in found.told and "unexplained" not in found.told  # it told that there was none


def test_the_account_of_a_foreign_engine_is_what_it_tells_and_what_was_seen() -> None:
    found = account(SPARK)
    assert found is not None and not found.open
    # 1.5 cores × 20 s = 30 CPU seconds, less 9 in kernels and 4 around them: 17 its own; 40 − 34 − 1 slot-seconds had no task, but
    # 40 − 12 − 6 − 1 − 17 = 4 are all that is left
    wanted = {"kernels": 6.0, "bridge": 3.0, "scheduling": 0.5, "own": 8.5, "idle": 2.0}
    assert {k: v for k, v in found.parts.items() if v} == wanted
    ray = account(RAY)
    assert ray is not None
    # 21 CPU seconds less 10 and 2: 9; 24 − 11 − 2 − 9 = 2 slot-seconds that nobody tells of
    assert {k: v for k, v in ray.parts.items() if v} == {"kernels": 5.5, "bridge": 1.0, "own": 4.5, "unexplained": 1.0}


def test_without_samples_nothing_is_its_own() -> None:
    found = account(foreign("ray", 12.0, 11.0, None, kernel_cpu_s=10.0, bridge_s=2.0, **{"kernel_s:map": 11.0}))
    assert found is not None and "own" not in found.told
    assert found.parts["unexplained"] == pytest.approx(12 - 5.5 - 1)


def seconds(found: Decomposition | None) -> dict[str, float]:
    """The parts by key."""
    assert found is not None
    return {p.key: round(p.seconds, 9) for p in found.parts}


def test_spark_less_ray_by_hand() -> None:
    found = between("t", [BULK, STREAMING, SPARK, RAY], "ray", "spark", None)
    assert found is not None and (found.slower, found.faster, found.models) == ("spark", "ray", ("bulk", "streaming"))
    # accounts: spark − ray, less bulk − streaming
    assert seconds(found) == {
        "start": -3.0, "model": 1.0, "kernels": 0.5, "bridge": 2.0, "own": 4.0, "scheduling": 0.5 - (0 - 0.5),
        "idle": 2.0 - (2.0 - 0.5), "unexplained": -1.0,
    }  # fmt: skip
    assert sum(seconds(found).values()) == pytest.approx(found.difference_s) == pytest.approx(28.0 - 23.0)
    assert found.share("rest") == pytest.approx(1.0 / (3 + 1 + 0.5 + 2 + 4 + 1 + 0.5 + 1))
    assert found.share("measured") == pytest.approx((3 + 1 + 0.5) / 13)
    known = {p.key: p.basis for p in found.parts}
    assert known["bridge"] == "lower bound" and known["own"] == "upper bound" and known["kernels"] == "measured"
    assert known["scheduling"] == known["idle"] == "one side" and known["unexplained"] == "rest"


def test_one_model_makes_no_difference_and_cancels() -> None:
    found = between("t", [STREAMING, RAY], "ray", "streaming", None)
    assert found is not None and found.models == ("streaming", "streaming")
    assert seconds(found) == {
        "start": 10.0, "kernels": 0.5, "own": 2.5, "scheduling": -0.5, "idle": -0.5, "unexplained": 1.0,
    }  # fmt: skip


def test_the_embedded_pair_differs_by_its_model_alone() -> None:
    found = between("t", [BULK, STREAMING], "bulk", "streaming", None)
    assert seconds(found) == {"model": 1.0}
    assert found is not None and found.share("measured") == 1.0


def test_without_the_pair_there_is_no_model_and_it_says_so() -> None:
    found = between("t", [SPARK, RAY, STREAMING], "ray", "spark", None)
    assert found is not None and found.models is None
    assert "model" not in seconds(found) and sum(seconds(found).values()) == pytest.approx(5.0)


def test_devices_are_accounted_for_where_they_are_the_busier() -> None:
    node = {**NODE, "gpus": {"count": 1}}
    spec = {"workload_spec": WITH_DEVICE, "cluster_spec": {"nodes": [node]}}
    fast = replace(embedded("streaming", 10.0, map=4.0, infer=9.0), **spec)
    slow = replace(embedded("bulk", 15.0, map=4.0, infer=9.0), **spec)
    assert binding(fast) == "gpus"
    found = between("t", [fast, slow], "bulk", "streaming", None)
    assert found is not None and found.resource == "gpus"
    assert account(slow, "gpus").parts["idle"] == 6.0  # type: ignore[union-attr]
    ray = replace(foreign("ray", 14.0, 5.0, 1.0, **{"kernel_s:infer": 9.5, "kernel_s:map": 4.0}), **spec)
    parts = between("t", [fast, ray], "ray", "streaming", None)
    assert seconds(parts) == {"start": 4.0, "kernels": 0.5, "idle": 3.5}
    assert parts is not None and [p.name for p in parts.parts][-1] == "device idle"


def test_every_arm_is_set_against_the_fastest() -> None:
    found = decompositions("t", [BULK, STREAMING, SPARK, RAY, record("dask", None)], 0.1)
    assert [(d.slower, d.faster) for d in found] == [("bulk", "streaming"), ("ray", "streaming"), ("spark", "streaming")]
    small = {p.key for d in found for p in d.parts if p.within_noise}
    assert "kernels" in small and "start" not in small  # 0.5 s is below a tenth of 9 s


@given(st.lists(st.floats(0.0, 3.0), min_size=16, max_size=16))
def test_parts_add_up_whatever_the_engines_tell(values: list[float]) -> None:
    bulk = embedded("bulk", 10.0, values[0], scan=values[1], map=values[2], emit=values[3], spill=values[4], load=values[5])
    streaming = embedded("streaming", 9.0, values[6], scan=values[7], map=values[8], queue=values[9])
    spark = foreign("spark", 20.0, values[10], values[11], bridge_s=values[12], task_s=10 * values[13], spill_s=values[14])
    ray = foreign("ray", 12.0, values[15], None, kernel_cpu_s=values[3], **{"kernel_s:map": values[4]})
    for found in decompositions("t", [bulk, streaming, spark, ray], None):
        assert sum(p.seconds for p in found.parts) == pytest.approx(found.difference_s)
        assert found.share("measured", "lower bound", "upper bound", "one side", "rest") == pytest.approx(
            1.0 if found.parts else 0.0
        )
    for one in (bulk, streaming, spark, ray):
        told = account(one)
        assert isinstance(told, Account) and set(told.parts) == set(PARTS)
        assert sum(told.parts.values()) == pytest.approx(told.makespan_s)


def test_every_output_shows_the_parts() -> None:
    comparison = build([BULK, STREAMING, SPARK, RAY], pair=("spark", "ray"))
    (found,) = comparison.decompositions
    out = io.StringIO()
    terminal.print_comparison(comparison, Console(file=out, width=160))
    for text in (out.getvalue(), markdown.render(comparison), html.render(comparison)):
        assert "bridge and serialization" in text and "spark takes 5 s longer than ray" in text.lower().replace("5.00", "5")
    assert charts.waterfall(found).count('class="fall') == len(found.parts) + 2
    everything = build([BULK, STREAMING, SPARK, RAY])
    out = io.StringIO()
    terminal.print_comparison(everything, Console(file=out, width=200))
    assert "Why slower" in out.getvalue() and "≥" in out.getvalue()


def test_an_unknown_label_is_told() -> None:
    with pytest.raises(InputError, match="no real run is labelled 'rai'; did you mean 'ray'"):
        build([RAY, SPARK], pair=("rai", "spark"))
