"""What engines cost before any work, measured on the two that are always here."""

from __future__ import annotations

import pytest

from windtunnel.sim.calibration import crossings
from windtunnel.sim.calibration.crossings import measured
from windtunnel.spec.cluster import ClusterSpec


@pytest.mark.slow
def test_starts_and_empty_tasks_are_measured_and_an_engine_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from windtunnel.errors import RunFailed
    from windtunnel.registry import load_engine

    def load(name: str) -> object:
        if name == "duckdb":
            raise RunFailed("it does not start")
        return load_engine(name)

    monkeypatch.setattr(crossings, "STARTED", ("duckdb", "streaming"))
    monkeypatch.setattr(crossings, "load_engine", load)
    monkeypatch.setattr(crossings, "find_java", lambda: None)
    found = {(h.name, h.at): h for h in measured(ClusterSpec.here(cpus=2))}
    assert ("session start", "duckdb") not in found and found["session start", "streaming"].value > 0
    assert all(0 < found["task of no work", f"streaming, {n} workers"].value < 1 for n in (1, 2))
