"""Batch inference on texts: tokens on the CPU, a sentence model that is loaded once a worker, and a lookup of the nearest reference."""

from __future__ import annotations

from typing import Literal

from windtunnel.workloads.inference.words import EMBEDDED, GMACS, LOOKED_UP, TOKENIZED

from windtunnel.plan import MapBatches, Operator, Pipeline, Resources, Scan, Sink, State
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload

ROWS_AT_SCALE_1 = 10_000
BATCH_ROWS = 32  # documents a call, the same for all engines
_KERNELS = "windtunnel.workloads.inference.words"


def documents(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS, texts: Literal["documents", "glosses"] = "documents",
) -> Workload:  # fmt: skip
    """Embed documents and find the nearest reference of each. ``texts``: made ones, or WordNet's where it is installed.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a row.
    """
    embed = MapBatches(function=f"{_KERNELS}:Embedder", schema=EMBEDDED, params=(("gmacs", gmacs),) if gpus else ())
    pipeline = Pipeline(
        (
            Operator(name="scan", kind="scan", kernel=Scan(table="documents", columns=("id", "text"))),
            Operator(
                name="tokenize", kind="map", kernel=MapBatches(function=f"{_KERNELS}:tokenize", schema=TOKENIZED),
                inputs=("scan",), batch_rows=batch_rows, language="python",
            ),
            Operator(
                name="embed", kind="map", kernel=embed, inputs=("tokenize",), batch_rows=batch_rows, state=State(kind="actor"),
                language="python", resources=Resources(cpus=0, gpus=gpus) if gpus else Resources(),
            ),
            Operator(
                name="lookup", kind="map", kernel=MapBatches(function=f"{_KERNELS}:Nearest", schema=LOOKED_UP),
                inputs=("embed",), batch_rows=batch_rows, state=State(kind="actor"), language="python",
            ),
            Operator(name="write", kind="sink", kernel=Sink(), inputs=("lookup",)),
        )
    )  # fmt: skip
    return Workload(
        name="documents",
        kind="inference",
        pipeline=pipeline,
        dataset=DatasetSpec(
            name=texts, generator=f"windtunnel.workloads.inference.texts:{texts}", scale=scale, seed=seed, format=format,
            partitions=partitions, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
        ),
        oracle=Oracle(check="windtunnel.workloads.inference.oracle:check_documents", rtol=1e-4),
        status_column="status",
        description="tokenize and embed 10,000 documents a scale unit with all-MiniLM-L6-v2, and find the nearest reference of each",
    )  # fmt: skip
