"""The engines that keep data: one entry each, with options, capabilities and what serves them. Adapters are named by dotted path.

What a run does is `session`'s; a system's own code is in the module of its name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import windtunnel
from windtunnel.engines.api import Capabilities, Option, Session, resolve_options
from windtunnel.engines.foreign.session import HostedSession
from windtunnel.engines.stores import objects, postgres
from windtunnel.engines.stores.session import Serving, StoreSession
from windtunnel.errors import MissingEngine
from windtunnel.running.interpreters import interpreter
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.units import parse_count, parse_seconds

ROOM = "windtunnel.engines.stores"
FAR = (
    Option(
        name="store",
        default="disk",
        doc="where the table lies: this machine's disk, or an S3 store on loopback",
        choices=("disk", "s3"),
    ),
    Option(
        name="latency",
        default="0ms",
        doc="of a request to the S3 store, on average: a relay before it waits so long",
        check=parse_seconds,
    ),
    Option(name="latency_cv", default=0.0, doc="coefficient of variation of that latency (lognormal)"),
    Option(name="bandwidth", default=0.0, doc="bytes a second to and from the S3 store, shared by all; 0: no limit"),
    Option(name="refused", default=0.0, doc="share of the S3 store's requests that are refused with 503"),
    Option(name="cut", default=0.0, doc="share of the S3 store's answers whose connection is cut in the middle of the body"),
)
SEED = Option(name="seed", default=7, doc="which operation a client makes when, and its waits before retries")


class StoreEngine:
    """A system that keeps data for clients."""

    def __init__(
        self, name: str, system: str, library: str, options: tuple[Option, ...], features: Mapping[str, str],
        gaps: Mapping[str, str] | None = None, serve: Callable[[Path, Mapping[str, Any]], Serving] | None = None, far: bool = False,
    ) -> None:  # fmt: skip
        self.name, self._system, self._library, self._serve = name, f"{ROOM}.{system}", library, serve
        self.options = (*options, *(FAR if far else ()), SEED)
        told = {"data": "clients' operations on tables, in processes of their own"}
        self.capabilities = Capabilities(features={**told, **features}, gaps=gaps or {})

    def version(self) -> str:
        """Of the library behind it."""
        return version(self._library) if self._library else windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> Session:
        """Check the options; start the server where there is one."""
        chosen = resolve_options(self.name, self.options, options)
        store = partial(objects.serve, relay=_relay(chosen)) if chosen.get("store") == "s3" else None
        return StoreSession(
            self.name, self._system, chosen, self.capabilities, serve=self._serve, store=store, seed=int(chosen["seed"])
        )


def _relay(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the relay before the S3 store. Raises MissingEngine without the store's server."""
    if importlib.util.find_spec("moto") is None:
        raise MissingEngine("an S3 store on loopback needs moto, not installed here; run: pip install 'windtunnel[s3]'")
    return {
        "latency_s": {"": parse_seconds(options["latency"])}, "cv": float(options["latency_cv"]), "seed": int(options["seed"]),
        "bytes_per_s": float(options["bandwidth"]), "refused": float(options["refused"]), "cut": float(options["cut"]),
    }  # fmt: skip


def _retries(default: int, doc: str) -> Option:
    return Option(name="commit_retries", default=default, doc=doc, check=lambda value: None if value == 0 else parse_count(value))


