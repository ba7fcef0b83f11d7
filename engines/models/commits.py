"""How a client commits to a table on an object store, as delta-rs 1.6 does it: requests in order, and what follows from each. Pure.

An operation is a generator of `Ask`; the world answers each and says how long it took. The order of requests is what a relay before an S3
store saw of ``deltalake`` 1.6.6 (``windtunnel run -w lake -e delta -o delta.store=s3``): read the log, write the data, then again and again
list the log, check the commits that came meanwhile one by one, and put the next number unless it is there. There is no wait between tries.
A log is read twice, all its entries since the last checkpoint side by side. Checkpoints, one in 100 commits, are left out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Literal

Verb = Literal["get", "put", "list", "put_if_absent"]

#: rounds of range requests that read one small Parquet file: its footer twice, its pages three times
SCAN_ROUNDS = 5
#: operation → those whose commits, made since it read the table, it conflicts with: both change rows that the other has read
CONFLICTS: Mapping[str, frozenset[str]] = {
    "append": frozenset(),
    "overwrite": frozenset({"overwrite", "upsert", "increment", "compact"}),
    "upsert": frozenset({"overwrite", "upsert", "increment", "compact"}),
    "increment": frozenset({"overwrite", "upsert", "increment", "compact"}),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """``count`` requests of one kind side by side. ``version``: the number that a `put_if_absent` wants."""

    verb: Verb
    count: int = 1
    version: int = -1


@dataclass(frozen=True, slots=True)
class Answer:
    """``latest``: the highest number of the log, told by a list. ``done``: whether a `put_if_absent` was first. ``kinds``: of the commits
    between what the client knows and ``latest``."""

    latest: int = -1
    done: bool = True
    kinds: tuple[str, ...] = ()


Steps = Generator[Ask, Answer, int]


def delta(operation: str, retries: int) -> Steps:
    """One operation; returns the version that it made, or -1 when it was refused. ``read`` returns the version that it saw."""
    known = yield from _opened()
    if operation == "read":
        return known
    if operation != "append":
        for _ in range(SCAN_ROUNDS):
            yield Ask("get")
    yield Ask("put")
    for _ in range(retries + 1):
        told = yield Ask("list", version=known)
        if told.latest > known:
            for kind in told.kinds:
                yield Ask("get")
                if kind in CONFLICTS[operation]:
                    return -1
            yield from _updated(told.latest - known)
            known = told.latest
        if (yield Ask("put_if_absent", version=known + 1)).done:
            yield from _after(known + 1)
            return known + 1
    return -1


def _opened() -> Steps:
    """Where the last checkpoint is, what there is since, and all of it twice."""
    yield Ask("get")
    told = yield Ask("list")
    for _ in range(2):
        yield Ask("get", count=told.latest + 1)
    return told.latest


def _updated(versions: int) -> Steps:
    """What is new, twice."""
    yield Ask("list")
    for _ in range(2):
        yield Ask("get", count=versions)
    return 0


def _after(version: int) -> Steps:
    """The new state is read, and old entries of the log looked for."""
    yield Ask("list")
    for _ in range(2):
        yield Ask("get")
    yield Ask("list")
    return version
