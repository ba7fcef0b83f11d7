"""Judges of the inference workloads: every row once, with the status and the answer that it has when it is processed alone.

The reference runs the kernels row by row, in one process, at batch size 1. Sums in another order differ in their last bits, so
embeddings are compared by their cosine. What is derived from an embedding (label and score through the model's last layer, the
nearest reference) must follow from it, here in NumPy; where two are as good as tied, either is right. Documents are about known
topics, so that their embeddings are judged by their meaning too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.errors import WrongResult
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference import clips, minilm, texts, vision, words
from windtunnel.workloads.inference.efficientnet import FEATURES, last_layer
from windtunnel.workloads.oracles import cached

TIED = 1e-3  # of a logit
LEAST_RIGHT = 0.9  # of made documents find their own topic


def check_images(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult naming the first photograph that differs; the oracle's ``rtol`` bounds 1 - cosine and scores."""
    check_classified(bound, output, "photograph", _reference)


def check_video(bound: BoundWorkload, output: pa.Table) -> None:
    """The same of every frame of every film."""
    check_classified(bound, output, "frame", _frame_reference)


def check_classified(bound: BoundWorkload, output: pa.Table, what: str, reference: Callable[[BoundWorkload], pa.Table]) -> None:
    """Rows, status and embeddings are the reference's, and label and score follow from the embedding."""
    output, ids, usable, features = _check_rows(bound, output, what, vision.CLASSIFIED, FEATURES, reference)
    _check_head(output, usable, features, ids, _rtol(bound))


def check_documents(bound: BoundWorkload, output: pa.Table) -> None:
    """The same of documents: embeddings, the nearest reference that follows from each, and how many find their own topic."""
    output, ids, usable, features = _check_rows(bound, output, "document", words.LOOKED_UP, minilm.FEATURES, _document_reference)
    references = words.index()
    nearest, similarity = np.asarray(output["nearest"]), np.asarray(output["similarity"])
    _none("document", ids, ~usable & ((nearest != -1) | (similarity != 0.0)), "a nearest reference although it is no text")
    similar = features @ references.T
    chosen = similar[np.arange(len(similar)), np.clip(nearest[usable], 0, len(references) - 1)]
    follows = (nearest[usable] >= 0) & (similar.max(axis=1) - chosen <= _rtol(bound))
    _none("document", ids[usable], ~follows, "a nearest reference that does not follow from its embedding")
    apart = ~np.isclose(similarity[usable], chosen, atol=_rtol(bound))
    _none("document", ids[usable], apart, "a similarity that does not follow from its embedding")
    if bound.workload.dataset.name == "documents":
        _check_topics(bound, ids[usable], nearest[usable])


def _check_topics(bound: BoundWorkload, ids: Any, nearest: Any) -> None:
    """A model with wrong weights or a mangled tokenizer would agree with itself, but not with what the documents are about."""
    seed = bound.workload.dataset.seed
    right = [texts.REFERENCES[n][0] == texts.topic_of(seed, int(i)) for i, n in zip(ids, nearest, strict=True)]
    if right and np.mean(right) < LEAST_RIGHT:
        raise WrongResult(
            f"{np.mean(right):.0%} of the documents are nearest to a reference on their own topic, not {LEAST_RIGHT:.0%}"
        )


def _check_rows(
    bound: BoundWorkload, output: pa.Table, what: str, schema: Any, size: int, reference: Callable[[BoundWorkload], pa.Table]
) -> tuple[pa.Table, Any, Any, Any]:
    """(output by id, ids, usable rows, their embeddings) once rows, status and embeddings are those of the reference."""
    names = [name for name, _ in schema]
    if set(output.column_names) != set(names):
        raise WrongResult(f"the output has columns {', '.join(output.column_names)}, not {', '.join(names)}")
    expected = cached(bound, "reference", f"{what}s one by one, version 1", lambda: reference(bound), of_data=True).sort_by("id")
    output = output.sort_by("id")
    if output.num_rows != expected.num_rows:
        raise WrongResult(f"the output has {output.num_rows} rows, the reference {expected.num_rows}")
    ids = np.asarray(output["id"])
    for name in ("id", "status"):
        _none(what, ids, np.asarray(output[name]) != np.asarray(expected[name]), f"another {name} than the reference")
    usable = np.asarray(output["status"]) == vision.OK
    features, truth = (_features(table, usable, ids, what, size) for table in (output, expected))
    _none(what, ids[usable], 1.0 - _cosine(features, truth) > _rtol(bound), "another embedding than the reference")
    return output, ids, usable, features


def _rtol(bound: BoundWorkload) -> float:
    assert bound.workload.oracle is not None
    return bound.workload.oracle.rtol


def _check_head(output: pa.Table, usable: Any, features: Any, ids: Any, rtol: float) -> None:
    label, score = np.asarray(output["label"]), np.asarray(output["score"])
    empty = (label == -1) & (score == 0.0)
    _none("photograph", ids, ~usable & ~empty, "a label although it could not be decoded")
    weights, bias = last_layer()
    logits = features @ weights.T + bias
    chosen = logits[np.arange(len(logits)), np.clip(label[usable], 0, len(bias) - 1)]
    follows = (label[usable] >= 0) & (logits.max(axis=1) - chosen <= TIED)
    _none("photograph", ids[usable], ~follows, "a label that does not follow from its embedding")
    probability = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    apart = ~np.isclose(score[usable], probability, rtol=10 * rtol)
    _none("photograph", ids[usable], apart, "a score that does not follow from its embedding")


def _none(what: str, ids: Any, wrong: Any, has: str) -> None:
    """Raise for the first row that is wrong."""
    found = np.flatnonzero(wrong)
    if len(found):
        raise WrongResult(f"{what} {ids[found[0]]} has {has}; so have {len(found) - 1} more of {len(ids)}")


def _features(table: pa.Table, usable: Any, ids: Any, what: str, size: int) -> Any:
    """[n, size] of the usable rows, float64."""
    lengths = np.asarray(table["embedding"].combine_chunks().value_lengths().fill_null(0))
    _none(what, ids, lengths != np.where(usable, size, 0), "an embedding of another length")
    return np.asarray(table["embedding"].combine_chunks().flatten(), np.float64).reshape(-1, size)


def _cosine(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def _reference(bound: BoundWorkload) -> pa.Table:
    classify = vision.Classifier()
    batches = [classify(vision.decode(row)) for row in rows_of(bound, "photos")]
    return pa.Table.from_batches(batches).select(["id", "status", "embedding"])


def _frame_reference(bound: BoundWorkload) -> pa.Table:
    classify = vision.Classifier()
    films = (film for row in rows_of(bound, "clips") for film in clips.frames(row))
    batches = [classify(film.slice(i, 1)) for film in films for i in range(film.num_rows)]
    return pa.Table.from_batches(batches).select(["id", "status", "embedding"])


def _document_reference(bound: BoundWorkload) -> pa.Table:
    embed = words.Embedder()
    return pa.Table.from_batches([embed(words.tokenize(row)) for row in rows_of(bound, "documents")])


def rows_of(bound: BoundWorkload, name: str) -> Iterator[pa.RecordBatch]:
    """Every row of a table, a batch each."""
    import pyarrow.dataset as ds

    table = bound.table(name)
    for batch in ds.dataset(list(table.paths), format=table.format).to_batches(batch_size=256):
        yield from (batch.slice(i, 1) for i in range(batch.num_rows))
