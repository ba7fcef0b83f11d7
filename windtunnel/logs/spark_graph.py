"""What a Spark log told → a job graph: a group for each attempt of a stage, who waited for whom, and the time that nobody explains.

Stages wait for their parents (all of their tasks); a parent that was skipped is the earlier stage that computed the same RDD. A job
waits, besides, for jobs that had ended before it was submitted: those of the same SQL query, or else of the queries before it. What
lies between is the driver's time. Retries of a stage are groups of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from windtunnel.errors import InputError
from windtunnel.logs.gaps import held_back, most_at_once
from windtunnel.logs.spark import UNTOLD, SparkExecutor, SparkJob, SparkLog, SparkStage
from windtunnel.logs.spark_settings import executor_memory, kept_settings, task_needs
from windtunnel.spec.jobgraph import Array, Group, GroupInput, JobGraph, Language, Machine, row_order, task_table

MILLI = 1e-3
NANO = 1e-9


@dataclass(slots=True)
class _Section:
    """Jobs that one thread of the driver submitted, one SQL query as a rule; milliseconds."""

    start: int
    end: int
    jobs: list[SparkJob] = field(default_factory=list)


@dataclass(slots=True)
class _Draft:
    """A group under construction: its stage, the job that ran it, milliseconds, and what it waits for by number."""

    stage: SparkStage
    job: SparkJob | None
    submitted: int
    launched: int
    completed: int
    all: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


def spark_graph(log: SparkLog, name: str) -> JobGraph:
    """The job graph of a log. Raises InputError where it holds no task that ended."""
    columns = {n: np.frombuffer(c, dtype=np.int64) for n, c in log.tasks.items()}
    notes = list(log.notes)
    kept, columns = _rows(columns, notes)
    drafts = _drafts(log, columns, kept, notes)
    _data(drafts, log, notes)
    jobs = [j for j in log.jobs.values() if j.submitted >= 0]
    _order(drafts, jobs, log)
    numbers = _topological(drafts)
    begin = min([j.submitted for j in jobs] + [d.submitted for d in drafts])
    end = _end(log, drafts, notes)
    columns["executor"], executors = _used(log, columns["executor"], notes)
    machines = tuple(_machine(e, i, log, columns, begin) for i, e in enumerate(executors))
    released = _released(drafts, columns, machines, begin)
    groups = tuple(
        _group(drafts[i], numbers, drafts, log, begin, released[i]) for i in sorted(range(len(drafts)), key=numbers.__getitem__)
    )
    table = _table(columns, [numbers[i] for i in _draft_of(drafts, log)], begin, groups)
    return JobGraph(
        name=name, system="spark", version=log.version, groups=groups, tasks=table, machines=machines,
        end_s=(end - begin) * MILLI, before_s=max(0.0, (begin - log.started) * MILLI) if log.started is not None else 0.0,
        settings=kept_settings(log.properties), notes=tuple(notes),
    )  # fmt: skip


def _rows(columns: Mapping[str, Array], notes: list[str]) -> tuple[Array, dict[str, Array]]:
    """Tasks whose times are possible, and those of them that ended well."""
    sane = (columns["launched"] > 0) & (columns["finished"] >= columns["launched"])
    if wrong := int(np.count_nonzero(~sane)):
        notes.append(f"{wrong} task(s) end before they begin; they are left aside")
    found = {n: c[sane] for n, c in columns.items()}
    if not len(found["stage"]):
        raise InputError("no task of the log has times that are possible, so that there is nothing to replay")
    return found["stage"], found


def _drafts(log: SparkLog, columns: Mapping[str, Array], kept: Array, notes: list[str]) -> list[_Draft]:
    """A draft for each stage attempt that ran a task, by its number in the log."""
    jobs = sorted((j for j in log.jobs.values() if j.submitted >= 0), key=lambda j: (j.submitted, j.id))
    owner: dict[int, list[SparkJob]] = {}
    for job in jobs:
        for stage_id in job.stages:
            owner.setdefault(stage_id, []).append(job)
    drafts, orphans = [], 0
    first = np.full(len(log.keys), np.iinfo(np.int64).max)
    last = np.zeros(len(log.keys), dtype=np.int64)
    np.minimum.at(first, kept, columns["launched"])
    np.maximum.at(last, kept, columns["finished"])
    for number, key in enumerate(log.keys):
        stage = log.stages.get(key) or SparkStage(*key, "stage", (), -1, False, 0)
        if last[number] == 0:  # all its tasks were left aside
            continue
        begun = min(stage.submitted or int(first[number]), int(first[number]))
        mine = [j for j in owner.get(stage.id, ()) if j.submitted <= begun + 1000] or owner.get(stage.id, [])
        orphans += not mine
        drafts.append(_Draft(stage, mine[-1] if mine else None, begun, int(first[number]), int(last[number])))
    if orphans:
        notes.append(f"{orphans} stage(s) belong to no job whose beginning the log holds; they are ordered by their times")
    return drafts


def _draft_of(drafts: list[_Draft], log: SparkLog) -> list[int]:
    """The draft of each stage attempt by its number in the log; 0 for one without tasks, which no row names."""
    place = {(d.stage.id, d.stage.attempt): i for i, d in enumerate(drafts)}
    return [place.get(key, 0) for key in log.keys]


# -- who waits for whom -----------------------------------------------------------------------------------------------


def _data(drafts: list[_Draft], log: SparkLog, notes: list[str]) -> None:
    """Parents of each stage, and what a retry waits for."""
    by_id: dict[int, list[int]] = {}
    by_rdd: dict[int, list[int]] = {}
    for i, draft in enumerate(drafts):
        by_id.setdefault(draft.stage.id, []).append(i)
        if draft.stage.rdd >= 0:
            by_rdd.setdefault(draft.stage.rdd, []).append(i)
    unknown = 0
    for i, draft in enumerate(drafts):
        for parent in draft.stage.parents:
            found = by_id.get(parent) or by_rdd.get(log.rdd_of.get(parent, -1), [])
            before = [p for p in found if p != i and drafts[p].submitted <= draft.submitted]
            draft.all += before
            unknown += not before
        if draft.stage.attempt:  # what failed before it
            draft.order += [p for p in by_id[draft.stage.id] if drafts[p].stage.attempt < draft.stage.attempt]
    if unknown:
        notes.append(f"{unknown} input(s) of stages were made by no stage that the log holds; they cost nothing here")


def _order(drafts: list[_Draft], jobs: list[SparkJob], log: SparkLog) -> None:
    """What the driver waited for before it submitted a job."""
    last = _last_of_jobs(drafts)
    before = _jobs_before(jobs, log)
    for i, draft in enumerate(drafts):
        if draft.job is None:
            ended = [p for p, d in enumerate(drafts) if p != i and d.completed <= draft.submitted]
            draft.order += _latest(ended, drafts)
        elif not draft.all or draft.submitted <= draft.job.submitted + 1000:
            draft.order += [
                p for j in before.get(draft.job.id, ()) for p in last.get(j, ()) if drafts[p].completed <= draft.submitted
            ]
        draft.order = [p for p in dict.fromkeys(draft.order) if p not in draft.all and p != i]


def _latest(ended: Iterable[int], drafts: list[_Draft]) -> list[int]:
    found = sorted(ended, key=lambda p: drafts[p].completed)
    return found[-1:]


def _last_of_jobs(drafts: list[_Draft]) -> dict[int, list[int]]:
    """The stage of each job that ended last."""
    last: dict[int, list[int]] = {}
    for i, draft in enumerate(drafts):
        if draft.job is not None:
            known = last.setdefault(draft.job.id, [i])
            if draft.completed >= drafts[known[0]].completed:
                last[draft.job.id] = [i]
    return last


def _jobs_before(jobs: list[SparkJob], log: SparkLog) -> dict[int, list[int]]:
    """For each job, the jobs that the driver had seen end: of its own section, or of the sections before."""
    sections = _sections(jobs, log)
    before: dict[int, list[int]] = {}
    for section in sections:
        mine = sorted(section.jobs, key=lambda j: (j.submitted, j.id))
        earlier = _nearest([(s.start, s.end, s) for s in sections if s is not section], section.start)
        for job in mine:
            own = _nearest([(j.submitted, j.ended, j) for j in mine if j.ended is not None and j is not job], job.submitted)
            before[job.id] = [j.id for j in own] or [j.id for s in earlier for j in _ends(s)]
    return before


def _nearest(spans: list[tuple[int, int, object]], at: int) -> list:
    """Of what had ended by ``at``, that which nothing else follows: (start, end, thing) → things."""
    ended = [s for s in spans if s[1] <= at]
    latest = max((s[0] for s in ended), default=0)
    return [s[2] for s in ended if s[1] > latest or s[0] == latest]


def _ends(section: _Section) -> list[SparkJob]:
    return [j for j in section.jobs if (j.ended or section.end) >= section.end] or section.jobs[-1:]


def _sections(jobs: list[SparkJob], log: SparkLog) -> list[_Section]:
    """Jobs by the SQL query (or the job group) that asked for them; others each for itself."""
    found: dict[object, _Section] = {}
    for job in sorted(jobs, key=lambda j: (j.submitted, j.id)):
        query = job.query
        while query in log.queries and log.queries[query][2] not in (None, query):
            query = log.queries[query][2]
        key: object = ("query", query) if query is not None else ("group", job.group, job.id)
        begun = log.queries[query][0] if query in log.queries else None
        ended = job.ended if job.ended is not None else log.latest
        section = found.setdefault(key, _Section(begun if begun is not None else job.submitted, ended))
        section.start, section.end = min(section.start, job.submitted), max(section.end, ended)
        section.jobs.append(job)
    return list(found.values())


def _topological(drafts: list[_Draft]) -> list[int]:
    """The number of each draft's group: jobs in their order, which is that of their priority, and after all that it waits for."""
    by_time = sorted(range(len(drafts)), key=lambda i: (drafts[i].submitted, drafts[i].stage.id, drafts[i].stage.attempt))
    early = {i: place for place, i in enumerate(by_time)}
    for i, draft in enumerate(drafts):
        draft.all = [p for p in dict.fromkeys(draft.all) if early[p] < early[i]]
        draft.order = [p for p in draft.order if early[p] < early[i]]
    ready = [(_priority(drafts[i]), i) for i in by_time if not (drafts[i].all or drafts[i].order)]
    heapify(ready)
    waits = [len(d.all) + len(d.order) for d in drafts]
    readers: list[list[int]] = [[] for _ in drafts]
    for i, draft in enumerate(drafts):
        for p in (*draft.all, *draft.order):
            readers[p].append(i)
    numbers = [0] * len(drafts)
    for number in range(len(drafts)):
        _, i = heappop(ready)
        numbers[i] = number
        for reader in readers[i]:
            waits[reader] -= 1
            if not waits[reader]:
                heappush(ready, (_priority(drafts[reader]), reader))
    return numbers


