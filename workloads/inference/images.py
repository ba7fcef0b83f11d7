"""Batch inference on photographs: CPU preprocessing that feeds a stateful model, the job that streaming engines are built for."""

from __future__ import annotations

from windtunnel.workloads.inference.vision import CLASSIFIED, DECODED, GMACS

from windtunnel.plan import MapBatches, Operator, Pipeline, Resources, Scan, Sink, State
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload

ROWS_AT_SCALE_1 = 10_000
BATCH_ROWS = 16  # photographs a call, the same for all engines
_KERNELS = "windtunnel.workloads.inference.vision"


def images(
    *,
    scale: float = 0.1,
    partitions: int = 16,
    seed: int = 7,
    format: Format = "parquet",
    batch_rows: int = BATCH_ROWS,
    gpus: float = 0.0,
    gmacs: float = GMACS,
) -> Workload:
    """Decode, resize and classify photographs; label, score and embedding of each into Parquet files.

    ``gpus`` asks for devices for the model; on an emulated one it takes the time of a model of ``gmacs`` · 1e9 multiply-adds a row.
    """
    classify = MapBatches(function=f"{_KERNELS}:Classifier", schema=CLASSIFIED, params=(("gmacs", gmacs),) if gpus else ())
    pipeline = Pipeline(
        (
            Operator(name="scan", kind="scan", kernel=Scan(table="photos", columns=("id", "jpeg"))),
            Operator(
                name="decode", kind="map", kernel=MapBatches(function=f"{_KERNELS}:decode", schema=DECODED), inputs=("scan",),
                batch_rows=batch_rows, language="python",
            ),
            Operator(
                name="classify", kind="map", kernel=classify, inputs=("decode",), batch_rows=batch_rows,
                state=State(kind="actor"), language="python", resources=Resources(cpus=0, gpus=gpus) if gpus else Resources(),
            ),
            Operator(name="write", kind="sink", kernel=Sink(), inputs=("classify",)),
        )
    )  # fmt: skip
    return Workload(
        name="images",
        kind="inference",
        pipeline=pipeline,
        dataset=DatasetSpec(
            name="photos", generator="windtunnel.workloads.inference.photos:photos", scale=scale, seed=seed, format=format,
            partitions=partitions, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
        ),
        oracle=Oracle(check="windtunnel.workloads.inference.oracle:check_images", rtol=1e-4),
        status_column="status",
        description="decode, resize and classify 10,000 photographs a scale unit with EfficientNet-Lite0, 2 % of them damaged",
    )  # fmt: skip
