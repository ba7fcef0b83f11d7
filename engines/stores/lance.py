"""Lance tables: numbered manifests, each put only where it is not there yet, with retries that merge what does not conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from windtunnel.engines.stores.api import Place
from windtunnel.engines.stores.delta import Refusals

_CONFLICT = "conflict"


class Lance:
    """A table; each operation opens it anew, as a job would."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        import lance

        self._lance = lance
        self._uri = f"{place.home}/table.lance"
        self._storage = _storage(place)

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """Version 1."""
        self._lance.write_dataset(tables["table"], self._uri, storage_options=self._storage)

    def read(self) -> pa.Table:
        """The last version."""
        return self._table().to_table()

    def append(self, rows: pa.Table) -> None:
        """A blind append; columns that rows lack are null."""
        self._write(rows, "append")

    def overwrite(self, rows: pa.Table) -> None:
        """A version with these rows alone."""
        self._write(rows, "overwrite")

    def upsert(self, rows: pa.Table) -> None:
        """A merge by key."""
        with Refusals(OSError, having=_CONFLICT):
            merge = self._table().merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(rows)

    def increment(self, below: int, client: int, number: int) -> None:
        """An update in the engine."""
        with Refusals(OSError, having=_CONFLICT):
            changes = {"value": "value + 1", "client": str(client), "number": str(number)}
            self._table().update(changes, where=f"key < {below}")

    def delete(self, client: int, number: int) -> None:
        """Rows of a tag."""
        with Refusals(OSError, having=_CONFLICT):
            self._table().delete(f"client = {client} AND number = {number}")

    def add_column(self, name: str) -> None:
        """A column of nulls: a change of the schema alone."""
        with Refusals(OSError, having=_CONFLICT):
            self._table().add_columns(pa.schema([(name, pa.int64())]))

    def compact(self) -> None:
        """Small fragments into large ones."""
        with Refusals(OSError, having=_CONFLICT):
            self._table().optimize.compact_files()

    def versions(self) -> Sequence[int]:
        """Numbers of the manifests."""
        return [v["version"] for v in self._table().versions()]

    def read_version(self, version: int) -> pa.Table:
        """As of a number."""
        return self._lance.dataset(self._uri, version=version, storage_options=self._storage).to_table()

    def size(self) -> tuple[int, int]:
        """Data files of the present version, deletion files left out."""
        files = [f for fragment in self._table().get_fragments() for f in fragment.data_files()]
        return len(files), sum(f.file_size_bytes or 0 for f in files)

    def close(self) -> None:
        """Nothing is open."""

    def _table(self) -> Any:
        return self._lance.dataset(self._uri, storage_options=self._storage)

    def _write(self, rows: pa.Table, mode: str) -> None:
        with Refusals(OSError, having=_CONFLICT):
            self._lance.write_dataset(rows, self._uri, mode=mode, storage_options=self._storage)


def _storage(place: Place) -> dict[str, str] | None:
    store = place.store
    if not store:
        return None
    return {
        "aws_endpoint": store["endpoint"], "allow_http": "true", "aws_access_key_id": store["key"],
        "aws_secret_access_key": store["secret"], "aws_region": store["region"],
    }  # fmt: skip
