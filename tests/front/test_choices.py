"""What a person chooses for a workload or an engine is refused before anything runs, in one sentence, where it makes no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from windtunnel.cli import main
from windtunnel.engines.api import Option, resolve_options
from windtunnel.errors import InputError
from windtunnel.registry import describe_engine, engine_names, load_workload

REAL = [n for n in engine_names() if not n.startswith("sim:")]
FREE = {"spill_dir", "concurrency", "parallelism", "first", "second", "cut"}  # paths, tables and names


@pytest.mark.parametrize(
    ("workload", "parameter", "value"),
    [
        ("tpch_q1", "scale", math.nan), ("tpch_q1", "scale", math.inf), ("tpch_q1", "scale", 0), ("tpch_q1", "scale", -1.0),
        ("tpch_q1", "scale", "big"), ("tpch_q1", "partitions", 0), ("tpch_q1", "partitions", 1.5), ("tpch_q1", "partitions", True),
        ("images", "gpus", -1), ("images", "format", "xls"), ("images", "seed", -1), ("tpch_q1", "batch_rows", 8),
    ],
)  # fmt: skip
def test_a_parameter_of_a_workload_that_makes_no_sense(workload: str, parameter: str, value: Any) -> None:
    with pytest.raises(InputError, match=parameter) as caught:
        load_workload(workload, **{parameter: value})
    assert "\n" not in str(caught.value)


def test_parameters_at_the_edge_are_taken() -> None:
    assert load_workload("tpch_q1", scale=1, partitions=1, seed=0).dataset.scale == 1
    assert load_workload("images", gpus=0.5, format="orc").dataset.format == "orc"


@pytest.mark.parametrize("engine", REAL)
def test_every_option_refuses_nonsense(engine: str) -> None:
    """Numbers, sizes and choices, not texts, paths and tables."""
    for option in describe_engine(engine).options:
        if option.name in FREE or (isinstance(option.default, (str, dict)) and not option.choices and not option.check):
            continue
        with pytest.raises(InputError, match=f"option {option.name}: "):
            resolve_options(engine, (option,), {option.name: "nonsense"})
        assert resolve_options(engine, (option,), {}) == {option.name: option.default}


@pytest.mark.parametrize("value", [0, -1, "0B", "-4MiB", "lots", True, math.nan])
def test_blocks_hold_at_least_a_byte(value: Any) -> None:
    block = next(o for o in describe_engine("bulk").options if o.name == "block_bytes")
    with pytest.raises(InputError, match="option block_bytes"):
        resolve_options("bulk", (block,), {"block_bytes": value})


def test_numbers_are_of_the_kind_of_their_default() -> None:
    options = (Option(name="share", default=0.5, doc=""), Option(name="tries", default=3, doc=""))
    assert resolve_options("any", options, {"share": 1, "tries": 4}) == {"share": 1, "tries": 4}
    for nonsense in ({"share": math.inf}, {"share": True}, {"tries": 1.5}, {"tries": "4"}):
        with pytest.raises(InputError, match="number"):
            resolve_options("any", options, nonsense)


def test_more_cpus_than_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    """Real kernels would only take turns on them."""
    assert main(["run", "-w", "tpch_q1", "-e", "bulk", "--cpus", "4096"]) == 2
    assert "this machine has" in capfd.readouterr().err
