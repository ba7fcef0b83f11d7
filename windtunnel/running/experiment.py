"""The matrix of an experiment: every workload on every engine, in shuffled interleaved rounds, one process a cell, resumable.

The module owns order, time-outs and resuming. It measures nothing itself and knows no engine: a cell's child process (`cell`)
runs, the parent's end of it (`child`) samples it and attaches the samples, and the record is appended to the store. Simulated
cells run in this process, or side by side (`pool`).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from windtunnel.errors import BadRecord, InputError, sentences
from windtunnel.records.lock import sole_writer
from windtunnel.records.record import RunRecord
from windtunnel.records.store import Store
from windtunnel.running import pool
from windtunnel.running.cell import run_cell
from windtunnel.running.cellspec import CellSpec, WorkloadChoice, cell_digest, default_data_root
from windtunnel.scenario.tables import EngineChoice
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.strict import Place, unique

AA_SUFFIX = " (A/A)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What just happened: a workload's data are being made, a cell begins, or a record was stored."""

    kind: Literal["data", "cell", "record"]
    index: int
    total: int
    text: str
    record: RunRecord | None = None


Callback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What to compare. ``rounds`` × ``repetitions`` measured runs a cell; each round visits every cell once, in its own order.

    ``aa`` adds a second cell of the first real engine of each workload, labelled "… (A/A)": the difference between the two is
    noise. ``timeout_s`` bounds one cell in one round.
    """

    name: str
    workloads: tuple[WorkloadChoice, ...]
    engines: tuple[EngineChoice, ...]
    cluster: ClusterSpec
    repetitions: int = 5
    rounds: int = 1
    seed: int = 7
    timeout_s: float = 600.0
    aa: bool = True
    data_root: Path = field(default_factory=default_data_root)

    def __post_init__(self) -> None:
        if self.repetitions < 1 or self.rounds < 1 or not self.timeout_s > 0:
            raise InputError(f"experiment {self.name!r} needs repetitions, rounds and a time-out above 0")
        if not self.workloads:
            raise InputError(f"experiment {self.name!r} needs at least one workload")
        unique((e.label for e in self.engines), Place("experiment"), "engine label")

    def cells(self) -> tuple[CellSpec, ...]:
        """All cells in the order in which they run: rounds interleaved, each shuffled with the seed."""
        base = [cell for choice in self.workloads for cell in self._cells_of(choice)]
        ordered: list[CellSpec] = []
        for number in range(self.rounds):
            shuffled = list(base)
            random.Random(f"{self.seed}:{number}").shuffle(shuffled)
            first = number * self.repetitions
            ordered += [replace(c, round=number, repetitions=tuple(range(first, first + self.repetitions))) for c in shuffled]
        return tuple(ordered)

    def _cells_of(self, choice: WorkloadChoice) -> Iterator[CellSpec]:
        workload, cluster = choice.load(), choice.cluster or self.cluster
        engines = choice.engines or self.engines
        for engine in (*engines, *self._aa_arm(engines)):
            yield CellSpec(
                experiment=self.name,
                workload=choice,
                engine=engine,
                cluster=cluster,
                repetitions=(),
                round=0,
                seed=self.seed,
                data_root=str(self.data_root),
                store_root="",
                cell=cell_digest(self.name, workload, engine, cluster, choice.sweep),
            )

    def _aa_arm(self, engines: tuple[EngineChoice, ...]) -> tuple[EngineChoice, ...]:
        real = [e for e in engines if not e.name.startswith("sim:")]
        return (replace(real[0], label=real[0].label + AA_SUFFIX),) if self.aa and real else ()

    def manifest(self) -> dict[str, Any]:
        """What was asked, as plain data for the store."""
        return {
            "experiment": self.name, "repetitions": self.repetitions, "rounds": self.rounds, "seed": self.seed,
            "timeout_s": self.timeout_s, "aa": self.aa,
            "cells": [
                {"cell": c.cell, "round": c.round, "workload": c.workload.name, "parameters": c.workload.parameters,
                 "sweep": c.workload.sweep, "engine": c.engine.name, "label": c.engine.label, "options": c.engine.options}
                for c in self.cells()
            ],
        }  # fmt: skip

    def run(
        self, store: Store, *, resume: bool = False, progress: Callback | None = None, jobs: int = 1, address: str | None = None
    ) -> tuple[RunRecord, ...]:
        """Run every cell; with ``resume`` those without a finished record. Returns all records of the experiment's cells.

        Real cells run one by one; of simulated ones ``jobs`` side by side, or on the Dask cluster at ``address``. Ctrl-C stops
        what is running and keeps every finished record. Raises InputError where another process writes into the same folder.
        """
        notify = progress or (lambda event: None)
        with sentences(), sole_writer(store.root):
            return self._run(store, resume, notify, jobs, address)

    def _run(self, store: Store, resume: bool, notify: Callback, jobs: int, address: str | None) -> tuple[RunRecord, ...]:
        cells = self.cells()
        todo = [c for c in (remaining(cell, store) for cell in cells) if c is not None]
        if not resume:
            _refuse_second_run(cells, store)
        store.write_manifest(self.manifest())
        self._make_data(notify)
        if todo:
            notify(Progress(kind="cell", index=0, total=len(todo), text=_title(todo[0])))
        for index, (cell, records) in enumerate(self._ran(todo, store, jobs, address)):
            notify(Progress(kind="cell", index=index, total=len(todo), text=_title(cell)))
            for record in records:
                notify(Progress(kind="record", index=index, total=len(todo), text=_title(cell), record=record))
        mine = {c.cell for c in cells}
        found = (store.read(i) for i in store.run_ids() if i.split("-")[0] in mine)
        return tuple(sorted(found, key=lambda r: (r.workload, r.label, r.cell, r.repetition)))

    def _ran(
        self, todo: list[CellSpec], store: Store, jobs: int, address: str | None
    ) -> Iterator[tuple[CellSpec, Iterable[RunRecord]]]:
        """Real cells in their order, with records as they come; then simulated ones as they end. All records are stored."""
        yield from ((c, _run_child(c, store, self.timeout_s)) for c in todo if c.clock != "virtual")
        virtual = [c for c in todo if c.clock == "virtual"]
        with contextlib.closing(pool.each(simulated, virtual, jobs=jobs, address=address)) as ended:
            for cell, records in ended:
                for record in records:
                    store.append(record)
                yield cell, records

    def _make_data(self, notify: Callback) -> None:
        """Before any cell, so that no time-out pays for it."""
        for index, choice in enumerate(self.workloads):
            notify(Progress(kind="data", index=index, total=len(self.workloads), text=f"data of {choice.name}"))
            choice.load().bind(self.data_root)


def remaining(cell: CellSpec, store: Store) -> CellSpec | None:
    """The cell with the repetitions that have no record; None when done, or when it failed before."""
    done = {r for r in cell.repetitions if cell.run_id(r) in store}
    left = tuple(r for r in cell.repetitions if r not in done)
    if not left or any(_status(store, cell.run_id(r)) != "ok" for r in sorted(done)):
        return None
    return replace(cell, repetitions=left)


def _status(store: Store, run_id: str) -> str:
    try:
        return store.status(run_id)
    except BadRecord as error:
        raise BadRecord(f"{error}; without that file --resume makes the run again") from error


def _refuse_second_run(cells: tuple[CellSpec, ...], store: Store) -> None:
    for cell in cells:
        for repetition in cell.repetitions:
            if cell.run_id(repetition) in store:
                raise InputError(
                    f"{store.root} already holds runs of experiment {cell.experiment!r}; add --resume to go on, or use another folder"
                )


def _title(cell: CellSpec) -> str:
    sweep = ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in cell.workload.sweep.items())
    return f"{cell.workload.name} · {cell.engine.label}" + (f" · {sweep}" if sweep else "")


def simulated(cell: CellSpec) -> list[RunRecord]:
    """The records of a simulated cell: there is nothing to measure from outside and nothing to leave behind."""
    records: list[RunRecord] = []
    run_cell(cell, lambda record, start, end: records.append(record))
    return records


def _run_child(cell: CellSpec, store: Store, timeout_s: float) -> Iterator[RunRecord]:
    """One cell in a child process with a scratch folder of its own."""
    from windtunnel.running.child import Child

    scratch = Path(tempfile.mkdtemp(prefix="wt-"))
    told = replace(
        cell,
        scratch=str(scratch),
        store_root=str(scratch / "pending"),
        own_group=True,
        marker=f"{cell.cell}.{os.getpid()}.{cell.round}",
    )
    try:
        with contextlib.closing(Child(told, timeout_s)) as child:
            for record in child.records():
                if record.run_id not in store:  # a repeated warm-up of a resumed cell is not kept twice
                    store.append(record)
                    yield record
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