def _priority(draft: _Draft) -> tuple[int, int, int]:
    """Jobs in their order, then stages (FIFOSchedulingAlgorithm); what belongs to no job comes first."""
    return (draft.job.id if draft.job else -1, draft.stage.id, draft.stage.attempt)


# -- the parts of the graph -------------------------------------------------------------------------------------------


def _released(drafts: list[_Draft], columns: Mapping[str, Array], machines: tuple[Machine, ...], begin: int) -> list[float]:
    """When the driver had released each stage: its submission, and as long as a slot was free before its first task."""
    start, end = (columns["launched"] - begin) * MILLI, (columns["finished"] - begin) * MILLI
    submitted = np.array([d.submitted - begin for d in drafts]) * MILLI
    begun = np.array([d.launched - begin for d in drafts]) * MILLI
    return (submitted + held_back(start, end, machines, submitted, begun)).tolist()  # type: ignore[no-any-return]


def _group(draft: _Draft, numbers: list[int], drafts: list[_Draft], log: SparkLog, begin: int, released: float) -> Group:
    stage = draft.stage
    cpus, gpus = task_needs(log.properties, log.profiles.get(stage.profile))
    inputs = [GroupInput(group=numbers[p], mode="all") for p in draft.all]
    inputs += [GroupInput(group=numbers[p], mode="order") for p in draft.order]
    ready = max((drafts[p].completed for p in (*draft.all, *draft.order)), default=begin)
    language: Language = "python" if stage.python else "native"
    return Group(
        name=stage.name, inputs=tuple(sorted(inputs, key=lambda i: i.group)), gap_s=max(0.0, released - (ready - begin) * MILLI),
        part=draft.job.id if draft.job else -1, language=language, cpus=cpus, gpus=gpus,
        submitted_s=(draft.submitted - begin) * MILLI, retry=stage.attempt > 0,
    )  # fmt: skip


