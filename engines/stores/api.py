"""What a system is to its clients: a class with a method for each kind of operation, built anew in every client's process.

The session creates what a run begins with, clients call, and a witness reads at the end. Heavy libraries are imported inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa


class Conflict(Exception):
    """The system refused a commit because of another one; nothing of it happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run's data lie: a folder of this machine, and the name of the tables' space in it.

    ``store``: the address of an object store that holds the data instead (keys ``uri``, ``endpoint``, ``key``, ``secret``, ``region``).
    ``server``: how the system's server is reached, where it has one.
    """

    folder: Path
    name: str = "main"
    store: Mapping[str, str] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """Path or URI below which this space's files go."""
        return f"{self.store['uri']}/{self.name}" if self.store else str(self.folder / self.name)


class System(Protocol):
    """A connection; not thread-safe. It has one more method for each kind of operation that it can do."""

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None: ...

    def create(self, tables: Mapping[str, pa.Table]) -> None:
        """Make the tables with these rows in a new space."""
        ...

    def close(self) -> None:
        """Let go of everything; idempotent."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A system that can show what a table was."""

    def versions(self) -> Sequence[Any]:
        """Every version since the table was made, oldest first."""
        ...

    def read_version(self, version: Any) -> pa.Table:
        """The whole table as of a version."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A system that can tell what the table's present state takes."""

    def size(self) -> tuple[int, int]:
        """(files, bytes) of the present version's data."""
        ...
