"""Two engines, one after the other: the first runs the plan up to a cut, the second the rest, on what the first handed over.

The first one's answer comes as Arrow, and goes on through storage (Parquet files on disk) or through memory (Arrow files on the
shared-memory file system), in as many files as the data set has partitions, so that only the way differs. Each leg is a whole run of its
engine, with a plan and an answer of its own: that, and the way between, is what a pair costs beside one engine that does it all. The
module knows no engine by name.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

import windtunnel
from windtunnel.engines.adapters.common import output_columns
from windtunnel.engines.api import Capabilities, Option, Outcome, Session, require, resolve_options
from windtunnel.engines.local.store import memory_folder
from windtunnel.errors import InputError, RunFailed
from windtunnel.records.record import Recorder
from windtunnel.registry import load_engine
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import GroupMap, MapBatches, Operator, Pipeline, Scan
from windtunnel.spec.units import parse_count
from windtunnel.spec.workload import BoundWorkload, TableData, Workload

TABLE = "handed"  # the scan and the table that the second leg begins with
_PLAIN = {"large_string": pa.string(), "string_view": pa.string(), "large_binary": pa.binary(), "binary_view": pa.binary()}


class PairSession:
    """Both engines, open; what is handed over lies in a folder of the session, on disk and in memory."""

    def __init__(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> None:
        names = [options["first"], options["second"]]
        for place, name in zip(("first", "second"), names, strict=True):
            if name is None or name == "pair":
                raise InputError(f"engine 'pair' needs option {place}: the name of an engine, such as {place} = 'duckdb'")
        if names[0] == names[1]:
            raise InputError(f"both legs of a pair are {names[0]!r}: one engine hands nothing over; run it by its own name")
        self._options, self._names = options, names
        self._cpus, self._way = cluster.cpus, options["through"]
        self._folder = Path(tempfile.mkdtemp(prefix="wt-pair-", dir=memory_folder() if self._way == "arrow" else None))
        self._sessions: list[Session] = []
        self._starts: list[float] = []
        self._engines = [load_engine(name) for name in names]
        try:
            for engine, place in zip(self._engines, ("first_options", "second_options"), strict=True):
                begun = time.perf_counter()
                self._sessions.append(engine.open(cluster, dict(options[place])))
                self._starts.append(time.perf_counter() - begun)
        except BaseException:
            self.close()
            raise

    def prepare(self, workload: BoundWorkload) -> None:
        """Untimed: cut the plan, and prepare the first leg. The second's is planned when its input is there."""
        require(PairEngine.capabilities, "pair", workload)
        first, second = (replace(workload, workload=leg) for leg in legs(workload, self._options["cut"]))
        self._sessions[0].prepare(first)
        placeholder = TableData(name=TABLE, format=self._way, paths=(), rows=0, bytes=0, schema=())
        require(self._engines[1].capabilities, self._names[1], replace(second, tables=(*workload.tables, placeholder)))
        self._first, self._second = first, second
        self._pieces = int(self._options["pieces"] or workload.workload.dataset.partitions)

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Timed: the first leg, handing over, planning the second leg, the second leg."""
        place = Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))
        told = Recorder(), Recorder()
        try:
            start = time.perf_counter()
            answer = self._sessions[0].run(self._first, told[0], place)
            first_done = time.perf_counter()
            if answer.table is None:
                raise RunFailed(f"{self._names[0]} gave no table to hand over")
            table = self._handed(answer.table, place)
            handed = time.perf_counter()
            second = replace(self._second, tables=(*workload.tables, table))
            self._sessions[1].prepare(second)
            planned = time.perf_counter()
            outcome = self._sessions[1].run(second, told[1], output)
            end = time.perf_counter()
        finally:
            shutil.rmtree(place, ignore_errors=True)
        _join(recorder, told[0], 0.0)
        _join(recorder, told[1], planned - start)
        recorder.counters |= {
            "first_start_s": self._starts[0], "second_start_s": self._starts[1], "first_leg_s": first_done - start,
            "handover_s": handed - first_done, "second_plan_s": planned - handed, "second_leg_s": end - planned,
            "handover_bytes": float(table.bytes), "handover_rows": float(table.rows),
        }  # fmt: skip
        return replace(outcome, account=lambda: _sum(answer.account(), outcome.account()))

    def _handed(self, answer: pa.Table, place: Path) -> TableData:
        """The first one's answer as a table of the second: written on all CPUs, in pieces of equal rows."""
        whole = plain(answer)
        size = max(1, -(-whole.num_rows // self._pieces))
        parts = [whole.slice(start, size) for start in range(0, max(1, whole.num_rows), size)]
        paths = [place / f"part-{number:05d}.{self._way}" for number in range(len(parts))]
        with ThreadPoolExecutor(self._cpus) as pool:
            list(pool.map(_WRITERS[self._way], parts, paths))
        schema = tuple((field.name, str(field.type)) for field in whole.schema)
        written = sum(path.stat().st_size for path in paths)
        names = tuple(str(path) for path in paths)
        return TableData(name=TABLE, format=self._way, paths=names, rows=whole.num_rows, bytes=written, schema=schema)

    def close(self) -> None:
        """Close both, the second first."""
        for session in reversed(self._sessions):
            session.close()
        self._sessions = []
        shutil.rmtree(self._folder, ignore_errors=True)


def _join(recorder: Recorder, leg: Recorder, offset_s: float) -> None:
    """Spans and counters of a leg, as parts of the whole run."""
    for kind, operator, partition, worker, attempt, start, end, rows, size in leg.spans:
        recorder.spans.append((kind, operator, partition, worker, attempt, start + offset_s, end + offset_s, rows, size))
    for name, at, value in leg.samples:
        recorder.sample(name, at + offset_s, value)
    for name, value in leg.counters.items():
        recorder.count(name, value)


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in {**first, **second}}


# -- handing over -----------------------------------------------------------------------------------------------------


def plain(table: pa.Table) -> pa.Table:
    """Texts and binaries as every engine reads them, whatever wide or view layout the first one has."""
    return table.cast(pa.schema([pa.field(f.name, _PLAIN.get(str(f.type), f.type)) for f in table.schema]))


def _write_arrow(part: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, part.schema) as writer:
        writer.write_table(part)


def _write_parquet(part: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(part, path)


_WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {"arrow": _write_arrow, "parquet": _write_parquet}


# -- cutting the plan -------------------------------------------------------------------------------------------------


def legs(bound: BoundWorkload, cut: str | None) -> tuple[Workload, Workload]:
    """The plan up to operator ``cut`` (default: the last before the first kernel in Python), and the rest on a table of its rows.

    Raises InputError where operators behind the cut read others than it.
    """
    workload, operators = bound.workload, bound.pipeline.operators
    name = _usual_cut(operators) if cut is None else bound.pipeline[cut].name
    before = _needed(bound.pipeline, name)
    after = [op for op in operators if op.name not in before]
    for op in after:
        for source in op.inputs:
            if source in before and source != name:
                raise InputError(f"a plan cannot be cut behind {name!r}: {op.name!r}, which comes later, reads {source!r}")
    if not after:
        raise InputError(f"a cut behind {name!r}, the last operator, leaves nothing to the second engine")
    first = Pipeline(tuple(op for op in operators if op.name in before))
    scan = Operator(name=TABLE, kind="scan", kernel=Scan(table=TABLE, columns=output_columns(bound, name)))
    rest = [replace(op, inputs=tuple(TABLE if source == name else source for source in op.inputs)) for op in after]
    return replace(workload, pipeline=first), replace(workload, pipeline=Pipeline((scan, *rest)))


def _usual_cut(operators: tuple[Operator, ...]) -> str:
    for op in operators:
        if isinstance(op.kernel, (MapBatches, GroupMap)) and op.inputs:
            return op.inputs[0]
    raise InputError("the plan has no kernel in Python to cut before; say option cut = the operator after which to cut")


def _needed(pipeline: Pipeline, name: str) -> set[str]:
    """The operator and all that it follows from."""
    found = {name}
    for op in reversed(pipeline.operators):
        if op.name in found:
            found.update(op.inputs)
    return found


class PairEngine:
    """ETL in one engine, the rest in another."""

    name = "pair"
    options = (
        Option(name="first", default=None, doc="the engine of the first leg"),
        Option(name="second", default=None, doc="the engine of the second leg"),
        Option(
            name="through", default="parquet", choices=("parquet", "arrow"),
            doc="the way between: Parquet files on disk, or Arrow files in shared memory",
        ),
        Option(name="cut", default=None, doc="operator after which to cut; default the last before the first kernel in Python"),
        Option(name="pieces", check=parse_count, default=None, doc="files between the legs; default the partitions of the data set"),
        Option(name="first_options", default={}, doc="options of the first engine"),
        Option(name="second_options", default={}, doc="options of the second engine"),
    )  # fmt: skip
    capabilities = Capabilities(
        gaps={
            "gpu": "the second leg's input is there only when the first is done, and emulated devices have their answers from it",
            "remote": "it hands over through files of this machine",
        },
        features={
            "legs": "two engines, one after the other; both are started before the run, the second leg is planned in it",
            "hand-over": "the first one's answer as Arrow, written to Parquet on disk or to Arrow files in shared memory",
        },
    )

    def version(self) -> str:
        """windtunnel's version; those of the engines are among the libraries of the record."""
        return windtunnel.__version__

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> PairSession:
        """Start both engines."""
        return PairSession(cluster, resolve_options(self.name, self.options, options))
