"""What every test may use: one folder of data a process, and the marks that machines without Java or Chromium skip."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from windtunnel.running.java import find_java
from windtunnel.spec.cluster import ClusterSpec


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets are made once a test run."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def two_cpus() -> ClusterSpec:
    """A budget that every machine has."""
    return ClusterSpec.here(cpus=2, memory_bytes=4 * 2**30)


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """Fails when a test leaves shared-memory sessions of this process behind."""
    before = _sessions()
    yield
    assert _sessions() <= before


def _sessions() -> set[str]:
    shm = Path("/dev/shm")
    return {p.name for p in shm.glob(f"windtunnel-{os.getpid()}-*")} if shm.is_dir() else set()


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist runs
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share an open engine stay in one process (pytest-xdist 3.8 no longer finds its own groups with pytest 9.2)."""
    from tests.grouping import Groups

    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip with a reason what this machine cannot run."""
    for item in items:
        if item.get_closest_marker("java") and find_java() is None:
            item.add_marker(pytest.mark.skip(reason="no Java here; `windtunnel doctor` says how to get one"))
        if item.get_closest_marker("browser") and not (shutil.which("chromium") or shutil.which("chromium-browser")):
            item.add_marker(pytest.mark.skip(reason="no Chromium here: apt-get install chromium chromium-driver"))
        if item.get_closest_marker("linux") and not sys.platform.startswith("linux"):
            item.add_marker(pytest.mark.skip(reason="needs /proc or /dev/shm"))