def _end(log: SparkLog, drafts: list[_Draft], notes: list[str]) -> int:
    ends = [j.ended for j in log.jobs.values() if j.ended is not None]
    open_jobs = [j.id for j in log.jobs.values() if j.ended is None]
    if open_jobs:
        notes.append(f"{len(open_jobs)} job(s) did not end before the log does; what of them ran is here")
    return max([*ends, *(d.completed for d in drafts)])


def _used(log: SparkLog, executor_of: Array, notes: list[str]) -> tuple[Array, list[SparkExecutor]]:
    """Executors that ran a task of the job, and the number among them of each task's. Nothing is known of the others."""
    used, numbers = np.unique(executor_of, return_inverse=True)
    if idle := len(log.executors) - len(used):
        notes.append(f"{idle} executor(s) ran no task of the job; they are left out of its cluster")
    return numbers, [log.executors[i] for i in used.tolist()]


def _machine(executor: SparkExecutor, number: int, log: SparkLog, columns: Mapping[str, Array], begin: int) -> Machine:
    """An executor as a machine. One whose coming the log does not tell has as many slots as it had tasks at once."""
    profile = log.profiles.get(executor.profile)
    cpus, gpus = task_needs(log.properties, profile)
    amount = profile.executor.get("gpu") if profile else None
    have = float(executor.gpus or (amount.amount if amount else 0))
    mine = columns["executor"] == number
    begun, ended = np.sort(columns["launched"][mine]), np.sort(columns["finished"][mine])
    if executor.cores:
        slots = max(1, int(executor.cores / cpus + 1e-9))
        if gpus and have:
            slots = min(slots, max(1, int(have / gpus + 1e-9)))
    else:
        slots = most_at_once(begun, ended)
    added = min(executor.added, int(begun[0]))
    left = None if executor.removed is None else int(ended[-1])  # whoever is about to be removed is given no task any more
    return Machine(
        name=executor.name or f"executor{number}", host=executor.host, slots=slots, cpus=executor.cores or slots * cpus, gpus=have,
        memory_bytes=executor_memory(log.properties), joined_s=(added - begin) * MILLI,
        left_s=None if left is None else (left - begin) * MILLI,
    )  # fmt: skip


