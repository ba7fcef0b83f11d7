"""Results on disk: one immutable JSON file a run plus its raw spans and samples in Parquet. Append-only and atomic.

A folder holds ``runs/<run_id>.json``, ``spans/<run_id>.parquet``, ``samples/<run_id>.parquet`` and ``experiments/<digest>.json``.
The JSON file is written last and its presence is the commit: a kill at any moment loses only the run being written. DuckDB
and pandas open the files directly. What is read is checked (`checking`): a record that breaks a rule raises `BadRecord`, or is left
aside by name (`Store.look`). The module computes no metric.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from windtunnel.errors import BadRecord, InputError
from windtunnel.records.checking import json_object, read_file, run_object
from windtunnel.records.checking_tables import checked_table
from windtunnel.records.record import SAMPLE_SCHEMA, SPAN_SCHEMA, RunRecord
from windtunnel.spec.canonical import canonical_json, digest

_TABLES = {"spans": SPAN_SCHEMA, "samples": SAMPLE_SCHEMA}
_KEYS = tuple(f.name for f in fields(RunRecord) if f.name not in _TABLES)


@dataclass(frozen=True, slots=True)
class LeftAside:
    """A file that holds no record, and the sentence that says why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a results folder holds: good records by run id, and files that were left aside."""

    records: tuple[RunRecord, ...]
    left_aside: tuple[LeftAside, ...]


class Store:
    """A results folder; made when something is first written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, record: RunRecord) -> None:
        """Write a run; refused when its id is taken, by another process at the same moment too, and when reading would refuse it."""
        target = self._run(record.run_id)
        if target.exists():
            raise self._taken(record.run_id)
        data = run_json(record).encode()
        run_object(data, target)
        for kind in _TABLES:  # of a run that was never committed they may be there already
            table: pa.Table = getattr(record, kind)
            _atomically(self._table(kind, record.run_id), partial(_write_table, table), os.replace)
        try:
            _atomically(target, lambda path: path.write_bytes(data), _publish)
        except FileExistsError:
            raise self._taken(record.run_id) from None

    def _taken(self, run_id: str) -> InputError:
        return InputError(f"run {run_id!r} is already in {self.root}; results are append-only, use another folder")

    def write_manifest(self, manifest: dict[str, Any]) -> Path:
        """Keep what an experiment was asked to do; equal manifests share a file."""
        path = self.root / "experiments" / f"{digest(manifest)}.json"
        if not path.exists():
            _atomically(path, lambda p: p.write_text(canonical_json(manifest) + "\n", encoding="utf-8"), os.replace)
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

    def read(self, run_id: str, *, tables: bool = True) -> RunRecord:
        """A run with its spans and samples, or with empty ones. Raises InputError when absent and BadRecord when it breaks a rule."""
        document = self._document(run_id)
        return RunRecord(**document, **({kind: self._read_table(kind, run_id) for kind in _TABLES} if tables else {}))

    def look(self, *, tables: bool = True) -> Found:
        """All runs, by id; files that hold no record are left aside, never passed over in silence.

        Without ``tables`` only the JSON files are read; a run whose tables are missing is left aside all the same.
        """
        records: list[RunRecord] = []
        aside: list[LeftAside] = []
        there = {kind: set(_names(self.root / kind)) for kind in _TABLES}
        for run_id in self.run_ids():
            try:
                record = self.read(run_id, tables=tables)
                for kind, names in there.items():
                    if f"{run_id}.parquet" not in names:
                        raise self._missing(kind, run_id)
                records.append(record)
            except InputError as error:
                aside.append(LeftAside(self.root / "runs" / f"{run_id}.json", str(error)))
        return Found(tuple(records), tuple(aside))

    def records(
        self,
        *,
        experiment: str | None = None,
        workload: str | None = None,
        engine: str | None = None,
        warmup: bool | None = None,
        where: Callable[[RunRecord], bool] | None = None,
    ) -> tuple[RunRecord, ...]:
        """Runs that match every given filter, by run id.

        Raises InputError where there is no results folder, and BadRecord where a file in it holds no record: `look` leaves those aside.
        """
        if not (self.root / "runs").is_dir():
            raise InputError(no_results(self.root))
        wanted = {"experiment": experiment, "workload": workload, "engine": engine, "warmup": warmup}
        found = [self.read(i) for i in self.run_ids() if _matches(self._document(i), wanted)]
        return tuple(r for r in found if where is None or where(r))

    def manifests(self) -> tuple[dict[str, Any], ...]:
        """What each experiment in this folder was asked to do."""
        paths = sorted((self.root / "experiments").glob("*.json"))
        return tuple(_read_manifest(p) for p in paths)

    # -- files -------------------------------------------------------------------------------------------------------

    def _run(self, run_id: str) -> Path:
        if not run_id or run_id != Path(run_id).name or run_id.startswith("."):
            raise InputError(f"{run_id!r} is not a run id")
        return self.root / "runs" / f"{run_id}.json"

    def _table(self, kind: str, run_id: str) -> Path:
        return self.root / kind / f"{run_id}.parquet"

    def _document(self, run_id: str) -> dict[str, Any]:
        path = self._run(run_id)
        try:
            return run_object(read_file(path), path)
        except FileNotFoundError as error:
            raise InputError(f"there is no {run_id!r} in {path.parent}") from error
        except ValueError as error:
            raise BadRecord(f"{path} is no run record: {error}") from error
        except OSError as error:
            raise BadRecord(f"{path} cannot be read: {error.strerror or error}") from error

    def _read_table(self, kind: str, run_id: str) -> pa.Table:
        path = self._table(kind, run_id)
        try:
            return checked_table(path, _TABLES[kind])
        except FileNotFoundError as error:
            raise self._missing(kind, run_id) from error
        except (pa.ArrowException, ValueError, OSError) as error:
            raise BadRecord(f"{path} cannot be read as Parquet {kind}: {_first_line(error)}") from error

    def _missing(self, kind: str, run_id: str) -> BadRecord:
        return BadRecord(f"{self._table(kind, run_id)} is missing; the run {run_id!r} is incomplete, remove its JSON file")


def no_results(folder: Path) -> str:
    """The sentence for a folder without runs."""
    what = "there are no records in" if folder.is_dir() else "there is no results folder"
    return f"{what} {str(folder)!r}; a results folder holds runs/*.json, made by `windtunnel run` or `windtunnel simulate`"


def _matches(document: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(document[key] == value for key, value in wanted.items() if value is not None)


def _names(folder: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from os.listdir(folder)


def run_json(record: RunRecord) -> str:
    """Canonical JSON of a record without its tables, one line. Raises BadRecord for a number that is none."""
    try:
        return canonical_json({name: getattr(record, name) for name in _KEYS}) + "\n"
    except ValueError as error:
        raise BadRecord(f"run {record.run_id!r} is no record: a number in it is not finite") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        return json_object(read_file(path))
    except (OSError, ValueError) as error:
        raise BadRecord(f"{path} cannot be read as what an experiment was asked: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _atomically(target: Path, write: Callable[[Path], object], publish: Callable[[Path, Path], object]) -> None:
    """Write beside the target, so on the same mount; flush to disk; then the target is there, whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as path:
        write(path)
        _sync(path)
        publish(path, target)
    _sync(target.parent)


def _publish(path: Path, target: Path) -> None:
    """Like a rename that never replaces. Raises FileExistsError."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: there the lock of the folder alone keeps two writers apart
        if target.exists():
            raise FileExistsError(str(target)) from None
        os.rename(path, target)


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
