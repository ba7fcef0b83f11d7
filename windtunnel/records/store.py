"""Results on disk: one immutable JSON file a run plus its raw spans and samples in Parquet. Append-only and atomic.

A folder holds ``runs/<run_id>.json``, ``spans/<run_id>.parquet``, ``samples/<run_id>.parquet`` and ``experiments/<digest>.json``.
The JSON file is written last and its presence is the commit: a kill at any moment loses only the run being written. DuckDB
and pandas open the files directly. The module computes no metric.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from windtunnel.errors import InputError
from windtunnel.records.record import SAMPLE_SCHEMA, SCHEMA_VERSION, SPAN_SCHEMA, RunRecord, Status
from windtunnel.spec.canonical import canonical_json, digest

_TABLES = {"spans": SPAN_SCHEMA, "samples": SAMPLE_SCHEMA}
_KEYS = tuple(f.name for f in fields(RunRecord) if f.name not in _TABLES)


class Store:
    """A results folder; made when something is first written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, record: RunRecord) -> None:
        """Write a run; refused when its id is taken."""
        target = self._run(record.run_id)
        if target.exists():
            raise InputError(f"run {record.run_id!r} is already in {self.root}; results are append-only, use another folder")
        for kind in _TABLES:
            table: pa.Table = getattr(record, kind)
            _atomically(self._table(kind, record.run_id), partial(_write_table, table))
        _atomically(target, lambda path: path.write_text(run_json(record), encoding="utf-8"))

    def write_manifest(self, manifest: dict[str, Any]) -> Path:
        """Keep what an experiment was asked to do; equal manifests share a file."""
        path = self.root / "experiments" / f"{digest(manifest)}.json"
        if not path.exists():
            _atomically(path, lambda p: p.write_text(canonical_json(manifest) + "\n", encoding="utf-8"))
        return path

    # -- reading -----------------------------------------------------------------------------------------------------

    def run_ids(self) -> tuple[str, ...]:
        """Ids of all committed runs, sorted."""
        return tuple(sorted(p.stem for p in (self.root / "runs").glob("*.json")))

    def __contains__(self, run_id: str) -> bool:
        return self._run(run_id).exists()

    def status(self, run_id: str) -> str:
        """How a run ended, without reading its tables."""
        return str(self._document(run_id)["status"])

    def read(self, run_id: str) -> RunRecord:
        """A run with its spans and samples. Raises InputError when absent, corrupt or of another schema."""
        document = self._document(run_id)
        tables = {kind: self._read_table(kind, run_id) for kind in _TABLES}
        return RunRecord(**document, **tables)

    def records(
        self,
        *,
        experiment: str | None = None,
        workload: str | None = None,
        engine: str | None = None,
        warmup: bool | None = None,
        where: Callable[[RunRecord], bool] | None = None,
    ) -> tuple[RunRecord, ...]:
        """Runs that match every given filter, by run id."""
        wanted = {"experiment": experiment, "workload": workload, "engine": engine, "warmup": warmup}
        wanted = {k: v for k, v in wanted.items() if v is not None}
        found = []
        for run_id in self.run_ids():
            document = self._document(run_id)
            if all(document[k] == v for k, v in wanted.items()):
                found.append(self.read(run_id))
        return tuple(r for r in found if where is None or where(r))

    def manifests(self) -> tuple[dict[str, Any], ...]:
        """What each experiment in this folder was asked to do."""
        paths = sorted((self.root / "experiments").glob("*.json"))
        return tuple(_read_json(p) for p in paths)

    # -- files -------------------------------------------------------------------------------------------------------

    def _run(self, run_id: str) -> Path:
        if not run_id or run_id != Path(run_id).name or run_id.startswith("."):
            raise InputError(f"{run_id!r} is not a run id")
        return self.root / "runs" / f"{run_id}.json"

    def _table(self, kind: str, run_id: str) -> Path:
        return self.root / kind / f"{run_id}.parquet"

    def _document(self, run_id: str) -> dict[str, Any]:
        path = self._run(run_id)
        document = _read_json(path)
        if document.get("schema") != SCHEMA_VERSION:
            raise InputError(f"{path} has record schema {document.get('schema')!r}; this version reads schema {SCHEMA_VERSION}")
        if sorted(document) != sorted(_KEYS):
            wrong = sorted(set(document) ^ set(_KEYS))
            raise InputError(f"{path} is not a run record: keys {', '.join(wrong)} are missing or unknown")
        if document["status"] not in get_args(Status) or document["run_id"] != run_id:
            raise InputError(f"{path} is not a run record: its status or run_id is wrong")
        return document

    def _read_table(self, kind: str, run_id: str) -> pa.Table:
        path = self._table(kind, run_id)
        try:
            return pq.read_table(path).cast(_TABLES[kind])
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; the run {run_id!r} is incomplete, remove its JSON file") from error
        except (pa.ArrowException, ValueError, OSError) as error:
            raise InputError(f"{path} cannot be read as Parquet {kind}: {_first_line(error)}") from error


def run_json(record: RunRecord) -> str:
    """Canonical JSON of a record without its tables, one line."""
    return canonical_json({name: getattr(record, name) for name in _KEYS}) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path.stem!r} in {path.parent}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object")
    return document


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, flush to disk, rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as path:
        write(path)
        _sync(path)
        os.rename(path, target)
    _sync(target.parent)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