def _table(columns: Mapping[str, Array], group_of: list[int], begin: int, groups: tuple[Group, ...]) -> dict[str, Array]:
    """Rows of the task table: seconds since the beginning of the job, split by what they went on."""

    def told(name: str, scale: float) -> Array:
        values = columns[name]
        return np.where(values == UNTOLD, np.nan, np.maximum(values, 0) * scale)

    group = np.asarray(group_of)[columns["stage"]]
    start, end = (columns["launched"] - begin) * MILLI, (columns["finished"] - begin) * MILLI
    run = np.minimum(told("run_ms", MILLI), end - start)
    python_group = np.array([g.language == "python" for g in groups])[group]
    gc = np.minimum(told("gc_ms", MILLI), run)
    cpu = np.minimum(told("cpu_ns", NANO), run - gc)
    rest = np.maximum(run - gc - cpu, 0.0)
    fetch = np.minimum(told("fetch_ms", MILLI), rest)
    kernels = np.where(np.isnan(told("python_ms", MILLI)), rest - fetch, np.minimum(told("python_ms", MILLI), rest))
    python = np.where(python_group, kernels, np.where(np.isnan(run), np.nan, 0.0))
    found = {
        "group": group, "partition": columns["partition"], "attempt": columns["attempt"], "node": columns["executor"],
        "status": columns["status"], "start_s": start, "end_s": end, "cpu_s": cpu, "python_s": python, "wait_s": rest - python,
        "gc_s": gc, "engine_s": np.where(np.isnan(run), np.nan, end - start - run),
        **{n: told(n, 1.0) for n in ("bytes_read", "bytes_fetched", "bytes_local", "bytes_out", "bytes_written", "bytes_spilled",
                                     "memory_bytes")},
    }  # fmt: skip
    order = row_order(found)
    table = task_table(found, order)
    return _numbered(table)


def _numbered(table: dict[str, Array]) -> dict[str, Array]:
    """Attempts of a task counted from 0 in the order of their beginnings: a log may number two alike (speculation, retries)."""
    order = np.lexsort((table["start_s"], table["partition"], table["group"]))
    table = {n: c[order] for n, c in table.items()}
    group, partition = table["group"], table["partition"]
    new = np.ones(len(group), dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (partition[1:] != partition[:-1])
    first = np.flatnonzero(new)
    table["attempt"] = np.arange(len(group)) - np.repeat(first, np.diff([*first, len(group)]))
    return table
