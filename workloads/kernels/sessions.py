"""Sessions of users from their clicks, on batches of complete groups; vectorised."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SCHEMA = (
    ("user_id", "int64"), ("session", "int64"), ("start_ms", "int64"), ("duration_ms", "int64"), ("clicks", "int64"),
    ("bytes", "int64"),
)  # fmt: skip


def sessionize(batch: pa.RecordBatch, gap_s: float = 1800.0) -> pa.RecordBatch:
    """One row a session: a user's clicks with never more than ``gap_s`` between neighbours, numbered from 0.

    ``batch`` holds whole users, sorted by ``user_id`` and ``ts_ms``.
    """
    user, ts = batch.column("user_id").to_numpy(), batch.column("ts_ms").to_numpy()
    size = batch.column("bytes").to_numpy()
    new_user = np.concatenate(([True], user[1:] != user[:-1]))[: len(user)]
    begins = np.flatnonzero(new_user | np.concatenate(([True], np.diff(ts) > gap_s * 1000))[: len(user)])
    ends = np.append(begins[1:], len(user)) - 1
    columns = {
        "user_id": user[begins],
        "session": _numbered(new_user[begins]),
        "start_ms": ts[begins],
        "duration_ms": ts[ends] - ts[begins] if len(begins) else ts,
        "clicks": ends - begins + 1 if len(begins) else ts,
        "bytes": np.add.reduceat(size, begins) if len(begins) else size,
    }
    return pa.RecordBatch.from_pydict({name: pa.array(values, pa.int64()) for name, values in columns.items()})


def _numbered(first: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """0, 1, 2 … beginning anew where ``first`` is true."""
    position = np.arange(len(first))
    return position - np.maximum.accumulate(np.where(first, position, 0))
