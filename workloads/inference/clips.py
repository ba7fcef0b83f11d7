"""Table ``clips``: short films as a series of JPEG frames, some of them damaged, each row a function of seed and id alone.

A film is a window that pans and zooms over one of the photographs of `photos`, with `_FRAMES` frames: a few films are twenty times
as long as the shortest, as in collections. The container is as plain as can be: a magic word, the number of frames, and each frame's
length before its bytes. About `DAMAGED` of the files end early, are empty, or are no film.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.errors import InputError
from windtunnel.spec.workload import DatasetSpec, TableData
from windtunnel.workloads.inference.photos import SOURCES, _source
from windtunnel.workloads.inference.vision import DECODED, EMPTY, OK, TRUNCATED, UNKNOWN, decode_one
from windtunnel.workloads.inference.weights import need
from windtunnel.workloads.storage import cut, even_sizes, materialise, write_table

DAMAGED = 0.02
SCHEMA = pa.schema([("id", pa.int64()), ("clip", pa.binary())])
MOST_FRAMES = 1000  # of a film: a frame's id is the film's times this, plus its number
_MAGIC = b"WTCLIP1\n"
_FRAMES = (4, 80)
_SIDE = 256  # pixels of a frame
_CHUNK_ROWS = 64


def clips(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """``spec.rows`` films. Raises MissingEngine without Pillow or scikit-image, InputError for formats without binary."""
    if spec.format not in ("parquet", "orc"):
        raise InputError(f"films are binary, which {spec.format} files cannot hold; use format parquet or orc")
    rows = spec.rows or 0
    if rows < 1:
        raise InputError(f"data set {spec.name!r} needs rows of at least 1, not {spec.rows}")

    def build(scratch: Path) -> tuple[TableData, ...]:
        need("the data set of films", ("PIL", "skimage"))
        return (
            write_table(scratch, "clips", spec.format, SCHEMA, cut(_chunks(spec.seed, rows), even_sizes(rows, spec.partitions))),
        )

    return materialise(spec, folder, build)


def _chunks(seed: int, rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, _CHUNK_ROWS):
        ids = range(start, min(start + _CHUNK_ROWS, rows))
        yield pa.table({"id": pa.array(ids, pa.int64()), "clip": pa.array([clip(seed, i) for i in ids], pa.binary())})


def clip(seed: int, number: int) -> bytes:
    """The file of row ``number``; the number of frames is spread evenly over its logarithm."""
    draw = np.random.default_rng([seed, number])
    source = _source(SOURCES[int(draw.integers(len(SOURCES)))])
    count = int(np.exp(draw.uniform(np.log(_FRAMES[0]), np.log(_FRAMES[1]))))
    size = min(source.size)
    begin, end = (draw.uniform([0, 0, 0.4], [1, 1, 0.9]) for _ in range(2))  # left, top, zoom
    parts = [_MAGIC, struct.pack("<I", count)]
    for step in np.linspace(0, 1, count):
        x, y, zoom = begin + step * (end - begin)
        side = int(size * zoom)
        left, top = int(x * (source.width - side)), int(y * (source.height - side))
        file = io.BytesIO()
        source.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE)).save(file, "JPEG", quality=85)
        parts += [struct.pack("<I", file.tell()), file.getvalue()]
    data = b"".join(parts)
    return (data[: len(data) // 2], b"", b"<html></html>")[int(draw.integers(3))] if draw.random() < DAMAGED else data


def frames(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A film → a row a decoded frame, film by film; one that is damaged stays one row and says why, whatever it still holds."""
    for number, data in zip(batch.column("id").to_pylist(), batch.column("clip").to_pylist(), strict=True):
        status, files = split(data)
        rows = [decode_one(file) for file in files] if status == OK else [(status, b"")]
        ids = range(number * MOST_FRAMES, number * MOST_FRAMES + len(rows))
        columns = [
            pa.array(ids, pa.int64()),
            pa.array([s for s, _ in rows], pa.string()),
            pa.array([p for _, p in rows], pa.binary()),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=[name for name, _ in DECODED])
    if not batch.num_rows:
        kinds = (pa.int64(), pa.string(), pa.binary())
        yield pa.RecordBatch.from_arrays([pa.array([], k) for k in kinds], names=[name for name, _ in DECODED])


def split(data: bytes) -> tuple[str, list[bytes]]:
    """(status, JPEG files) of a container."""
    if not data:
        return EMPTY, []
    if not data.startswith(_MAGIC):
        return UNKNOWN, []
    at, files = len(_MAGIC) + 4, list[bytes]()
    try:
        (count,) = struct.unpack_from("<I", data, len(_MAGIC))
        for _ in range(count):
            (size,) = struct.unpack_from("<I", data, at)
            files.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    except struct.error:
        return TRUNCATED, []
    return (OK, files) if at <= len(data) and 0 < count <= MOST_FRAMES else (TRUNCATED, [])
