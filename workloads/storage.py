"""Tables on disk: four file formats, cut into parts, made once and published atomically.

A data set is built in a temporary folder beside its place, gets a manifest ``_done.json`` and is renamed: a folder with
a manifest is complete, whoever was killed meanwhile. The module knows formats and files, not what the rows mean.

* Parquet: Snappy, row groups of `ROW_GROUP_ROWS`, of wide rows (photographs) about `ROW_GROUP_BYTES`: who reads holds a few whole
  ones. ORC: Snappy.
* CSV: a header, comma, strings quoted with ``"`` and a quote doubled inside (never a backslash escape). No nulls: "NA"
  is a string, and so is "0515".
* JSON: one object a line. It has no date type, so tables with dates are not offered in it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from windtunnel.errors import InputError
from windtunnel.spec.canonical import to_plain
from windtunnel.spec.workload import DatasetSpec, Format, TableData

ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 16 * 2**20
MANIFEST = "_done.json"


class _Writer(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _JsonWriter:
    """Pyarrow reads JSON lines but does not write them; Polars does."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, table: pa.Table) -> None:
        import polars as pl

        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame.write_ndjson(self._file)

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, schema, compression="snappy")

    def write(self, table: pa.Table) -> None:
        fit = ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes)
        self._writer.write_table(table, row_group_size=max(1, min(ROW_GROUP_ROWS, fit)))

    def close(self) -> None:
        self._writer.close()


def _open(path: Path, format: Format, schema: pa.Schema) -> _Writer:
    writer: _Writer
    if format == "parquet":
        return _ParquetWriter(path, schema)
    if format == "json":
        return _JsonWriter(path)
    if format == "csv":
        from pyarrow import csv

        writer = csv.CSVWriter(path, schema)
        return writer
    if format == "orc":
        from pyarrow import orc

        writer = orc.ORCWriter(str(path), compression="snappy")
        return writer
    raise InputError(f"tables cannot be stored as {format!r}; use parquet, csv, json or orc")


def write_table(folder: Path, name: str, format: Format, schema: pa.Schema, parts: Iterable[Iterable[pa.Table]]) -> TableData:
    """Write each part to a file ``folder/name/part-00000.format``. Paths in the result are relative to ``folder``."""
    (folder / name).mkdir(parents=True)
    paths, rows = list[str](), 0
    for number, part in enumerate(parts):
        path = Path(name) / f"part-{number:05d}.{format}"
        rows += _write_file(folder / path, format, schema, part)
        paths.append(path.as_posix())
    size = sum((folder / p).stat().st_size for p in paths)
    fields = tuple((f.name, str(f.type)) for f in schema)
    return TableData(name=name, format=format, paths=tuple(paths), rows=rows, bytes=size, schema=fields)


def _write_file(path: Path, format: Format, schema: pa.Schema, part: Iterable[pa.Table]) -> int:
    writer, rows = _open(path, format, schema), 0
    try:
        for table in part:
            writer.write(table)
            rows += table.num_rows
        if format == "orc" and not rows:
            writer.write(schema.empty_table())  # without a write an ORC file has no schema
    finally:
        writer.close()
    return rows


def cut(chunks: Iterator[pa.Table], sizes: Iterable[int]) -> Iterator[Iterator[pa.Table]]:
    """One stream of tables as consecutive parts of ``sizes`` rows; take each part to its end before the next."""
    held: list[pa.Table] = []
    for size in sizes:
        yield _take(chunks, held, size)


def _take(chunks: Iterator[pa.Table], held: list[pa.Table], size: int) -> Iterator[pa.Table]:
    while size:
        table = held.pop() if held else next(chunks)
        if table.num_rows > size:
            held.append(table.slice(size))
            table = table.slice(0, size)
        size -= table.num_rows
        yield table


def even_sizes(rows: int, parts: int) -> tuple[int, ...]:
    """``rows`` in at most ``parts`` non-empty parts that differ by one row at most."""
    count = max(1, min(rows, parts))
    return tuple(rows // count + (i < rows % count) for i in range(count))


# -- publishing -------------------------------------------------------------------------------------------------------


def materialise(spec: DatasetSpec, folder: Path, build: Callable[[Path], tuple[TableData, ...]]) -> tuple[TableData, ...]:
    """The tables in ``folder``, built by ``build(temporary folder)`` unless they are complete there already."""
    folder = folder.resolve()
    if not (folder / MANIFEST).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write_manifest(spec, scratch, build(scratch))
            _publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return read_manifest(folder)


def _write_manifest(spec: DatasetSpec, folder: Path, tables: tuple[TableData, ...]) -> None:
    document = {"schema": 1, "dataset": to_plain(spec), "tables": [asdict(t) for t in tables]}
    (folder / MANIFEST).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _publish(scratch: Path, folder: Path) -> None:
    scratch.chmod(0o755)
    try:
        os.rename(scratch, folder)
    except OSError as error:
        if not (folder / MANIFEST).exists():  # else another process was faster, with the same rows
            raise InputError(f"{folder} exists but holds no finished data set; remove it and try again") from error


def read_manifest(folder: Path) -> tuple[TableData, ...]:
    """Tables of a finished data set, with absolute paths."""
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return tuple(_absolute(folder, _table(plain)) for plain in document["tables"])


def _table(plain: dict[str, Any]) -> TableData:
    tuples = {"paths": tuple(plain["paths"]), "schema": tuple((n, t) for n, t in plain["schema"])}
    return TableData(**{**plain, **tuples, "partition_rows": tuple(plain["partition_rows"])})


def _absolute(folder: Path, table: TableData) -> TableData:
    return replace(table, paths=tuple(str(folder / p) for p in table.paths))
