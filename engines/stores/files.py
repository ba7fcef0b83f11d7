"""A table as a folder of Parquet files, as a lake without a table format has it. Each file appears whole or not at all; commits do not.

A commit of several files is several renames, an overwrite deletes what it has listed and then writes (as Spark's static overwrite and
``delete_matching`` of Arrow's data sets do), and a change of rows reads a file, then puts another in its place. ``layout = "one_file"`` is
a single file that is read, changed and written again, without a rename where ``rename`` is off.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from windtunnel.engines.stores.api import Place


class Files:
    """The folder; see the module."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        self._folder = Path(place.home) / "table"
        self._files, self._rename, self._one = int(options["files"]), bool(options["rename"]), options["layout"] == "one_file"

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """One file."""
        self._folder.mkdir(parents=True)
        self._put(self._folder / ("data.parquet" if self._one else _name()), tables["table"])

    def read(self) -> pa.Table:
        """All files that are listed, whatever happens to them meanwhile."""
        return _together([pq.read_table(path) for path in self._listed()])

    def append(self, rows: pa.Table) -> None:
        """New files; of one file, its rows and the new ones in its place."""
        if self._one:
            self._put(self._only(), _together([pq.read_table(self._only()), rows]))
        else:
            self._add(rows)

    def overwrite(self, rows: pa.Table) -> None:
        """Delete what is listed, then write."""
        if self._one:
            self._put(self._only(), rows)
            return
        for path in self._listed():
            path.unlink(missing_ok=True)
        self._add(rows)

    def upsert(self, rows: pa.Table) -> None:
        """Take rows with these keys out of their files, then add the new ones."""
        self._change(lambda old: old.filter(pc.invert(pc.is_in(old["key"], rows["key"]))))
        self.append(rows)

    def increment(self, below: int, client: int, number: int) -> None:
        """Add one where the key is below."""
        self._change(lambda old: incremented(old, below, client, number))

    def delete(self, client: int, number: int) -> None:
        """Take the rows of a tag out of their files."""
        self._change(lambda old: old.filter(pc.invert(of_tag(old, client, number))))

    def add_column(self, name: str) -> None:
        """Into every file."""
        self._change(lambda old: old.append_column(name, pa.nulls(old.num_rows, pa.int64())))

    def compact(self) -> None:
        """One file instead of those listed."""
        if self._one:
            return
        listed = self._listed()
        self._put(self._folder / _name(), _together([pq.read_table(path) for path in listed]))
        for path in listed:
            path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """Files that are there."""
        return len(self._listed()), sum(p.stat().st_size for p in self._listed())

    def close(self) -> None:
        """Nothing is open."""

    # -- files -------------------------------------------------------------------------------------------------------

    def _listed(self) -> list[Path]:
        return sorted(self._folder.glob("*.parquet"))

    def _only(self) -> Path:
        return self._folder / "data.parquet"

    def _add(self, rows: pa.Table) -> None:
        size = max(1, -(-rows.num_rows // self._files))
        for start in range(0, rows.num_rows, size):
            self._put(self._folder / _name(), rows.slice(start, size))

    def _change(self, how: Callable[[pa.Table], pa.Table]) -> None:
        """Put a changed file in the place of each whose rows change."""
        for path in self._listed():
            old = pq.read_table(path)
            new = how(old)
            if new.num_rows == 0 and not self._one:
                path.unlink(missing_ok=True)
            elif new is not old and not new.equals(old):
                self._put(path, new)

    def _put(self, path: Path, table: pa.Table) -> None:
        if not self._rename:
            pq.write_table(table, path)
            return
        hidden = path.with_name(f".{uuid.uuid4().hex}")
        pq.write_table(table, hidden)
        os.rename(hidden, path)


def _name() -> str:
    return f"part-{uuid.uuid4().hex}.parquet"


def _together(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default")


def of_tag(table: pa.Table, client: int, number: int) -> Any:
    """A mask of the rows of a tag."""
    return pc.and_(pc.equal(table["client"], client), pc.equal(table["number"], number))


def incremented(table: pa.Table, below: int, client: int, number: int) -> pa.Table:
    """The table with one more in ``value`` where the key is below, and the tag of who did it."""
    hot = pc.less(table["key"], below)
    for name, then in (
        ("value", pc.add(table["value"], 1)),
        ("client", pa.scalar(client, pa.int32())),
        ("number", pa.scalar(number, pa.int32())),
    ):
        table = table.set_column(table.schema.get_field_index(name), name, pc.if_else(hot, then, table[name]))
    return table
