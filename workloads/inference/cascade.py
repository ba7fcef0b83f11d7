"""Batch inference in two stages: a detector finds the lines of a page, each is cut out, and a recogniser reads it.

Two models of different batch sizes and memory, and between them rows that become several: what a fixed plan gets wrong.
"""

from __future__ import annotations

from windtunnel.spec.workload import Format, Workload
from windtunnel.workloads.inference.build import dataset, mapped, model, scan, sink, workload
from windtunnel.workloads.inference.reading import CUT, DETECTOR_GMACS, FOUND, READ, RECOGNISER_GMACS, SHOWN

ROWS_AT_SCALE_1 = 5_000
PAGES, LINES = 4, 16  # pages and lines a call, the same for all engines


def cascade(
    *, scale: float = 0.1, partitions: int = 16, seed: int = 7, format: Format = "parquet", pages: int = PAGES, lines: int = LINES,
    gpus: float = 0.0, heavier: float = 1.0,
) -> Workload:  # fmt: skip
    """Read the lines of pages; text and score of each into Parquet files.

    ``gpus`` asks for devices for each of the two models (0.5: they share one); on an emulated device they take the time of models with
    ``heavier`` times their multiply-adds.
    """
    operators = (
        scan("pages", "id", "png"),
        mapped("decode", "reading:decode", SHOWN, "scan", pages),
        model("detect", "reading:Detector", FOUND, "decode", pages, gpus, heavier * DETECTOR_GMACS),
        mapped("crop", "reading:crop", CUT, "detect", pages, kind="flat_map"),
        model("recognise", "reading:Recogniser", READ, "crop", lines, gpus, heavier * RECOGNISER_GMACS),
        sink("recognise"),
    )
    return workload(
        "cascade", operators, dataset("pages", "pages:pages", ROWS_AT_SCALE_1, scale, partitions, seed, format),
        "readers:check_cascade", 1e-3,
        "find, cut out and read the lines of 5,000 pages a scale unit with the two models of PP-OCRv4",
    )  # fmt: skip
