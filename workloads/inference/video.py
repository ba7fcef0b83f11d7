"""Batch inference on films: one row becomes many frames, a hundred times its size, that a stateful model then classifies.

What leaves a task is far larger than what enters it, and unequal: engines that cut output into blocks keep memory bounded and the
model fed; those that do not hold a whole partition's frames at once.
"""

from __future__ import annotations

from windtunnel.spec.workload import Format, Workload
from windtunnel.workloads.inference.build import dataset, mapped, model, scan, sink, workload
from windtunnel.workloads.inference.vision import CLASSIFIED, DECODED, GMACS

ROWS_AT_SCALE_1 = 500
BATCH_ROWS = 16  # frames a call of the model; films are decoded one by one


def video(
    *, scale: float = 0.1, partitions: int = 8, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS,
) -> Workload:  # fmt: skip
    """Decode films and classify each frame; label, score and embedding of each into Parquet files.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a frame.
    """
    operators = (
        scan("clips", "id", "clip"),
        mapped("frames", "clips:frames", DECODED, "scan", 1, kind="flat_map"),
        model("classify", "vision:Classifier", CLASSIFIED, "frames", batch_rows, gpus, gmacs),
        sink("classify"),
    )
    return workload(
        "video", operators, dataset("clips", "clips:clips", ROWS_AT_SCALE_1, scale, partitions, seed, format), "oracle:check_video", 1e-4,
        "decode 500 films a scale unit into 4 to 80 frames each, and classify every frame with EfficientNet-Lite0",
    )  # fmt: skip
