"""Kernels and judge of `ingest`: augment decoded photographs, and a training loop that takes them at its own rate.

Everything is arithmetic on whole numbers, so that what the loop consumed can be told to the last pixel: the sum of each row's pixels
goes out with its id. A photograph's augmentation follows from its id, whatever batch it comes in.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.errors import InputError, RunFailed
from windtunnel.spec.devices import is_emulated
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.compare import compare_tables
from windtunnel.workloads.inference.claims import Claim
from windtunnel.workloads.inference.efficientnet import SIDE
from windtunnel.workloads.inference.oracle import rows_of
from windtunnel.workloads.inference.vision import OK, decode
from windtunnel.workloads.inference.weights import Array
from windtunnel.workloads.oracles import cached

CROP = 192  # pixels a side of what the loop sees
AUGMENTED = (("id", "int64"), ("status", "string"), ("pixels", "binary"))
CONSUMED = (("id", "int64"), ("status", "string"), ("sum", "int64"))
_MOST_BRIGHTER = 32  # of 255
_PRIME = 2_654_435_761  # Knuth's multiplier: spreads ids over the choices


def augment(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A window of `CROP` × `CROP`, mirrored or not, brighter or darker, of every row that is ok."""
    found = [
        _augmented(number, pixels) if status == OK else b""
        for number, status, pixels in zip(*(batch.column(name).to_pylist() for name in ("id", "status", "pixels")), strict=True)
    ]
    columns = [batch.column("id"), batch.column("status"), pa.array(found, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in AUGMENTED])


def _augmented(number: int, pixels: bytes) -> bytes:
    chosen = (number + 1) * _PRIME % 2**32
    top, left = chosen % (SIDE - CROP + 1), chosen // 64 % (SIDE - CROP + 1)
    window = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3)[top : top + CROP, left : left + CROP]
    if chosen // 4096 % 2:
        window = window[:, ::-1]
    return _brightness(chosen // 8192 % (2 * _MOST_BRIGHTER + 1) - _MOST_BRIGHTER)[window].tobytes()


def _brightness(by: int) -> Array:
    """What becomes of each of the 256 values."""
    shifted: Array = np.clip(np.arange(256) + by, 0, 255).astype(np.uint8)
    return shifted


class Trainer:
    """A training loop without a model: a step of ``batch_rows`` rows takes ``step_s`` seconds asleep, a shorter one its share.

    On an emulated device it has the device to itself meanwhile. Each row that was consumed goes out with the sum of its pixels.
    """

    def __init__(self, step_s: float, batch_rows: int, device: str = "cpu") -> None:
        if step_s <= 0 or batch_rows < 1:
            raise InputError(f"a training step needs seconds above 0 and at least one row, not {step_s} s and {batch_rows}")
        kind, _, folder = device.partition("@")
        self._row_s = 0.0 if kind == "record" else step_s / batch_rows  # it has no answers that an emulated device must know
        self._claim: Claim | None = None
        if is_emulated(kind):
            self._claim = Claim(Path(folder.partition("|")[0]), 0, "a training loop")
            weakref.finalize(self, self._claim.release)
        elif kind not in ("cpu", "record"):
            raise RunFailed(f"the training loop is emulated: it runs on cpu or on an emulated device, not on {kind}")
        consumed(_no_rows())  # what libraries import at their first call belongs to loading, not to a step

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """One step."""
        with self._claim.turn() if self._claim is not None else contextlib.nullcontext():
            began = time.perf_counter()
            rows = consumed(batch)
            time.sleep(max(0.0, batch.num_rows * self._row_s - (time.perf_counter() - began)))
            took = time.perf_counter() - began
        if self._claim is not None:
            self._claim.add(emulated_device_busy_s=took, emulated_device_calls=1)
        return rows


def _no_rows() -> pa.RecordBatch:
    fields = [("id", pa.int64()), ("status", pa.string()), ("pixels", pa.binary())]
    return pa.RecordBatch.from_pylist([], schema=pa.schema(fields))


def consumed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Each row's id, status and sum of pixels."""
    buffers = (value.as_buffer() for value in batch.column("pixels"))
    sums = [int(np.frombuffer(b, np.uint8).sum(dtype=np.int64)) if b.size else 0 for b in buffers]
    columns = [batch.column("id"), batch.column("status"), pa.array(sums, pa.int64())]
    return pa.RecordBatch.from_arrays(columns, names=[name for name, _ in CONSUMED])


# -- the judge --------------------------------------------------------------------------------------------------------


def check(bound: BoundWorkload, output: pa.Table) -> None:
    """Raise WrongResult unless the loop consumed every photograph once, with the pixels that it has when it is processed alone."""
    expected = cached(bound, "reference", "augmented one by one, version 1", lambda: _reference(bound), of_data=True)
    compare_tables(output, expected)


def _reference(bound: BoundWorkload) -> pa.Table:
    return pa.Table.from_batches([consumed(augment(decode(row))) for row in rows_of(bound, "photos")])
