"""Whether a history of a table is linear: one order of whole commits explains all that was seen. Pure; it knows no system.

A state of the table is what `Lake.seen` tells of it: ``batches`` (rows by the tag (client, number) of the operation that wrote them), the
``hot`` rows that upserts and increments touch together (one tag, one value), and added ``columns``. Systems that keep versions are
*witnesses*: their versions in order must each follow from the one before by just one operation or, for housekeeping, none. Then every
acknowledged operation happened once, none that was refused did, one that ended before another began comes first, and each read equals a
version between the last one acknowledged before it began and the last one begun before it ended. Without versions only what one state
shows is judged: parts of commits, acknowledged rows that are missing, counters that do not add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from windtunnel.workloads.data.history import FINAL, READ, VERSION, WITNESS, Done

Tag = tuple[int, int]
BASE: Tag = (-1, -1)
HOUSEKEEPING = ("compact",)  # changes no row


@dataclass(slots=True)
class State:
    """A table's content as the judge knows it. ``hot``: (rows, tag, value of each), None when there are none."""

    batches: dict[Tag, int] = field(default_factory=dict)
    hot: tuple[int, Tag, int] | None = None
    columns: frozenset[str] = frozenset()
    torn: bool = False

    def key(self) -> tuple[Any, ...]:
        """Equal for equal content."""
        return frozenset(self.batches.items()), self.hot, self.columns


def state_of(seen: dict[str, Any], sizes: dict[Tag, int], hot_rows: int) -> State:
    """A state from what was seen; ``torn`` when it holds a part of a commit: some rows of a batch, or hot rows of two commits."""
    state = State(columns=frozenset(seen["columns"]))
    for client, number, rows in seen["batches"]:
        state.batches[client, number] = rows
        state.torn |= rows != sizes.get((client, number), rows)
    groups = seen["hot"]
    if groups:
        client, number, rows, low, high = groups[0]
        state.hot = (rows, (client, number), low)
        state.torn |= len(groups) > 1 or low != high or rows != hot_rows
    return state


