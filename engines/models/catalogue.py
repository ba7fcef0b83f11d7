"""The models that worlds run, by name: one entry a model serves the local and the simulated world."""

from __future__ import annotations

from windtunnel.engines.models import bulk, dask, flink, mapreduce, ray_entry, spark, streaming
from windtunnel.engines.models.entry import ModelEntry

BULK, STREAMING = bulk.ENTRY, streaming.ENTRY
ENTRIES: dict[str, ModelEntry] = {
    entry.name: entry for entry in (BULK, STREAMING, ray_entry.ENTRY, spark.ENTRY, dask.ENTRY, flink.ENTRY, mapreduce.ENTRY)
}
