"""What an engine is to the harness: four methods, capabilities as data, options as data.

An adapter imports its heavy library inside its methods, never at module level. ``open`` starts sessions and workers,
``prepare`` does all that must not be timed for one workload (plan, upload code), ``run`` is the timed part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from windtunnel.errors import InputError, Unsupported, nearest
from windtunnel.records.record import Recorder
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.plan import Synthetic
from windtunnel.spec.workload import BoundWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An engine option: name, default, one sentence; ``choices`` where the values are few.

    ``check``: raises InputError for a value that makes no sense, before anything runs. None, which only programs can give, passes where
    it is the default and where it may mean "no limit".
    """

    name: str
    default: Any
    doc: str
    choices: tuple[Any, ...] = ()
    check: Callable[[Any], object] | None = None

    def refuse_nonsense(self, value: object) -> None:
        """Raise InputError for a value that the option cannot take."""
        if self.choices and value not in self.choices:
            raise InputError(f"{value!r} must be one of {', '.join(map(repr, self.choices))}")
        if self.check and not (value is None and self.default is None):
            self.check(value)
        elif (
            value is not None
            and isinstance(self.default, (int, float))
            and not self.choices
            and not _is_number_like(self.default, value)
        ):
            kind = (
                "true or false"
                if isinstance(self.default, bool)
                else f"a {'whole' if isinstance(self.default, int) else 'finite'} number"
            )
            raise InputError(f"{value!r} must be {kind}")


def _is_number_like(default: float, value: object) -> bool:
    """Whether ``value`` is of the kind that ``default`` is: true or false, a whole number, or a finite one."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or (isinstance(default, float) and math.isfinite(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do, each gap with one sentence: the source of the capability table in the docs.

    ``gaps`` maps an operator kind, a format ("orc"), "declared" (operators declared by cost; "declared join": those of a kind),
    "gpu" or "remote" (an address) to the sentence why not.
    ``features`` maps a feature ("backpressure", "spill", "actors", "retries", "processes") to how it is done.
    """

    gaps: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What a run produced: a table, or a folder of Parquet files (a pipeline that ends in a sink), or a count (simulated).

    ``seconds``: the part of the run that counts, where the run has to do more than that.
    ``verified``: the run itself has compared every result with what it must be, as a load generator does with answers.
    ``account``: counters that the engine tells of the run when it is asked, which takes time and is not timed.
    """

    table: pa.Table | None = None
    path: Path | None = None
    rows: int | None = None
    seconds: float | None = None
    verified: bool = False
    account: Callable[[], Mapping[str, float]] = dict


class Session(Protocol):
    """An open engine. Not thread-safe. ``close`` leaves no process, port, folder or shared-memory block behind."""

    def prepare(self, workload: BoundWorkload) -> None:
        """Untimed: plan the workload. Raises Unsupported for what the engine cannot run."""
        ...

    def run(self, workload: BoundWorkload, recorder: Recorder, output: Path) -> Outcome:
        """Timed: execute once. ``output`` is an empty folder for sinks. Raises RunFailed and its kin."""
        ...

    def close(self) -> None:
        """Stop everything; idempotent."""
        ...


class Engine(Protocol):
    """A way to run workloads."""

    name: str
    capabilities: Capabilities
    options: tuple[Option, ...]

    def version(self) -> str:
        """Version of the library behind it."""
        ...

    def open(self, cluster: ClusterSpec, options: Mapping[str, Any]) -> Session:
        """Start within ``cluster``'s budget of CPUs and memory. Raises InputError for unknown options."""
        ...


def resolve_options(engine: str, known: tuple[Option, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults overlaid with ``given``; unknown names and values that an option refuses are InputErrors."""
    table = {o.name: o for o in known}
    for name, value in given.items():
        if name not in table:
            raise InputError(f"engine {engine!r} has no option {name!r}{nearest(name, table)}")
        try:
            table[name].refuse_nonsense(value)
        except InputError as error:
            raise InputError(f"engine {engine!r}: option {name}: {error}") from None
    return {name: given.get(name, option.default) for name, option in table.items()}


def require(capabilities: Capabilities, engine: str, workload: BoundWorkload, address: str | None = None) -> None:
    """Raise Unsupported for the first declared gap that the workload meets: an operator's kind, a format, declared costs, an address."""
    gaps = capabilities.gaps
    if workload.workload.clients is not None:
        raise Unsupported(
            f"{engine} runs pipelines; workload {workload.workload.name!r} is clients' work on a system that keeps data, such as delta"
        )
    for op in workload.pipeline.operators:
        declared = ("declared", f"declared {op.kind}") if isinstance(op.kernel, Synthetic) else ()
        kinds = (op.kind, *declared, *(("gpu",) if op.resources.gpus else ()))
        for kind in kinds:
            if kind in gaps:
                raise Unsupported(f"{engine} cannot run operator {op.name!r}: {gaps[kind]}")
    for table in workload.tables:
        if table.format in gaps:
            raise Unsupported(f"{engine} cannot read table {table.name!r} from {table.format}: {gaps[table.format]}")
    if address is not None and "remote" in gaps:
        raise Unsupported(f"{engine} takes no address ({address}): {gaps['remote']}")
