"""Batch inference on films: one row becomes many frames, a hundred times its size, that a stateful model then classifies.

What leaves a task is far larger than what enters it, and unequal: engines that cut output into blocks keep memory bounded and the
model fed; those that do not hold a whole partition's frames at once.
"""

from __future__ import annotations

from windtunnel.workloads.inference.vision import CLASSIFIED, DECODED, GMACS

from windtunnel.plan import MapBatches, Operator, Pipeline, Resources, Scan, Sink, State
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload

ROWS_AT_SCALE_1 = 500
BATCH_ROWS = 16  # frames a call of the model; films are decoded one by one


def video(
    *, scale: float = 0.1, partitions: int = 8, seed: int = 7, format: Format = "parquet", batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0, gmacs: float = GMACS,
) -> Workload:  # fmt: skip
    """Decode films and classify each frame; label, score and embedding of each into Parquet files.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a frame.
    """
    classify = MapBatches(
        function="windtunnel.workloads.inference.vision:Classifier", schema=CLASSIFIED, params=(("gmacs", gmacs),) if gpus else ()
    )
    pipeline = Pipeline(
        (
            Operator(name="scan", kind="scan", kernel=Scan(table="clips", columns=("id", "clip"))),
            Operator(
                name="frames", kind="flat_map", inputs=("scan",), batch_rows=1, language="python",
                kernel=MapBatches(function="windtunnel.workloads.inference.clips:frames", schema=DECODED),
            ),
            Operator(
                name="classify", kind="map", kernel=classify, inputs=("frames",), batch_rows=batch_rows,
                state=State(kind="actor"), language="python", resources=Resources(cpus=0, gpus=gpus) if gpus else Resources(),
            ),
            Operator(name="write", kind="sink", kernel=Sink(), inputs=("classify",)),
        )
    )  # fmt: skip
    return Workload(
        name="video",
        kind="inference",
        pipeline=pipeline,
        dataset=DatasetSpec(
            name="clips", generator="windtunnel.workloads.inference.clips:clips", scale=scale, seed=seed, format=format,
            partitions=partitions, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
        ),
        oracle=Oracle(check="windtunnel.workloads.inference.oracle:check_video", rtol=1e-4),
        status_column="status",
        description="decode 500 films a scale unit into 4 to 80 frames each, and classify every frame with EfficientNet-Lite0",
    )  # fmt: skip
