"""Batch inference on texts: tokens on the CPU, a sentence model that is loaded once a worker, and a lookup of the nearest reference."""

from __future__ import annotations

from typing import Literal

from windtunnel.spec.workload import Format, Workload
from windtunnel.workloads.inference.build import dataset, mapped, model, scan, sink, workload
from windtunnel.workloads.inference.words import EMBEDDED, GMACS, LOOKED_UP, TOKENIZED

ROWS_AT_SCALE_1 = 10_000
BATCH_ROWS = 32  # documents a call, the same for all engines


def documents(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS, texts: Literal["documents", "glosses"] = "documents",
) -> Workload:  # fmt: skip
    """Embed documents and find the nearest reference of each. ``texts``: made ones, or WordNet's where it is installed.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a row.
    """
    operators = (
        scan("documents", "id", "text"),
        mapped("tokenize", "words:tokenize", TOKENIZED, "scan", batch_rows),
        model("embed", "words:Embedder", EMBEDDED, "tokenize", batch_rows, gpus, gmacs),
        model("lookup", "words:Nearest", LOOKED_UP, "embed", batch_rows),
        sink("lookup"),
    )
    return workload(
        "documents", operators, dataset(texts, f"texts:{texts}", ROWS_AT_SCALE_1, scale, partitions, seed, format),
        "oracle:check_documents", 1e-4,
        "tokenize and embed 10,000 documents a scale unit with all-MiniLM-L6-v2, and find the nearest reference of each",
    )  # fmt: skip
