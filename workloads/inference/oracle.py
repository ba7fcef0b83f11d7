"""Judge of the image workload: every photograph once, with the status and embedding that it has when classified alone.

The reference runs the kernels row by row, in one process, at batch size 1. Sums in another order differ in their last bits, so
embeddings are compared by their cosine. Label and score must follow from the embedding through the model's last layer, here in
NumPy; where two labels are as good as tied, either is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from windtunnel.workloads.inference import vision
from windtunnel.workloads.inference.efficientnet import FEATURES, last_layer
from windtunnel.workloads.oracles import cached

from windtunnel.errors import WrongResult
from windtunnel.workload import BoundWorkload

TIED = 1e-3  # of a logit


def check_images(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult naming the first photograph that differs; the oracle's ``rtol`` bounds 1 - cosine and scores."""
    oracle = bound.workload.oracle
    assert oracle is not None
    names = [name for name, _ in vision.CLASSIFIED]
    if set(output.column_names) != set(names):
        raise WrongResult(f"the output has columns {', '.join(output.column_names)}, not {', '.join(names)}")
    expected = cached(bound, "reference", "photographs one by one, version 1", lambda: _reference(bound)).sort_by("id")
    output = output.sort_by("id")
    if output.num_rows != expected.num_rows:
        raise WrongResult(f"the output has {output.num_rows} rows, the reference {expected.num_rows}")
    ids = np.asarray(output["id"])
    for name in ("id", "status"):
        _none(ids, np.asarray(output[name]) != np.asarray(expected[name]), f"another {name} than the reference")
    usable = np.asarray(output["status"]) == vision.OK
    features, reference = _features(output, usable, ids), _features(expected, usable, ids)
    _none(ids[usable], 1.0 - _cosine(features, reference) > oracle.rtol, "another embedding than the reference")
    _check_head(output, usable, features, ids, oracle.rtol)


def _check_head(output: pa.Table, usable: Any, features: Any, ids: Any, rtol: float) -> None:
    label, score = np.asarray(output["label"]), np.asarray(output["score"])
    _none(ids, ~usable & ((label != -1) | (score != 0.0)), "a label although it could not be decoded")
    weights, bias = last_layer()
    logits = features @ weights.T + bias
    chosen = logits[np.arange(len(logits)), np.clip(label[usable], 0, len(bias) - 1)]
    _none(
        ids[usable], (label[usable] < 0) | (logits.max(axis=1) - chosen > TIED), "a label that does not follow from its embedding"
    )
    probability = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    _none(ids[usable], ~np.isclose(score[usable], probability, rtol=10 * rtol), "a score that does not follow from its embedding")


def _none(ids: Any, wrong: Any, what: str) -> None:
    """Raise for the first row that is wrong."""
    found = np.flatnonzero(wrong)
    if len(found):
        raise WrongResult(f"photograph {ids[found[0]]} has {what}; so have {len(found) - 1} more of {len(ids)}")


def _features(table: pa.Table, usable: Any, ids: Any) -> Any:
    """[n, FEATURES] of the usable rows, float64."""
    lengths = np.asarray(table["embedding"].combine_chunks().value_lengths().fill_null(0))
    _none(ids, lengths != np.where(usable, FEATURES, 0), "an embedding of another length")
    return np.asarray(table["embedding"].combine_chunks().flatten(), np.float64).reshape(-1, FEATURES)


def _cosine(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def _reference(bound: BoundWorkload) -> pa.Table:
    import pyarrow.dataset as ds

    photos, classify = bound.table("photos"), vision.Classifier()
    source = ds.dataset(list(photos.paths), format=photos.format)
    batches = [
        classify(vision.decode(row))
        for batch in source.to_batches(batch_size=256)
        for row in (batch.slice(i, 1) for i in range(batch.num_rows))
    ]
    return pa.Table.from_batches(batches).select(["id", "status", "embedding"])
