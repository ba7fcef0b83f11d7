"""Kernels of the text workload: bytes to tokens, tokens to embeddings, embeddings to the nearest of a few reference sentences.

A document that is no text stays a row: its ``status`` says why, and later kernels pass it on. Tokens travel as the bytes of int32,
which cross every engine's Arrow door alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.workloads.inference.minilm import FEATURES, model, tokenizer
from windtunnel.workloads.inference.session import Feeds, Session
from windtunnel.workloads.inference.texts import REFERENCES
from windtunnel.workloads.inference.weights import Array

TOKENIZED = (("id", "int64"), ("status", "string"), ("tokens", "binary"))
EMBEDDED = (("id", "int64"), ("status", "string"), ("embedding", "list<float>"))
LOOKED_UP = (*EMBEDDED, ("nearest", "int64"), ("similarity", "double"))
OK, EMPTY, NOT_TEXT = "ok", "empty", "not UTF-8 text"
#: of a layer: 4 d² for attention, 8 d² for the two linear maps, a token; d = 384, 6 layers, 32 tokens of a usual document
GMACS = 12 * FEATURES**2 * 6 * 32 / 1e9
_tokenizer = cache(tokenizer)


def tokenize(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``text`` → ``status`` and ``tokens`` (empty where the status is not ok)."""
    read = [_text(data) for data in batch.column("text").to_pylist()]
    encoded = iter(_tokenizer().encode_batch([text for status, text in read if status == OK]))
    tokens = [np.array(next(encoded).ids, np.int32).tobytes() if status == OK else b"" for status, _ in read]
    columns = [batch.column("id"), pa.array([status for status, _ in read], pa.string()), pa.array(tokens, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in TOKENIZED])


def _text(data: bytes) -> tuple[str, str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return NOT_TEXT, ""
    if "\0" in text:  # UTF-16 of plain English is valid UTF-8 with zeros
        return NOT_TEXT, ""
    return (OK, text) if text.strip() else (EMPTY, "")


class Embedder:
    """Embeddings of tokenized documents; loads all-MiniLM-L6-v2."""

    def __init__(self, threads: int = 1, device: str = "cpu", gmacs: float = GMACS) -> None:
        self._session = Session(
            "minilm", model, ("embedding",), device=device, gmacs=gmacs, threads=threads, input_bytes=_without_padding
        )

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One call of the model for all rows that are ok, padded to the longest; the others get no embedding."""
        tokens = [np.frombuffer(row, np.int32) for row in batch.column("tokens").to_pylist()]
        usable = np.array([len(row) > 0 for row in tokens], dtype=bool)
        features = np.zeros((0, FEATURES), np.float32)
        if usable.any():
            (features,) = self._session.run(padded([row for row in tokens if len(row)]))
        columns = [batch.column("id"), batch.column("status"), embeddings(usable, features)]
        return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in EMBEDDED])


def padded(rows: list[Array]) -> dict[str, Array]:
    """Feeds of the model."""
    width = max(len(row) for row in rows)
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"ids": ids, "mask": mask}


def _without_padding(feeds: Feeds, row: int) -> bytes:
    ids: bytes = feeds["ids"][row][: int(feeds["mask"][row].sum())].tobytes()
    return ids


def embeddings(usable: Array, features: Array) -> pa.ListArray:
    """A list a row, empty for rows that are not usable."""
    ends = np.cumsum(np.where(usable, features.shape[1], 0), dtype=np.int32)
    return pa.ListArray.from_arrays(np.concatenate([np.zeros(1, np.int32), ends]), pa.array(features.reshape(-1)))


class Nearest:
    """The reference sentence nearest to each embedding; loads the index by embedding the references."""

    def __init__(self) -> None:
        self._index = index()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """``nearest`` is a number of `texts.REFERENCES`, -1 without an embedding; ``similarity`` the cosine."""
        column = batch.column("embedding")
        usable = np.asarray(column.value_lengths().fill_null(0)) > 0
        similar = np.asarray(column.flatten(), np.float32).reshape(-1, FEATURES) @ self._index.T
        nearest, similarity = np.full(batch.num_rows, -1, np.int64), np.zeros(batch.num_rows)
        nearest[usable], similarity[usable] = similar.argmax(axis=1), similar.max(axis=1)
        columns = [*batch.columns, pa.array(nearest), pa.array(similarity)]
        return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in LOOKED_UP])


@cache
def index() -> Any:
    """[references, FEATURES]: the embeddings that documents are compared with."""
    encoded = _tokenizer().encode_batch([text for _, text in REFERENCES])
    session = Session("minilm", model, ("embedding",))
    (features,) = session.run(padded([np.array(e.ids, np.int32) for e in encoded]))
    return features