@dataclass(slots=True)
class Findings:
    """What is wrong with a history, counted, and a sentence for the first of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, words: str, by: int = 1) -> None:
        """Count a finding."""
        self.counts[what] += by
        self.words.setdefault(what, words)

    def __bool__(self) -> bool:
        return any(self.counts.values())

    def sentence(self) -> str:
        """All findings for people."""
        return "; ".join(f"{what}: {self.counts[what]} ({words})" for what, words in self.words.items())


#: what a judge may find
KINDS = ("lost", "duplicated", "ghosts", "torn", "unreadable", "stale", "unexplained", "disorder")


def judge(history: Sequence[Done], *, hot_rows: int, base_rows: int = 0) -> Findings:
    """All that contradicts a linear history of a table that began with ``hot_rows`` hot rows and ``base_rows`` others."""
    done = [d for d in history if d.role != WITNESS]
    writes = [d for d in done if d.kind != READ and d.kind not in HOUSEKEEPING]
    sizes = {BASE: base_rows, **{d.tag: d.rows for d in writes if d.kind in ("append", "overwrite")}}
    versions = [state_of(d.seen, sizes, hot_rows) for d in history if d.role == WITNESS and d.kind == VERSION]
    last = next((d for d in history if d.role == WITNESS and d.kind == FINAL), None)
    found = Findings()
    reads = [(d, state_of(d.seen, sizes, hot_rows)) for d in done if d.kind == READ and d.outcome == "ok"]
    for read, state in reads:
        if state.torn:
            found.add("torn", f"read {read.tag} saw a part of a commit")
    for read in done:
        if read.kind == READ and read.outcome == "failed":
            found.add("unreadable", f"read {read.tag} failed: {read.reason}")
    if last is None or last.seen is None:
        found.add("unexplained", "the table could not be read at the end" + (f": {last.reason}" if last else ""))
        return found
    end = state_of(last.seen, sizes, hot_rows)
    if versions:
        _walk(versions, end, writes, reads, found)
    else:
        _at_the_end(end, writes, found)
        _readers(reads, writes, found)
    return found


# -- with versions -------------------------------------------------------------------------------------------------------


def _walk(versions: list[State], end: State, writes: list[Done], reads: Sequence[tuple[Done, State]], found: Findings) -> None:
    by_tag = {d.tag: d for d in writes}
    place: dict[Tag, int] = {}
    for number in range(1, len(versions)):
        before, after = versions[number - 1], versions[number]
        if before.key() == after.key():
            continue
        operation = _explained(before, after, by_tag)
        if operation is None:
            found.add("unexplained", f"version {number} does not follow from the one before by one whole operation")
        elif operation.tag in place:
            found.add("duplicated", f"{operation.kind} {operation.tag} made versions {place[operation.tag]} and {number}")
        else:
            place[operation.tag] = number
    if end.key() != versions[-1].key():
        found.add("unexplained", "the last state is not the last version")
    placed = [d for d in writes if d.tag in place]
    for d in writes:
        if d.outcome == "ok" and d.tag not in place and not _idle(d, versions, placed, place):
            found.add("lost", f"{d.kind} {d.tag} was acknowledged and is in no version")
        if d.outcome == "refused" and d.tag in place:
            found.add("ghosts", f"{d.kind} {d.tag} was refused and made version {place[d.tag]}")
    _in_real_time([d for d in placed if d.outcome == "ok"], place, found)
    _reads_of_versions(versions, placed, place, reads, found)


def _window(d: Done, placed: list[Done], place: dict[Tag, int]) -> tuple[int, int]:
    """Versions that an operation may have met: from the last acknowledged before it began to the last begun before it ended."""
    least = max((place[o.tag] for o in placed if o.outcome == "ok" and o.end_s < d.start_s), default=0)
    return least, max((place[o.tag] for o in placed if o.start_s < d.end_s), default=0)


def _idle(d: Done, versions: list[State], placed: list[Done], place: dict[Tag, int]) -> bool:
    """Whether it had nothing to do at some moment of its time, such as rows to delete that were not there: that needs no version."""
    least, most = _window(d, placed, place)
    return any(applied(state, d).key() == state.key() for state in versions[least : max(least, most) + 1])


def _explained(before: State, after: State, by_tag: dict[Tag, Done]) -> Done | None:
    """The one operation whose effect on ``before`` is ``after``. Each leaves a tag of its own, so that there is one candidate."""
    for tag in _marks(before, after):
        operation = by_tag.get(tag)
        if operation is not None and applied(before, operation).key() == after.key():
            return operation
    return None


def _marks(before: State, after: State) -> Iterable[Tag]:
    """Tags of operations that may lie between the two."""
    yield from (tag for tag in after.batches if tag not in before.batches)
    if after.hot is not None and after.hot != before.hot:
        yield after.hot[1]
    yield from (tag_of_column(name) for name in sorted(after.columns - before.columns))
    yield from ((client, number + 1) for client, number in before.batches if (client, number) not in after.batches)


def tag_of_column(name: str) -> Tag:
    """Of the operation that added a column: its name is ``added_<client>_<number>``."""
    client, _, number = name.removeprefix("added_").partition("_")
    return int(client), int(number)


def applied(before: State, operation: Done) -> State:
    """The state after a whole operation."""
    batches, hot, columns = dict(before.batches), before.hot, before.columns
    if operation.kind == "append":
        batches[operation.tag] = operation.rows
    elif operation.kind == "overwrite":
        batches, hot = {operation.tag: operation.rows}, None
    elif operation.kind == "upsert":
        hot = (operation.rows, operation.tag, operation.number)
    elif operation.kind == "increment":
        hot = None if hot is None else (hot[0], operation.tag, hot[2] + 1)
    elif operation.kind == "delete":
        batches.pop((operation.client, operation.number - 1), None)
    elif operation.kind == "add_column":
        columns = columns | {f"added_{operation.client}_{operation.number}"}
    return State(batches, hot, columns)


def _in_real_time(acknowledged: list[Done], place: dict[Tag, int], found: Findings) -> None:
    """Who ended before another began must come first: a sweep in order of places keeps the latest start seen."""
    latest: Done | None = None
    for d in sorted(acknowledged, key=lambda d: place[d.tag]):
        if latest is not None and d.end_s < latest.start_s:
            found.add("disorder", f"{d.kind} {d.tag} ended before {latest.kind} {latest.tag} began and comes after it")
        if latest is None or d.start_s > latest.start_s:
            latest = d


def _reads_of_versions(
    versions: list[State], placed: list[Done], place: dict[Tag, int], reads: Sequence[tuple[Done, State]], found: Findings
) -> None:
    where: dict[tuple[Any, ...], list[int]] = {}
    for number, state in enumerate(versions):
        where.setdefault(state.key(), []).append(number)
    for read, state in reads:
        if state.torn:
            continue
        least, most = _window(read, placed, place)
        numbers = where.get(state.key(), [])
        if not numbers:
            found.add("torn", f"read {read.tag} saw what no version holds")
        elif max(numbers) < least:
            found.add("stale", f"read {read.tag} saw version {max(numbers)}, and {least} was acknowledged before it began")
        elif min(numbers) > most:
            found.add("disorder", f"read {read.tag} saw version {min(numbers)} before it was begun")


# -- without versions ----------------------------------------------------------------------------------------------------


def _at_the_end(end: State, writes: list[Done], found: Findings) -> None:
    """What the last state alone tells."""
    if end.torn:
        found.add("torn", "the last state holds a part of a commit")
    replaced = [d for d in writes if d.kind == "overwrite" and d.outcome != "refused"]
    deletes = {(d.client, d.number - 1) for d in writes if d.kind == "delete" and d.outcome != "refused"}
    for d in writes:
        there = d.tag in end.batches
        if d.kind == "append" and d.outcome == "ok" and not there and d.tag not in deletes:
            if not any(o.end_s > d.start_s for o in replaced):
                found.add("lost", f"append {d.tag} was acknowledged and its rows are not there")
        if d.kind in ("append", "overwrite") and d.outcome == "refused" and there:
            found.add("ghosts", f"{d.kind} {d.tag} was refused and its rows are there")
        if d.kind == "delete" and d.outcome == "ok" and (d.client, d.number - 1) in end.batches:
            found.add("lost", f"delete {d.tag} was acknowledged and the rows are there")
    _last_writer([d for d in writes if d.kind == "upsert"], end.hot[1] if end.hot else None, found)
    _last_overwrite(end, replaced, found)
    _counter(end, writes, found)


def _last_writer(upserts: list[Done], tag: Tag | None, found: Findings) -> None:
    """The value that is left must be of an operation that no acknowledged one followed."""
    if not upserts or tag is None:
        return
    left = next((d for d in upserts if d.tag == tag), None)
    later = [d for d in upserts if d.outcome == "ok" and (left is None or d.start_s > left.end_s)]
    if later:
        found.add("lost", f"upsert {later[0].tag} was acknowledged after {tag}, whose value is there", by=len(later))
    if left is not None and left.outcome == "refused":
        found.add("ghosts", f"upsert {tag} was refused and its value is there")


def _last_overwrite(end: State, replaced: list[Done], found: Findings) -> None:
    """Of overwrites, one set of rows may be left."""
    there = [d for d in replaced if d.tag in end.batches]
    if len(there) > 1:
        found.add("torn", f"rows of {len(there)} overwrites are there at once, as of {there[0].tag} and {there[1].tag}")


def _counter(end: State, writes: list[Done], found: Findings) -> None:
    """Increments add up: no fewer than were acknowledged, no more than may have happened."""
    increments = [d for d in writes if d.kind == "increment"]
    if not increments or any(d.kind in ("upsert", "overwrite") for d in writes):
        return
    value = end.hot[2] if end.hot else 0
    sure = sum(d.outcome == "ok" for d in increments)
    most = sure + sum(d.outcome in ("unknown", "failed") for d in increments)
    if value < sure:
        found.add("lost", f"{sure} increments were acknowledged and the counter says {value}", by=sure - value)
    if value > most:
        found.add("duplicated", f"at most {most} increments happened and the counter says {value}", by=value - most)


def _readers(reads: Sequence[tuple[Done, State]], writes: list[Done], found: Findings) -> None:
    """Appends acknowledged before a read began must be in it, where nothing takes rows away."""
    if any(d.kind in ("overwrite", "delete") for d in writes):
        return
    appended = sorted((d.end_s, d.tag) for d in writes if d.kind == "append" and d.outcome == "ok")
    for read, state in reads:
        missing = next((tag for end_s, tag in appended if end_s < read.start_s and tag not in state.batches), None)
        if missing is not None:
            found.add("stale", f"read {read.tag} lacks append {missing}, acknowledged before it began")
