"""The reference SQL on generated data of scale factor 1 against the benchmark's published answers."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from windtunnel.registry import load_workload
from windtunnel.spec.plan import Limit
from windtunnel.workloads.compare import compare_tables
from windtunnel.workloads.oracles import reference_table, sort_keys

ANSWERS = Path(os.environ.get("WINDTUNNEL_TPCH_ANSWERS") or Path(__file__).parents[3] / "shared" / "data" / "tpch_answers_sf1")


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, 5, 6, 12, 18])
def test_reference_agrees_with_the_official_answer(number: int, data_root: Path) -> None:
    path = ANSWERS / f"q{number}.parquet"
    if not path.exists():
        pytest.skip("the published answers are not here; name their folder in WINDTUNNEL_TPCH_ANSWERS")
    bound = load_workload(f"tpch_q{number}", scale=1).bind(data_root)
    kernel = bound.pipeline.output.kernel
    reference = reference_table(bound).slice(0, kernel.count if isinstance(kernel, Limit) else None)
    official = pq.read_table(path).rename_columns(reference.column_names)  # two of Q18's names are cut short there
    # Published figures are rounded to cents.
    compare_tables(reference, official, ordered=True, keys=sort_keys(bound.workload), rtol=1e-7)
