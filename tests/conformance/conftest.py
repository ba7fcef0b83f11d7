"""Which tests of an engine are long: `make test` runs a few of those engines' tests, `make test-all` all of them."""

from __future__ import annotations

import pytest

#: engines whose whole suite takes minutes, and why
LONG = {
    "daft": "its kernels' processes are started anew for every query",
    "ray-core": "a Ray cluster starts for every module",
    "mapreduce": "a JVM compiles the job and starts for every module, and each exchange is a job",
    "flink": "a Python harness starts for every job",
}

#: those of which `make test` runs something: (test, workload or None)
IN_BRIEF = ("daft", "ray-core")
BRIEF = (
    ("test_answers_are_verified", "tpch_q3"),
    ("test_a_failing_kernel_names_operator_and_line", None),
    ("test_declared_costs_run_or_are_a_declared_gap", None),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long ones before `-m` chooses."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        brief = (getattr(item, "originalname", item.name), parameters.get("name")) in BRIEF
        engine = parameters.get("session")
        if engine in LONG and (engine not in IN_BRIEF or not brief):
            item.add_marker(pytest.mark.slow)