_UNSYNCED = "nothing waits for the disk: files are left to the system's cache, as on all table formats here"
FilesEngine = partial(
    StoreEngine, "files", "files:Files", "",
    (
        Option(name="layout", default="folder", doc="a folder of files, or one file that is written anew", choices=("folder", "one_file")),
        Option(name="files", default=2, doc="files of a commit's new rows, in a folder", check=parse_count),
        Option(name="rename", default=True, doc="write under a hidden name and rename", choices=(True, False)),
    ),
    {"commits": "none: each file for itself", "durability": _UNSYNCED},
)  # fmt: skip
DeltaEngine = partial(
    StoreEngine, "delta", "delta:Delta", "deltalake",
    (_retries(15, "tries of a commit after the first, by delta-rs"),),
    {
        "commits": "optimistic: a numbered file of the log that must not be there yet", "durability": _UNSYNCED,
        "versions": "every commit, by number",
    },
    far=True,
)  # fmt: skip
IcebergEngine = partial(
    StoreEngine, "iceberg", "iceberg:Iceberg", "pyiceberg",
    (_retries(4, "tries of a commit after the first, by PyIceberg"),),
    {
        "commits": "optimistic: compare and swap of a pointer in the catalogue, an SQLite database",
        "durability": "files are left to the system's cache; SQLite syncs the catalogue",
        "versions": "every commit, by metadata file",
    },
    far=True,
)  # fmt: skip
LanceEngine = partial(
    StoreEngine, "lance", "lance:Lance", "pylance", (),
    {
        "commits": "optimistic: a numbered manifest that must not be there yet; retries merge what does not conflict",
        "durability": _UNSYNCED, "versions": "every commit, by number",
    },
    far=True,
)  # fmt: skip


_DURABLE = Option(name="durable", default=True, doc="whether a commit waits until the disk has it", choices=(True, False))
SqliteEngine = partial(
    StoreEngine, "sqlite", "sql:Sqlite", "", (_DURABLE,),
    {"commits": "one writer at a time, through a write-ahead log", "durability": "synchronous=FULL: a commit waits for the disk"},
)  # fmt: skip
DuckDBFileEngine = partial(
    StoreEngine, "duckdb-file", "sql:DuckDBFile", "duckdb",
    (Option(name="threads", default=1, doc="threads of a query", check=parse_count),),
    {
        "commits": "optimistic, inside one process: a second process cannot open the file, so that it is for one client",
        "durability": "a commit waits for the disk; that cannot be turned off",
    },
)  # fmt: skip
PostgreSQLEngine = partial(
    StoreEngine, "postgresql", "sql:PostgreSQL", "psycopg",
    (_DURABLE, Option(name="workers", default=0, doc="parallel workers of a query", check=lambda v: None if v == 0 else parse_count(v))),
    {
        "commits": "serializable transactions; those that cannot be ordered are refused",
        "durability": "fsync, synchronous_commit and full_page_writes on: a commit waits for the disk",
        "processes": "a server of the run's own on loopback, as an unprivileged user; 256 MB of shared buffers, no autovacuum",
    },
    serve=postgres.serve,
)  # fmt: skip
_CATALOGUE = Option(name="catalogue", default="sqlite", doc="the database that holds the metadata", choices=("sqlite",))


class DuckLakeEngine:
    """``ducklake``, in an interpreter of its own."""

    name = "ducklake"
    options = (_CATALOGUE, _retries(10, "tries of a commit after the first, by DuckLake"), SEED)
    capabilities = Capabilities(
        features={
            "data": "clients' operations on tables, in processes of their own",
            "commits": "transactions of the catalogue's database; conflicts are found there",
            "durability": "files are left to the system's cache; SQLite syncs the catalogue",
            "versions": "every commit, by snapshot",
        }
    )

    def version(self) -> str:
        """DuckDB's."""
        return interpreter(self.name).version("duckdb")

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> HostedSession:
        """Start the interpreter."""
        chosen = resolve_options(self.name, self.options, options)
        return HostedSession(interpreter(self.name), f"{ROOM}.engine:ducklake_session", cluster, chosen, self.capabilities)


def ducklake_session(cluster: ClusterSpec, options: Mapping[str, Any]) -> StoreSession:
    """The session inside that interpreter."""
    return StoreSession("ducklake", f"{ROOM}.ducklake:DuckLake", options, DuckLakeEngine.capabilities, seed=int(options["seed"]))
