"""Ray as it comes takes another reader of Parquet than tuned Ray, with the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.harness import answer, marks
from windtunnel.registry import load_engine, load_workload
from windtunnel.spec.cluster import ClusterSpec


@pytest.mark.parametrize("name", [pytest.param("ray", marks=marks("ray"))])
def test_a_predicate_is_applied_where_the_reader_takes_none(
    name: str, two_cpus: ClusterSpec, data_root: Path, tmp_path: Path
) -> None:
    """The predicate of TPC-H Q6 names columns that its scan does not give on."""
    session = load_engine(name).open(two_cpus, {"tuning": "stock"})
    try:
        answer(session, load_workload("tpch_q6", scale=0.005, partitions=2), data_root, tmp_path)
    finally:
        session.close()
