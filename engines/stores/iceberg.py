"""Iceberg tables through PyIceberg: metadata files, and a catalogue in an SQL database that swaps the pointer to the last one.

The swap is an ``UPDATE … WHERE metadata_location = <the one that was read>``: optimistic, with PyIceberg's own retries (4, after 100 ms,
doubled each time with up to a tenth more). A retry checks whether what the operation read has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.stores.api import Conflict, Place
from windtunnel.engines.stores.files import incremented

_KEPT = "100000"  # metadata files that a table remembers: all, for the witness


class Iceberg:
    """A table; each operation loads it anew, as a job would."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        self._retries = str(options["commit_retries"])
        if place.server:
            uri = f"postgresql+psycopg://{place.server['user']}@127.0.0.1:{place.server['port']}/{place.server['database']}"
        else:
            uri = f"sqlite:///{place.folder / 'catalogue.db'}"
        self._name = f"{place.name}.t"
        self._catalogue = SqlCatalog("wt", uri=uri, warehouse=_warehouse(place), **_store(place))
        self._space = place.name

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """A namespace with the table; the rows are its first commit."""
        self._catalogue.create_namespace_if_not_exists(self._space)
        if self._catalogue.table_exists(self._name):
            self._catalogue.drop_table(self._name)
        rows = tables["table"]
        kept = {"write.metadata.previous-versions-max": _KEPT, "commit.retry.num-retries": self._retries}
        self._catalogue.create_table(self._name, schema=rows.schema, properties=kept).append(rows)

    def read(self) -> pa.Table:
        """The current snapshot."""
        return self._table().scan().to_arrow()

    def append(self, rows: pa.Table) -> None:
        """A fast append."""
        with _Refused():
            self._table().append(rows)

    def overwrite(self, rows: pa.Table) -> None:
        """A delete of all and an append, in one commit."""
        with _Refused():
            self._table().overwrite(rows)

    def upsert(self, rows: pa.Table) -> None:
        """PyIceberg's own: it reads the rows that match, and overwrites those that differ."""
        with _Refused():
            self._table().upsert(rows, join_cols=["key"])

    def increment(self, below: int, client: int, number: int) -> None:
        """Read the rows, change them, overwrite them where the key is below: what a program does."""
        from pyiceberg.expressions import LessThan

        with _Refused():
            table = self._table()
            rows = table.scan(row_filter=LessThan("key", below)).to_arrow()
            table.overwrite(incremented(rows, below, client, number), overwrite_filter=LessThan("key", below))

    def delete(self, client: int, number: int) -> None:
        """Copy on write."""
        from pyiceberg.expressions import And, EqualTo

        with _Refused():
            self._table().delete(And(EqualTo("client", client), EqualTo("number", number)))

    def add_column(self, name: str) -> None:
        """A change of the schema alone."""
        from pyiceberg.types import LongType

        with _Refused(), self._table().update_schema() as update:
            update.add_column(name, LongType())

    def compact(self) -> None:
        """All rows into new files: PyIceberg has no compaction of its own, and this is what its users write."""
        with _Refused():
            table = self._table()
            table.overwrite(table.scan().to_arrow())

    def versions(self) -> Sequence[str]:
        """Metadata files from the first snapshot on, in their order."""
        table = self._table()
        return [*(entry.metadata_file for entry in table.metadata.metadata_log), table.metadata_location][1:]

    def read_version(self, version: str) -> pa.Table:
        """As a metadata file has it."""
        from pyiceberg.table import StaticTable

        return StaticTable.from_metadata(version, self._catalogue.properties).scan().to_arrow()

    def size(self) -> tuple[int, int]:
        """Data files of the current snapshot."""
        files = self._table().inspect.files()
        return files.num_rows, sum(files["file_size_in_bytes"].to_pylist())

    def close(self) -> None:
        """Let go of the database."""
        self._catalogue.close()

    def _table(self) -> Any:
        return self._catalogue.load_table(self._name)


class _Refused:
    """A context in which what the catalogue or a validation refuses is a conflict; so is a catalogue that stays locked."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        if isinstance(error, (CommitFailedException, ValidationException)) or "database is locked" in str(error):
            raise Conflict(str(error)) from error


def _warehouse(place: Place) -> str:
    if place.store:
        return place.home
    Path(place.home).mkdir(parents=True, exist_ok=True)
    return f"file://{place.home}"


def _store(place: Place) -> dict[str, str]:
    if not place.store:
        return {}
    store = place.store
    return {
        "s3.endpoint": store["endpoint"], "s3.access-key-id": store["key"], "s3.secret-access-key": store["secret"],
        "s3.region": store["region"],
    }  # fmt: skip
