"""Columns of spans and samples as numpy arrays and lists, without pyarrow's compute functions.

Those import pandas wherever it is installed, which takes longer than most simulations; arrays made and read from buffers do not.
The module owns how a column becomes an array and how rows are chosen. It knows no metric.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, np.dtype[Any]]
_TYPES = {"int32": np.int32, "int64": np.int64, "double": np.float64}


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of numbers, or of texts where ``kind`` is a dictionary of strings; none of the values is missing."""
    if not pa.types.is_dictionary(kind):
        numbers = np.array(values, dtype=_TYPES[str(kind)])
        return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
    places: dict[str, int] = {}
    codes = column([places.setdefault(text, len(places)) for text in values], kind.index_type)
    encoded = [text.encode() for text in places]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.DictionaryArray.from_arrays(codes, pa.Array.from_buffers(pa.string(), len(encoded), buffers))


def numbers(table: pa.Table, name: str) -> Array:
    """The values of a numeric column in which none is missing."""
    return np.concatenate([_numbers(chunk) for chunk in table[name].chunks] or [np.empty(0)])


def texts(table: pa.Table, name: str) -> list[str]:
    """The values of a column of texts."""
    found: list[str] = table[name].to_pylist()
    return found


def chosen(table: pa.Table, name: str, values: Collection[str]) -> pa.Table:
    """The rows whose text in column ``name`` is one of ``values``."""
    parts = [np.empty(0, dtype=bool)]
    for chunk in table[name].chunks:
        wanted = np.array([text in values for text in chunk.dictionary.to_pylist()], dtype=bool)
        parts.append(wanted[_numbers(chunk.indices)] if len(wanted) else np.zeros(len(chunk), dtype=bool))
    return rows(table, np.concatenate(parts))


def rows(table: pa.Table, mask: Array) -> pa.Table:
    """The rows for which ``mask`` is true."""
    bits = np.packbits(mask, bitorder="little")
    return table.filter(pa.Array.from_buffers(pa.bool_(), len(mask), [None, pa.py_buffer(bits)]))


def _numbers(array: pa.Array) -> Array:
    kind = np.dtype(_TYPES[str(array.type)])
    data = array.buffers()[1]
    if data is None:
        return np.empty(0, dtype=kind)
    return np.frombuffer(data, dtype=kind)[array.offset : array.offset + len(array)]
