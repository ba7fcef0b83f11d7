"""Kernels of the image workloads: decode photographs, classify them with a model that is loaded once a worker.

A photograph that cannot be decoded stays a row: its ``status`` says why, and later kernels pass it on. Pixels travel as binary of
`SIDE` × `SIDE` × 3 bytes (RGB, row by row), which crosses every engine's Arrow door without a copy on our side.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.workloads.inference.efficientnet import FEATURES, SIDE, model
from windtunnel.workloads.inference.session import Session
from windtunnel.workloads.inference.weights import Array
from windtunnel.workloads.inference.words import embeddings

PIXEL_BYTES = SIDE * SIDE * 3
DECODED = (("id", "int64"), ("status", "string"), ("pixels", "binary"))
CLASSIFIED = (("id", "int64"), ("status", "string"), ("label", "int64"), ("score", "double"), ("embedding", "list<float>"))
GMACS = 0.407  # of EfficientNet-Lite0 (github.com/tensorflow/tpu, efficientnet/lite)
OK, EMPTY, UNKNOWN, TRUNCATED = "ok", "empty", "not an image", "truncated"


def decode(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``jpeg`` → ``status`` and ``pixels`` (RGB, `SIDE` × `SIDE`, bilinear; empty where the status is not ok)."""
    found = [decode_one(file) for file in batch.column("jpeg").to_pylist()]
    return pa.RecordBatch.from_arrays(
        [
            batch.column("id"),
            pa.array([status for status, _ in found], pa.string()),
            pa.array([pixels for _, pixels in found], pa.binary()),
        ],
        names=[name for name, _ in DECODED],
    )


def decode_one(file: bytes) -> tuple[str, bytes]:
    """(status, pixels) of one file."""
    from PIL import Image, UnidentifiedImageError

    if not file:
        return EMPTY, b""
    try:
        with Image.open(io.BytesIO(file), formats=("JPEG",)) as image:
            return OK, image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes()
    except UnidentifiedImageError:
        return UNKNOWN, b""
    except (OSError, SyntaxError, ValueError):  # what Pillow raises when a file ends early or its stream is broken
        return TRUNCATED, b""


class Classifier:
    """Label, score and embedding of decoded photographs; loads EfficientNet-Lite0, on ``threads`` threads of the CPU or on a device."""

    def __init__(self, threads: int = 1, device: str = "cpu", gmacs: float = GMACS) -> None:
        self._session = Session("efficientnet", model, ("logits", "features"), device=device, gmacs=gmacs, threads=threads)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One call of the model for all rows that are ok; the others get label -1, score 0 and no embedding."""
        usable = np.array([status == OK for status in batch.column("status").to_pylist()], dtype=bool)
        label, score = np.full(batch.num_rows, -1, np.int64), np.zeros(batch.num_rows)
        features = np.zeros((0, FEATURES), np.float32)
        if usable.any():
            logits, features = self._session.run({"pixels": _images(batch.column("pixels"), usable)})
            label[usable] = logits.argmax(axis=1)
            score[usable] = _top_probability(logits)
        columns = [batch.column("id"), batch.column("status"), pa.array(label), pa.array(score), embeddings(usable, features)]
        return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in CLASSIFIED])


def _images(pixels: pa.Array, usable: Array) -> Array:
    """[n, SIDE, SIDE, 3] of the usable rows. Rows that are not hold no bytes, so that the others lie side by side."""
    offsets = np.frombuffer(pixels.buffers()[1], np.int32)[pixels.offset : pixels.offset + len(pixels) + 1]
    values = np.frombuffer(pixels.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return values.reshape(int(usable.sum()), SIDE, SIDE, 3)


def _top_probability(logits: Any) -> Any:
    """Softmax of the largest logit of each row."""
    return 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1, dtype=np.float64)
