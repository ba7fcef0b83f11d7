"""Table ``pages``: scans of a few printed lines as PNG files, some of them damaged, each row a function of seed and id alone.

Lines of made-up codes and common words, in the font that comes with Pillow, in random sizes and greys on paper with noise. What is
printed is known, so that what is read can be judged. About `DAMAGED` of the files cannot be decoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.errors import InputError
from windtunnel.spec.workload import DatasetSpec, TableData
from windtunnel.workloads.inference.weights import need
from windtunnel.workloads.storage import cut, even_sizes, materialise, write_table

DAMAGED = 0.02
HEIGHT, WIDTH = 192, 480  # pixels of a page
SCHEMA = pa.schema([("id", pa.int64()), ("png", pa.binary())])
_CHUNK_ROWS = 256
_LINES = (1, 5)
_SIZES = (20, 29)  # pixels of the font
_WORDS = (
    "invoice total amount street garden winter number order paper window signal engine report market harbour bridge orange silver "
    "morning letter customer delivery account journey history science kitchen planet chapter station"
)


def pages(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """``spec.rows`` pages. Raises MissingEngine without Pillow, InputError for formats without binary."""
    if spec.format not in ("parquet", "orc"):
        raise InputError(f"pages are binary, which {spec.format} files cannot hold; use format parquet or orc")
    rows = spec.rows or 0
    if rows < 1:
        raise InputError(f"data set {spec.name!r} needs rows of at least 1, not {spec.rows}")

    def build(scratch: Path) -> tuple[TableData, ...]:
        need("the data set of pages", ("PIL",))
        return (
            write_table(scratch, "pages", spec.format, SCHEMA, cut(_chunks(spec.seed, rows), even_sizes(rows, spec.partitions))),
        )

    return materialise(spec, folder, build)


def _chunks(seed: int, rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, _CHUNK_ROWS):
        ids = range(start, min(start + _CHUNK_ROWS, rows))
        yield pa.table({"id": pa.array(ids, pa.int64()), "png": pa.array([page(seed, i) for i in ids], pa.binary())})


def lines_of(seed: int, number: int) -> list[str]:
    """What is printed on page ``number``, from top to bottom."""
    draw = np.random.default_rng([seed, number, 1])
    return [_line(draw) for _ in range(int(draw.integers(*_LINES)))]


def _line(draw: np.random.Generator) -> str:
    words = [str(w) for w in draw.choice(_WORDS.split(), int(draw.integers(1, 3)))]
    if draw.random() < 0.5:
        words.append(str(draw.integers(1000, 99999)))
    return " ".join(words)


def page(seed: int, number: int) -> bytes:
    """The file of row ``number``."""
    from PIL import Image, ImageDraw

    draw = np.random.default_rng([seed, number])
    paper = Image.new("L", (WIDTH, HEIGHT), int(draw.integers(225, 256)))
    canvas = ImageDraw.Draw(paper)
    top = int(draw.integers(4, 14))
    for text in lines_of(seed, number):
        size = int(draw.integers(*_SIZES))
        canvas.text((int(draw.integers(8, 60)), top), text, fill=int(draw.integers(0, 90)), font=_font(size))
        top += size + int(draw.integers(14, 20))
    noisy = np.asarray(paper, np.int16) + draw.integers(-6, 7, (HEIGHT, WIDTH), np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    data = file.getvalue()
    return (data[: len(data) // 3], b"", b"%PDF-1.7")[int(draw.integers(3))] if draw.random() < DAMAGED else data


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
