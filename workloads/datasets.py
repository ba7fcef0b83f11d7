"""Generators of the data sets, each ``f(spec, folder) -> tables``: idempotent, atomic, the same rows for the same spec.

* `tpch`: the rows of ``tpchgen-cli``, stored once more as engines can agree on: decimals become float64 (engines differ
  wildly in decimal arithmetic, and the comparison is not about that), integers int64, strings plain UTF-8, dates
  date32, nothing nullable is null. ``lineitem``, ``orders`` and ``customer`` are cut into ``spec.partitions`` files.
* the synthetic ones are made by `windtunnel.workloads.synthetic` in chunks of `CHUNK_ROWS` rows; a chunk has its own
  random stream, so that the rows depend on seed and row count but not on the number of files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from windtunnel.errors import InputError, RunFailed
from windtunnel.spec.workload import DatasetSpec, TableData
from windtunnel.workloads import synthetic
from windtunnel.workloads.storage import ROW_GROUP_ROWS, cut, even_sizes, materialise, write_table
from windtunnel.workloads.synthetic import CHUNK_ROWS

TPCH_LARGE = ("lineitem", "orders", "customer")
TPCH_SMALL = ("supplier", "nation", "region")

Chunk = Callable[[np.random.Generator, int, int], pa.Table]


# -- TPC-H ------------------------------------------------------------------------------------------------------------


def tpch(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Six TPC-H tables at scale factor ``spec.scale``; the generator knows no seed."""
    if spec.format == "json":
        raise InputError("TPC-H tables hold dates and JSON lines have no date type; use format parquet, csv or orc")
    return materialise(spec, folder, lambda scratch: _build_tpch(spec, scratch))


def _build_tpch(spec: DatasetSpec, scratch: Path) -> tuple[TableData, ...]:
    raw = scratch / "raw"
    _tpchgen(spec.scale, raw, TPCH_LARGE, "--parts", str(spec.partitions))
    _tpchgen(spec.scale, raw, TPCH_SMALL)
    tables = tuple(_convert(spec, raw, scratch, name) for name in (*TPCH_LARGE, *TPCH_SMALL))
    shutil.rmtree(raw)
    return tables


def _tpchgen(scale: float, folder: Path, tables: tuple[str, ...], *options: str) -> None:
    command = [
        _tpchgen_program(),
        "parquet",
        "-q",
        "-s",
        f"{scale:.12g}",
        "--output-dir",
        str(folder),
        "-T",
        ",".join(tables),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"tpchgen-cli could not make TPC-H at scale factor {scale:g}: {done.stderr.strip() or 'no message'}")


def _tpchgen_program() -> str:
    beside = Path(sys.executable).with_name("tpchgen-cli")
    program = str(beside) if beside.exists() else shutil.which("tpchgen-cli")
    if program is None:
        raise InputError("TPC-H data are made by tpchgen-cli, not installed here; run: pip install 'tpchgen-cli>=4,<5'")
    return program


def _convert(spec: DatasetSpec, raw: Path, folder: Path, name: str) -> TableData:
    import pyarrow.parquet as pq

    parts = sorted((raw / name).glob("*.parquet"), key=_part_number) if (raw / name).is_dir() else [raw / f"{name}.parquet"]
    schema = pa.schema([(f.name, _plain_type(f.type)) for f in pq.read_schema(parts[0])])
    return write_table(folder, name, spec.format, schema, (_read_plain(path, schema) for path in parts))


def _part_number(path: Path) -> int:
    return int(path.name.split(".")[-2])


def _read_plain(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as source:
        for batch in source.iter_batches(batch_size=ROW_GROUP_ROWS):
            yield pa.Table.from_batches([batch]).cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_integer(kind):
        return pa.int64()
    return kind if pa.types.is_date32(kind) else pa.string()


# -- synthetic --------------------------------------------------------------------------------------------------------


def flights(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``flights``: records as airlines hand them over, some unreadable."""
    return _chunked(spec, folder, "flights", lambda: synthetic.flights)


def logs(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``logs``: one column ``line`` of JSON, legacy and broken log lines."""
    return _chunked(spec, folder, "logs", lambda: synthetic.logs)


def events(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``events``: Zipf-distributed keys with exponent ``spec.skew``, a tenth as many keys as rows."""
    return _chunked(spec, folder, "events", lambda: synthetic.Events(keys=max(1, _rows(spec) // 10), skew=spec.skew))


def records(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``records``: a random integer key and a payload, to be sorted."""
    return _chunked(spec, folder, "records", lambda: synthetic.records)


def clicks(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """Table ``clicks``: clicks of users in order of time, in sessions of about eight."""
    return _chunked(spec, folder, "clicks", lambda: synthetic.Clicks(rows=_rows(spec), skew=spec.skew))


def _rows(spec: DatasetSpec) -> int:
    if spec.rows is None or spec.rows < 1:
        raise InputError(f"data set {spec.name!r} needs rows of at least 1, not {spec.rows}")
    return spec.rows


def _chunked(spec: DatasetSpec, folder: Path, name: str, make: Callable[[], Chunk]) -> tuple[TableData, ...]:
    def build(scratch: Path) -> tuple[TableData, ...]:
        chunks: Any = _chunks(make(), spec.seed, _rows(spec))
        first = next(chunks)
        stream = _prepend(first, chunks)
        parts = cut(stream, even_sizes(_rows(spec), spec.partitions))
        return (write_table(scratch, name, spec.format, first.schema, parts),)

    return materialise(spec, folder, build)


def _chunks(make: Chunk, seed: int, rows: int) -> Iterator[pa.Table]:
    for number, start in enumerate(range(0, rows, CHUNK_ROWS)):
        yield make(np.random.default_rng([seed, number]), min(CHUNK_ROWS, rows - start), number)


def _prepend(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest
