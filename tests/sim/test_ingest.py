"""A training loop in the simulated world: what it waits follows from rates and barriers by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.errors import InputError
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.scenario.reading import parse_scenario

SCENARIO = """
schema = 1
name = "feeding"
[cluster]
[[cluster.nodes]]
name = "worker"
cpus = 2
memory = "4GiB"
[dataset]
rows = 40
row_bytes = "1KB"
partitions = 40
[[operators]]
name = "prepare"
kind = "map"
cost = {{ per_row = "100ms" }}
fixed_work = "sleep"
[trainer]
batch_rows = {batch}
step = "{step}"
[[engines]]
name = "{engine}"
"""


def _steps(engine: str, batch: int = 1, step: str = "50ms") -> tuple[float, float, float]:
    """(first, end, stall) of the loop."""
    point = parse_scenario(SCENARIO.format(engine=engine, batch=batch, step=step))
    session = load_engine(f"sim:{engine}").open(point.cluster, {})
    bound = point.workload.bind(Path("unused"))
    session.prepare(bound)
    recorder = Recorder()
    session.run(bound, recorder, Path("unused"))
    session.close()
    steps = [s for s in recorder.spans if s[0] == "compute" and s[1] == "train"]
    assert sum(s[7] for s in steps) == 40
    first, end = min(s[5] for s in steps), max(s[6] for s in steps)
    return first, end, end - sum(s[6] - s[5] for s in steps)


def test_bulk_stalls_for_all_of_preprocessing() -> None:
    first, end, stall = _steps("bulk")
    assert first == pytest.approx(2.0, rel=0.02), "40 rows of 100 ms on two CPUs"
    assert end == pytest.approx(4.0, rel=0.02), "then 40 steps of 50 ms"
    assert stall == pytest.approx(first, rel=0.02)


def test_streaming_stalls_for_the_first_row_only() -> None:
    first, end, stall = _steps("streaming")
    assert first == pytest.approx(0.1, rel=0.1)
    assert end == pytest.approx(2.1, rel=0.02)
    assert stall == pytest.approx(0.1, abs=0.03)


def test_a_loop_that_is_twice_as_fast_waits_half_of_the_time() -> None:
    _, end, stall = _steps("streaming", step="25ms")
    assert stall / end == pytest.approx(0.5, abs=0.04)


def test_a_step_takes_its_share_of_a_short_batch() -> None:
    _, end, _ = _steps("bulk", batch=8, step="400ms")
    assert end == pytest.approx(4.0, rel=0.02), "partitions hold one row: an eighth of a step each"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("batch_rows = 1", "batch_rows = 0"), "batch_rows"),
        (('step = "50ms"', 'step = "0s"'), "longer than 0"),
        (('name = "prepare"', 'name = "train"'), "loop's name"),
        (("batch_rows = 1", "batch_rows = 1\nrate = 3"), "rate"),
    ],
)
def test_a_wrong_trainer_is_one_sentence(change: tuple[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_scenario(SCENARIO.format(engine="bulk", batch=1, step="50ms").replace(*change))


def test_a_trainer_belongs_to_operators() -> None:
    text = 'schema = 1\nname = "x"\nworkload = "images"\n[cluster]\n[[cluster.nodes]]\nname = "w"\ncpus = 1\nmemory = "1GiB"\n'
    with pytest.raises(InputError, match="ingest"):
        parse_scenario(text + '[trainer]\nbatch_rows = 1\nstep = "1s"\n[[engines]]\nname = "bulk"\n')
