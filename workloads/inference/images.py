"""Batch inference on photographs: CPU preprocessing that feeds a stateful model, the job that streaming engines are built for."""

from __future__ import annotations

from windtunnel.spec.workload import DatasetSpec, Format, Workload
from windtunnel.workloads.inference.build import dataset, mapped, model, scan, sink, workload
from windtunnel.workloads.inference.vision import CLASSIFIED, DECODED, GMACS

ROWS_AT_SCALE_1 = 10_000
BATCH_ROWS = 16  # photographs a call, the same for all engines


def images(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS,
) -> Workload:  # fmt: skip
    """Decode, resize and classify photographs; label, score and embedding of each into Parquet files.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a row.
    """
    operators = (
        scan("photos", "id", "jpeg"),
        mapped("decode", "vision:decode", DECODED, "scan", batch_rows),
        model("classify", "vision:Classifier", CLASSIFIED, "decode", batch_rows, gpus, gmacs),
        sink("classify"),
    )
    return workload(
        "images", operators, photographs(scale, partitions, seed, format), "oracle:check_images", 1e-4,
        "decode, resize and classify 10,000 photographs a scale unit with EfficientNet-Lite0, 2 % of them damaged",
    )  # fmt: skip


def photographs(scale: float, partitions: int, seed: int, format: Format) -> DatasetSpec:
    """The table of photographs, which several workloads read."""
    return dataset("photos", "photos:photos", ROWS_AT_SCALE_1, scale, partitions, seed, format)
