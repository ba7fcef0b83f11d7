"""DuckLake: Parquet files, and all metadata in an SQL database (SQLite or PostgreSQL), whose transactions order the commits.

It needs DuckDB with extensions that come as wheels for one version of it, so that it lives in an interpreter of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.stores.api import Conflict, Place

EXTENSIONS = {"sqlite": "sqlite_scanner", "postgresql": "postgres_scanner"}


class DuckLake:
    """A connection with the lake attached."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        import duckdb

        self._error = duckdb.Error
        self._connection = duckdb.connect(config={"allow_unsigned_extensions": "true", "threads": "1"})
        for name in (EXTENSIONS[options["catalogue"]], "ducklake"):  # the catalogue's scanner first
            self._connection.execute(f"LOAD '{extension(name)}'")
        (data := Path(place.home)).mkdir(parents=True, exist_ok=True)
        if place.server:
            where = f"postgres:host=127.0.0.1 port={place.server['port']} user={place.server['user']} dbname={place.server['database']}"
        else:
            where = f"sqlite:{place.folder / place.name}.sqlite"
        more = f", METADATA_SCHEMA '{place.name}'" if place.server else ""
        self._run(f"ATTACH 'ducklake:{where}' AS lake (DATA_PATH '{data}/', DATA_INLINING_ROW_LIMIT 0{more})")
        self._run(f"SET ducklake_max_retry_count = {int(options['commit_retries'])}")
        self._run("USE lake")

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """The table with its rows."""
        self._with_rows(tables["table"], "CREATE TABLE t AS FROM given")

    def read(self) -> pa.Table:
        """The last snapshot."""
        return self._connection.execute("FROM t").to_arrow_table()

    def append(self, rows: pa.Table) -> None:
        """An insert; columns that rows lack are null."""
        self._with_rows(rows, "INSERT INTO t BY NAME FROM given")

    def overwrite(self, rows: pa.Table) -> None:
        """Delete and insert in a transaction."""
        self._with_rows(rows, "DELETE FROM t", "INSERT INTO t BY NAME FROM given")

    def upsert(self, rows: pa.Table) -> None:
        """A merge by key."""
        self._with_rows(
            rows,
            "MERGE INTO t USING given ON t.key = given.key WHEN MATCHED THEN UPDATE SET value = given.value, client = given.client, "
            "number = given.number WHEN NOT MATCHED THEN INSERT BY NAME",
        )

    def increment(self, below: int, client: int, number: int) -> None:
        """An update in the engine."""
        self._transaction(f"UPDATE t SET value = value + 1, client = {client}, number = {number} WHERE key < {below}")

    def delete(self, client: int, number: int) -> None:
        """Rows of a tag."""
        self._transaction(f"DELETE FROM t WHERE client = {client} AND number = {number}")

    def add_column(self, name: str) -> None:
        """A change of metadata alone."""
        self._transaction(f"ALTER TABLE t ADD COLUMN {name} BIGINT")

    def compact(self) -> None:
        """Adjacent small files into one."""
        self._transaction("CALL ducklake_merge_adjacent_files('lake')", begin=False)

    def versions(self) -> Sequence[int]:
        """Snapshots since the table was made."""
        made = "SELECT min(begin_snapshot) FROM __ducklake_metadata_lake.ducklake_table WHERE table_name = 't'"
        found = self._connection.execute(
            f"SELECT snapshot_id FROM lake.snapshots() WHERE snapshot_id >= ({made}) ORDER BY 1"
        ).fetchall()
        return [int(row[0]) for row in found]

    def read_version(self, version: int) -> pa.Table:
        """As of a snapshot."""
        return self._connection.execute(f"FROM t AT (VERSION => {version})").to_arrow_table()

    def size(self) -> tuple[int, int]:
        """Data files of the last snapshot."""
        found = self._connection.execute(
            "SELECT count(*), coalesce(sum(data_file_size_bytes), 0) FROM ducklake_list_files('lake', 't')"
        )
        files, size = found.fetchone() or (0, 0)
        return int(files), int(size)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _with_rows(self, rows: pa.Table, *statements: str) -> None:
        self._connection.register("given", rows)
        try:
            self._transaction(*statements)
        finally:
            self._connection.unregister("given")

    def _transaction(self, *statements: str, begin: bool = True) -> None:
        try:
            for statement in ("BEGIN", *statements, "COMMIT") if begin else statements:
                self._connection.execute(statement)
        except self._error as error:
            try:
                self._connection.execute("ROLLBACK")
            except self._error:  # the transaction ended with its failed commit
                pass
            if any(word in str(error) for word in ("conflict", "Conflict", "database is locked", "another transaction")):
                raise Conflict(str(error)) from error
            raise

    def _run(self, statement: str) -> None:
        self._connection.execute(statement)


def extension(name: str) -> Path:
    """The file of a DuckDB extension that came as a wheel."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        for path in Path(folder).rglob(f"{name}.duckdb_extension"):
            return path
    raise FileNotFoundError(
        f"DuckDB's extension {name!r} is not installed; pip install duckdb-extension-{name.replace('_', '-')}"
    )
