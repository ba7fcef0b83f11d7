"""Databases with SQL: one set of operations, and for each database how it is reached, filled and told to wait for the disk.

A transfer is one transaction of two updates, at the serializable level, and returns when the disk has it (``durable``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from windtunnel.engines.stores.api import Conflict, Place

SCAN = "SELECT day {divide} 100 AS g, count(*), sum(amount) FROM orders WHERE day BETWEEN {p} AND {p} GROUP BY 1 ORDER BY 1"


class Sql:
    """What the databases share; a subclass opens `connection`."""

    parameter, divide = "?", "/"
    conflicts: tuple[type[Exception], ...] = ()
    connection: Any

    def _fetch(self, statement: str, *values: Any) -> list[Any]:
        return list(self.connection.execute(statement.format(p=self.parameter, divide=self.divide), values).fetchall())

    def _run(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement.format(p=self.parameter), values)

    def point(self, number: int) -> int:
        """The amount of an order, by its key; -1 where there is none."""
        found = self._fetch("SELECT amount FROM orders WHERE id = {p}", number)
        return int(found[0][0]) if found else -1

    def scan(self, first: int, last: int) -> list[Any]:
        """Orders and amounts by hundred days."""
        return self._fetch(SCAN, first, last)

    def audit(self) -> int:
        """Sum of all balances."""
        return int(self._fetch("SELECT sum(balance) FROM accounts")[0][0])

    def read(self) -> list[int]:
        """All balances, by account."""
        return [row[0] for row in self._fetch("SELECT balance FROM accounts ORDER BY id")]

    def transfer(self, source: int, target: int, amount: int) -> None:
        """Move an amount, or change nothing."""
        try:
            self._run(self.begin)
            self._run("UPDATE accounts SET balance = balance - {p} WHERE id = {p}", amount, source)
            self._run("UPDATE accounts SET balance = balance + {p} WHERE id = {p}", amount, target)
            self._run("COMMIT")
        except self.conflicts as error:
            self._roll_back()
            if self._refused(error):
                raise Conflict(str(error)) from error
            raise

    begin = "BEGIN"

    def _refused(self, error: Exception) -> bool:
        return True

    def _roll_back(self) -> None:
        try:
            self._run("ROLLBACK")
        except self.conflicts:  # the failed statement has ended the transaction
            return

    def _lay_out(self, layout: str) -> None:
        """After the rows are there."""
        if layout == "index":
            self._run("CREATE INDEX by_day ON orders (day)")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def laid_out(tables: Mapping[str, pa.Table]) -> tuple[pa.Table, str]:
    """(orders in their order, layout)."""
    orders = tables["orders"]
    layout = (orders.schema.metadata or {}).get(b"layout", b"heap").decode()
    return (orders.sort_by("day") if layout == "sorted" else orders), layout


class Sqlite(Sql):
    """SQLite in write-ahead mode; writers wait for each other up to a second, then are refused."""

    begin = "BEGIN IMMEDIATE"
    conflicts = (sqlite3.OperationalError,)

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        Path(place.home).mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(Path(place.home) / "data.db", isolation_level=None, timeout=1.0)
        self._run("PRAGMA journal_mode = WAL")
        self._run(f"PRAGMA synchronous = {'FULL' if options['durable'] else 'OFF'}")

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """Rows go in by key; sorted: the table is clustered by day."""
        orders, layout = laid_out(tables)
        columns = "id INTEGER PRIMARY KEY, customer INTEGER, day INTEGER, amount INTEGER)"
        if layout == "sorted":
            columns = "id INTEGER UNIQUE, customer INTEGER, day INTEGER, amount INTEGER, PRIMARY KEY (day, id)) WITHOUT ROWID"
        self._run(f"CREATE TABLE orders ({columns}")
        self._run("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
        for name, table in (("orders", orders), ("accounts", tables["accounts"])):
            marks = ", ".join("?" * table.num_columns)
            self._run("BEGIN")
            self.connection.executemany(
                f"INSERT INTO {name} VALUES ({marks})", zip(*(c.to_pylist() for c in table.columns), strict=True)
            )
            self._run("COMMIT")
        self._lay_out(layout)

    def _refused(self, error: Exception) -> bool:
        return "locked" in str(error) or "busy" in str(error)


class DuckDBFile(Sql):
    """A DuckDB file. One process at a time may have it open for writing: it is for one client."""

    divide = "//"

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        import duckdb

        self.conflicts = (duckdb.Error,)
        Path(place.home).mkdir(parents=True, exist_ok=True)
        self.connection = duckdb.connect(str(Path(place.home) / "data.duckdb"), config={"threads": str(options["threads"])})

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """A key on both tables, as the others have it; sorted: rows lie in order of days."""
        orders, layout = laid_out(tables)
        for name, table in (("orders", orders), ("accounts", tables["accounts"])):
            columns = ", ".join(f"{c} BIGINT{' PRIMARY KEY' if c == 'id' else ''}" for c in table.column_names)
            self._run(f"CREATE TABLE {name} ({columns})")
            self.connection.register("given", table)
            self._run(f"INSERT INTO {name} FROM given")
            self.connection.unregister("given")
        self._lay_out(layout)
        self._run("CHECKPOINT")

    def _refused(self, error: Exception) -> bool:
        return "onflict" in str(error)


class PostgreSQL(Sql):
    """A connection to the run's own server."""

    parameter = "%s"
    begin = "BEGIN ISOLATION LEVEL SERIALIZABLE"

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        import psycopg

        self.conflicts = (psycopg.Error,)
        self._retried = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
        server = place.server
        self.connection = psycopg.connect(
            host="127.0.0.1", port=server["port"], user=server["user"], dbname=server["database"], autocommit=True
        )
        self._space = f"{place.name}_{place.folder.name.replace('-', '_')}"
        self._run(f"CREATE SCHEMA IF NOT EXISTS {self._space}")
        self._run(f"SET search_path = {self._space}")

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """Copied in; sorted: clustered by an index on the day."""
        orders, layout = laid_out(tables)
        for name, table in (("orders", orders), ("accounts", tables["accounts"])):
            columns = ", ".join(f"{c} BIGINT{' PRIMARY KEY' if c == 'id' else ''}" for c in table.column_names)
            self._run(f"CREATE TABLE {name} ({columns})")
            with self.connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                for batch in table.to_batches(max_chunksize=50_000):
                    copy.write(
                        "".join(
                            "\t".join(map(str, row)) + "\n" for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
                        )
                    )
        self._lay_out("index" if layout == "sorted" else layout)
        if layout == "sorted":
            self._run("CLUSTER orders USING by_day")
        self._run("VACUUM ANALYZE orders")
        self._run("CHECKPOINT")

    def _refused(self, error: Exception) -> bool:
        return isinstance(error, self._retried)
