"""Data sets made once for all tests of the workloads."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data sets of this test session lie."""
    return tmp_path_factory.mktemp("data")
