"""An engine that answers at once: whatever a run of it takes is the harness's own. It measures the instrument, nothing else.

`prepare` (untimed) has DuckDB compute the answer, so that the oracle still has something true to check.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Outcome, resolve_options
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.workload import BoundWorkload


class NullSession:
    """Holds the answer."""

    def __init__(self, cluster: ClusterSpec) -> None:
        self._cluster = cluster
        self._answer = pa.table({})

    def prepare(self, workload: BoundWorkload) -> None:
        """Compute the answer; workloads without an oracle need none."""
        if workload.workload.oracle is None:
            return
        from windtunnel.engines.adapters.common import output_is_files
        from windtunnel.engines.adapters.duckdb import DuckDBEngine

        session = DuckDBEngine().open(self._cluster, {})
        try:
            with tempfile.TemporaryDirectory() as folder:
                outcome = session.run(workload, Recorder(), Path(folder))
                self._answer = _read(Path(folder)) if output_is_files(workload) else outcome.table
        finally:
            session.close()

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """The answer, at once."""
        return Outcome(table=self._answer, rows=self._answer.num_rows)

    def close(self) -> None:
        """Nothing is open."""


def _read(folder: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("*.parquet"))])


class NullEngine:
    """Does nothing, and says how long that takes."""

    name = "null"
    options: tuple[Option, ...] = ()
    capabilities = Capabilities(features={"overhead": "its makespan is what the harness adds to every engine's"})

    def version(self) -> str:
        """windtunnel's version."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> NullSession:
        """Nothing to start."""
        resolve_options(self.name, self.options, options)
        return NullSession(cluster)
