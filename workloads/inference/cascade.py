"""Batch inference in two stages: a detector finds the lines of a page, each is cut out, and a recogniser reads it.

Two models of different batch sizes and memory, and between them rows that become several: what a fixed plan gets wrong.
"""

from __future__ import annotations

from typing import Any

from windtunnel.workloads.inference.reading import CUT, DETECTOR_GMACS, FOUND, READ, RECOGNISER_GMACS, SHOWN

from windtunnel.plan import Kind, MapBatches, Operator, Pipeline, Resources, Scan, Sink, State
from windtunnel.workload import DatasetSpec, Format, Oracle, Workload

ROWS_AT_SCALE_1 = 5_000
PAGES, LINES = 4, 16  # pages and lines a call, the same for all engines
_KERNELS = "windtunnel.workloads.inference.reading"


def cascade(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", pages: int = PAGES, lines: int = LINES,
    gpus: float = 0.0, heavier: float = 1.0,
) -> Workload:  # fmt: skip
    """Read the lines of pages; text and score of each into Parquet files.

    ``gpus`` asks for devices for each of the two models (0.5: they share one); on an emulated device they take the time of models with
    ``heavier`` times their multiply-adds.
    """
    operators = (
        Operator(name="scan", kind="scan", kernel=Scan(table="pages", columns=("id", "png"))),
        _map("decode", "map", "decode", SHOWN, "scan", pages),
        _model("detect", "Detector", FOUND, "decode", pages, gpus, heavier * DETECTOR_GMACS),
        _map("crop", "flat_map", "crop", CUT, "detect", pages),
        _model("recognise", "Recogniser", READ, "crop", lines, gpus, heavier * RECOGNISER_GMACS),
        Operator(name="write", kind="sink", kernel=Sink(), inputs=("recognise",)),
    )
    return Workload(
        name="cascade",
        kind="inference",
        pipeline=Pipeline(operators),
        dataset=DatasetSpec(
            name="pages", generator="windtunnel.workloads.inference.pages:pages", scale=scale, seed=seed, format=format,
            partitions=partitions, rows=max(1, round(scale * ROWS_AT_SCALE_1)),
        ),
        oracle=Oracle(check="windtunnel.workloads.inference.readers:check_cascade", rtol=1e-3),
        status_column="status",
        description="find, cut out and read the lines of 5,000 pages a scale unit with the two models of PP-OCRv4",
    )  # fmt: skip


def _map(name: str, kind: Kind, function: str, schema: Any, source: str, rows: int) -> Operator:
    kernel = MapBatches(function=f"{_KERNELS}:{function}", schema=schema)
    return Operator(name=name, kind=kind, kernel=kernel, inputs=(source,), batch_rows=rows, language="python")


def _model(name: str, function: str, schema: Any, source: str, rows: int, gpus: float, gmacs: float) -> Operator:
    kernel = MapBatches(function=f"{_KERNELS}:{function}", schema=schema, params=(("gmacs", gmacs),) if gpus else ())
    resources = Resources(cpus=0, gpus=gpus) if gpus else Resources()
    return Operator(
        name=name, kind="map", kernel=kernel, inputs=(source,), batch_rows=rows, state=State(kind="actor"), language="python",
        resources=resources,
    )  # fmt: skip
