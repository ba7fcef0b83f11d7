"""Delta tables through delta-rs (``deltalake``): a log of numbered JSON files, each made by a put that fails where the file is there.

On a local disk that is a hard link or rename that refuses to replace, on an object store a conditional put. A blind append that meets a
winner checks for conflicts and takes the next number, up to 15 times; an update that read what the winner changed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from windtunnel.engines.stores.api import Conflict, Place


class Delta:
    """A table; each operation opens it anew, as a job would."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        import deltalake
        from deltalake.exceptions import CommitFailedError

        self._delta, self._refused = deltalake, CommitFailedError
        self._uri = f"{place.home}/table"
        self._storage = _storage(place)
        self._properties = deltalake.CommitProperties(max_commit_retries=int(options["commit_retries"]))

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """Version 0."""
        self._delta.write_deltalake(self._uri, tables["table"], storage_options=self._storage)

    def read(self) -> pa.Table:
        """The last version."""
        return self._table().to_pyarrow_table()

    def append(self, rows: pa.Table) -> None:
        """A blind append."""
        self._write(rows, "append")

    def overwrite(self, rows: pa.Table) -> None:
        """Removes all files and adds one, in one commit."""
        self._write(rows, "overwrite")

    def upsert(self, rows: pa.Table) -> None:
        """A merge by key."""
        with self._conflicts():
            merge = self._table().merge(
                rows, "s.key = t.key", source_alias="s", target_alias="t", commit_properties=self._properties
            )
            merge.when_matched_update_all().when_not_matched_insert_all().execute()

    def increment(self, below: int, client: int, number: int) -> None:
        """An update in the engine."""
        changes = {"value": "value + 1", "client": str(client), "number": str(number)}
        with self._conflicts():
            self._table().update(updates=changes, predicate=f"key < {below}", commit_properties=self._properties)

    def delete(self, client: int, number: int) -> None:
        """Rows of a tag."""
        with self._conflicts():
            self._table().delete(f"client = {client} AND number = {number}", commit_properties=self._properties)

    def add_column(self, name: str) -> None:
        """A change of metadata alone."""
        from deltalake.schema import Field, PrimitiveType

        with self._conflicts():
            self._table().alter.add_columns([Field(name, PrimitiveType("long"))], commit_properties=self._properties)

    def compact(self) -> None:
        """Small files into large ones."""
        with self._conflicts():
            self._table().optimize.compact(commit_properties=self._properties)

    def versions(self) -> Sequence[int]:
        """Numbers of the log."""
        return range(self._table().version() + 1)

    def read_version(self, version: int) -> pa.Table:
        """As of a number."""
        return self._delta.DeltaTable(self._uri, version=version, storage_options=self._storage).to_pyarrow_table()

    def size(self) -> tuple[int, int]:
        """Active files."""
        actions = pa.table(self._table().get_add_actions(flatten=True))
        return actions.num_rows, sum(actions["size_bytes"].to_pylist())

    def close(self) -> None:
        """Nothing is open."""

    def _table(self) -> Any:
        return self._delta.DeltaTable(self._uri, storage_options=self._storage)

    def _write(self, rows: pa.Table, mode: str) -> None:
        with self._conflicts():
            self._delta.write_deltalake(
                self._uri, rows, mode=mode, schema_mode="merge", storage_options=self._storage, commit_properties=self._properties,
            )  # fmt: skip

    def _conflicts(self) -> Any:
        return Refusals(self._refused)


class Refusals:
    """A context in which errors of some kinds are conflicts."""

    def __init__(self, *kinds: type[Exception], having: str = "") -> None:
        self._kinds, self._having = kinds, having

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._kinds) and self._having in str(error):
            raise Conflict(str(error)) from error


def _storage(place: Place) -> dict[str, str] | None:
    """What delta-rs needs to know of an S3 store."""
    store = place.store
    if not store:
        return None
    return {
        "AWS_ENDPOINT_URL": store["endpoint"], "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": store["key"],
        "AWS_SECRET_ACCESS_KEY": store["secret"], "AWS_REGION": store["region"], "aws_conditional_put": "etag",
    }  # fmt: skip
