"""Table ``photos``: JPEG files made of real photographs, some of them damaged, each row a function of seed and id alone.

The photographs come with scikit-image (public domain or CC0, sources in its ``data/README.txt``): a cat, coffee, an astronaut, a
rocket, motorcycles. A row is a random crop of one, mirrored or not, scaled and compressed with a random quality, so that files
differ in size and content as a collection's do. About `DAMAGED` of them cannot be decoded: truncated, empty, or no image at all.
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

SOURCES = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png")
DAMAGED = 0.02
SCHEMA = pa.schema([("id", pa.int64()), ("jpeg", pa.binary())])
_CHUNK_ROWS = 256
_LEAST_CROP = 0.5  # of each side of the photograph
_SIDES = (256, 513)  # pixels of the longer side
_QUALITIES = (75, 96)


def photos(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """``spec.rows`` photographs. Raises MissingEngine without Pillow or scikit-image, InputError for formats without binary."""
    checked(spec)

    def build(scratch: Path) -> tuple[TableData, ...]:
        return (write_photos(spec, scratch),)

    return materialise(spec, folder, build)


def checked(spec: DatasetSpec) -> None:
    """Raise InputError where photographs cannot be made so."""
    if spec.format not in ("parquet", "orc"):
        raise InputError(f"photographs are binary, which {spec.format} files cannot hold; use format parquet or orc")
    if (spec.rows or 0) < 1:
        raise InputError(f"data set {spec.name!r} needs rows of at least 1, not {spec.rows}")


def write_photos(spec: DatasetSpec, scratch: Path) -> TableData:
    """The table's files, below ``scratch``."""
    need("the data set of photographs", ("PIL", "skimage"))
    rows = spec.rows or 0
    return write_table(scratch, "photos", spec.format, SCHEMA, cut(_chunks(spec.seed, rows), even_sizes(rows, spec.partitions)))


def _chunks(seed: int, rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, _CHUNK_ROWS):
        ids = range(start, min(start + _CHUNK_ROWS, rows))
        yield pa.table({"id": pa.array(ids, pa.int64()), "jpeg": pa.array([photo(seed, i) for i in ids], pa.binary())})


def photo(seed: int, number: int) -> bytes:
    """The file of row ``number``."""
    from PIL import Image

    draw = np.random.default_rng([seed, number])
    source = _source(SOURCES[int(draw.integers(len(SOURCES)))])
    width, height = (round(side * draw.uniform(_LEAST_CROP, 1.0)) for side in source.size)
    left, top = int(draw.integers(source.width - width + 1)), int(draw.integers(source.height - height + 1))
    image = source.crop((left, top, left + width, top + height))
    if draw.integers(2):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    factor = int(draw.integers(*_SIDES)) / max(width, height)
    image = image.resize((max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(draw.integers(*_QUALITIES)))
    return _damaged(file.getvalue(), draw) if draw.random() < DAMAGED else file.getvalue()


def _damaged(file: bytes, draw: np.random.Generator) -> bytes:
    """What collections hold besides images."""
    return (file[: len(file) // 2], b"", b"<html><body>404 Not Found</body></html>")[int(draw.integers(3))]


@cache
def _source(name: str) -> Any:
    import skimage
    from PIL import Image

    return Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
