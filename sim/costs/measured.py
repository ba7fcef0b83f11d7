"""What was measured, as data: operator costs, engine overheads, where they come from and how far off they are.

A `Calibration` is written and read as JSON, never pickled. The module knows numbers and their names; what a stage of a
job costs with them is told by `windtunnel.sim.costs.laws`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError, nearest
from windtunnel.spec.canonical import digest
from windtunnel.spec.documents import parse_json, read_text
from windtunnel.spec.strict import Place

SCHEMA = 1
MOST_BYTES = 64 * 2**20  # of a calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """Cost of one phase of an operator of a workload, a task: ``fixed_s + per_row_s * rows + per_byte_s * bytes`` of its input,
    Kernels that were called with several numbers of rows have a ``curve`` in its place, points (rows, seconds a call): ``per_row_s`` is
    then a row of its largest call, for reading. Of phase ``Load``, ``fixed_s`` is what a worker takes to load a stateful operator,
    ``first_s`` and ``first_row_s`` a row of a call how much longer its first task takes than the later ones.

    It emits ``rows_factor * rows ** rows_exponent`` rows (exponent 1: proportional, 0: constant, as groups of an aggregate) of
    ``row_bytes_out`` bytes. For a scan "rows" and "bytes" of the cost are its output, and ``rows`` of the second formula is
    the scale of the data set: the total over all partitions. ``cv``: coefficient of variation around the formula.
    ``sensitivity``: share of the engine's co-run slowdown that it feels, 1 = all of it (operators bound by memory feel more).
    ``error``: median relative residual over ``samples`` spans.
    """

    workload: str
    operator: str
    phase: str
    fixed_s: float = 0.0
    per_row_s: float = 0.0
    per_byte_s: float = 0.0
    first_s: float = 0.0
    first_row_s: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()
    cv: float = 0.0
    rows_factor: float = 1.0
    rows_exponent: float = 1.0
    row_bytes_out: float | None = None
    sensitivity: float = 1.0
    samples: int = 0
    error: float = 0.0

    def __post_init__(self) -> None:
        seconds = (self.fixed_s, self.per_row_s, self.per_byte_s, self.first_s, self.first_row_s, *(s for _, s in self.curve))
        if min(*seconds, self.cv, self.rows_factor, self.sensitivity) < 0:
            raise InputError(f"costs of {self.workload}/{self.operator}/{self.phase} must not be negative: {self}")


MAPPED_BYTES = 32 * 2**20  # glibc: an allocation above is always mapped (DEFAULT_MMAP_THRESHOLD_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCost:
    """Overheads of one engine. The driver is a server: ``launch_s`` a task it sends, ``done_s`` a task that ends, ``block_s``
    an early block. A worker pays ``task_s`` a task, ``fetch_*`` to map inputs and ``emit_*`` to write blocks (bytes per
    second 0 = bytes are free); rows larger than `MAPPED_BYTES` at ``emit_mapped_bytes_per_s`` (0 = as all others), since their
    memory is mapped anew for every copy. Pages of released blocks are given back at ``forget_bytes_per_s`` (0 = at once), by the driver,
    or by the worker that still maps them when it turns to its next task. A worker's first task of a run takes ``cold`` times
    as long: its memory is not touched yet.
    ``startup_s`` passes before the first launch, ``finish_s`` after the last block. Pool workers come up in
    ``worker_start_s``, actors (always new processes) in ``actor_start_s``.
    With ``keeps_state`` a warm session holds stateful operators in its pool's workers: they load nothing, and their rows are worked on
    in tasks like any other.
    ``slowdown``: points (busy workers of a node, duration multiplier).

    Rows of Python operators cross a bridge to engines of another language: ``bridge_row_s`` a row and ``bridge_bytes_per_s``
    each way (0 = no bridge), and ``python_copies`` copies of a task's larger side lie in memory meanwhile. A task that needs a
    device waits ``device_restart_s`` for a fresh process before it computes. ``driver_memory_bytes`` lie on the first node.
    Files are ``compression`` times as large as the blocks in them. A task that writes or fetches more than ``merge_bytes`` of files
    (0 = no limit) sorts in several runs: it writes and reads them once more. With ``round_s`` the driver reads its messages in
    rounds: when all running tasks have told something, or so long after the last round (see `windtunnel.sim.world.rounds`; 0 = at once);
    a round in which nothing was told takes it ``loop_s``; what it reads is known ``metadata_s`` later, for a round to come (0 = at once).
    In a model of a larger cluster a block in a shuffle file stands for ``pieces``, for each of which a spinning disk seeks.
    """

    engine: str
    startup_s: float = 0.0
    finish_s: float = 0.0
    worker_start_s: float = 0.0
    actor_start_s: float = 0.0
    launch_s: float = 30e-6
    done_s: float = 30e-6
    block_s: float = 30e-6
    round_s: float = 0.0
    loop_s: float = 0.0
    metadata_s: float = 0.0
    task_s: float = 100e-6
    fetch_block_s: float = 50e-6
    fetch_bytes_per_s: float = 0.0
    emit_block_s: float = 100e-6
    emit_bytes_per_s: float = 2e9
    emit_mapped_bytes_per_s: float = 0.0
    forget_bytes_per_s: float = 0.0
    cold: float = 1.0
    keeps_state: bool = False
    worker_memory_bytes: int = 0
    driver_memory_bytes: int = 0
    bridge_row_s: float = 0.0
    bridge_bytes_per_s: float = 0.0
    python_copies: float = 0.0
    device_restart_s: float = 0.0
    compression: float = 1.0
    merge_bytes: float = 0.0
    pieces: float = 1.0
    slowdown: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("worker_memory_bytes", "driver_memory_bytes"):  # constants are given as 150e6, say
            object.__setattr__(self, name, round(getattr(self, name)))
        if any(getattr(self, f.name) < 0 for f in dataclasses.fields(self) if f.type in _NUMBERS):
            raise InputError(f"overheads of engine {self.engine!r} must not be negative: {self}")
        if any(m < 1.0 for _, m in self.slowdown) or any(
            a[0] >= b[0] for a, b in zip(self.slowdown, self.slowdown[1:], strict=False)
        ):
            raise InputError(f"slowdown of engine {self.engine!r} needs rising worker counts and multipliers of 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How far the fitted costs are from what they were fitted to, with the relative error: total worker seconds of a run of an embedded
    engine, seconds of a cell of another."""

    cell: str
    engine: str
    measured_s: float
    fitted_s: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A measured cell and what was simulated with costs that had not seen it. ``group``: cells that stand and fall together
    (a workload, a published table)."""

    engine: str
    cell: str
    group: str
    cpus: int
    measured_s: float
    simulated_s: float

    def __post_init__(self) -> None:
        if not (self.measured_s > 0 and self.simulated_s > 0 and self.cpus > 0):
            raise InputError(f"held-out cell {self.cell!r} needs times and CPUs above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCost:
    """A micro-measurement of the host: the median of ``samples`` with their quartiles. ``at`` says where: "Arrow, text", "8 workers"."""

    name: str
    at: str
    unit: str
    value: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All fitted costs with provenance (host environment, versions, the date that was passed in) and residuals.

    ``held_out``: cells predicted with costs fitted to others, from which intervals follow; ``host``: micro-measurements.
    """

    operators: tuple[OperatorCost, ...] = ()
    engines: tuple[EngineCost, ...] = ()
    residuals: tuple[Residual, ...] = ()
    held_out: tuple[HeldOut, ...] = ()
    host: tuple[HostCost, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def operator(self, workload: str, operator: str, phase: str) -> OperatorCost:
        """The cost of a phase; InputError that tells how to measure it."""
        for cost in self.operators:
            if (cost.workload, cost.operator, cost.phase) == (workload, operator, phase):
                return cost
        known = sorted({c.workload for c in self.operators})
        hint = nearest(workload, known) if workload not in known else ""
        raise InputError(
            f"no measured cost of {phase} of operator {operator!r} in workload {workload!r}{hint}; "
            f"run `windtunnel calibrate` with this workload and pass its file as option calibration"
        )

    def has(self, workload: str, operator: str, phase: str) -> bool:
        """Whether that phase was measured."""
        return any((c.workload, c.operator, c.phase) == (workload, operator, phase) for c in self.operators)

    def engine(self, name: str) -> EngineCost:
        """The overheads of an engine, or defaults of the embedded world."""
        return next((e for e in self.engines if e.engine == name), EngineCost(engine=name))

    def digest(self) -> str:
        """Hash of the canonical JSON."""
        return digest(self)

    def save(self, path: Path) -> None:
        """Write JSON; an existing file is replaced at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read JSON; InputError for a missing, broken or foreign file. No value of it is told: a scenario may name any file."""
        if not path.exists():
            raise InputError(f"calibration {path} cannot be read: there is no such file; make one with `windtunnel calibrate`")
        place = Place(f"calibration {path}")
        plain = parse_json(read_text(path, place, MOST_BYTES), place)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise InputError(f"calibration {path} has not schema {SCHEMA}; make a new one with `windtunnel calibrate`")
        try:
            return cls._from_plain(plain)
        except (TypeError, KeyError, ValueError, InputError) as error:
            raise InputError(f"calibration {path} does not have the fields of schema {SCHEMA}: {error}") from error

    @classmethod
    def _from_plain(cls, plain: dict[str, Any]) -> Calibration:
        if not isinstance(plain["provenance"], dict):
            raise TypeError("provenance is not an object")
        return cls(
            operators=tuple(OperatorCost(**_checked(OperatorCost, entry)) for entry in plain["operators"]),
            engines=tuple(EngineCost(**_checked(EngineCost, entry)) for entry in plain["engines"]),
            residuals=tuple(Residual(**_checked(Residual, entry)) for entry in plain["residuals"]),
            held_out=tuple(HeldOut(**_checked(HeldOut, entry)) for entry in plain.get("held_out", ())),
            host=tuple(HostCost(**_checked(HostCost, entry)) for entry in plain.get("host", ())),
            provenance=plain["provenance"],
        )


_NUMBERS = ("float", "int")  # types of fields, as written


def _checked(kind: type[Any], entry: Any) -> dict[str, Any]:
    """The fields of an entry of a file. Raises TypeError or ValueError where one is of another type or not finite."""
    if not isinstance(entry, dict):
        raise TypeError(f"{kind.__name__} is not an object")
    values = dict(entry)
    for name in {"slowdown", "curve"} & values.keys():
        values[name] = tuple((float(x), float(y)) for x, y in values[name])
    for field in dataclasses.fields(kind):
        value = values.get(field.name, "" if field.type == "str" else 0)
        if field.type == "bool" and not isinstance(values.get(field.name, False), bool):
            raise TypeError(f"{field.name} of {kind.__name__} is neither true nor false")
        optional = value is None and "None" in str(field.type)
        if field.type == "str" and not isinstance(value, str):
            raise TypeError(f"{field.name} of {kind.__name__} is not a text")
        if str(field.type).startswith(_NUMBERS) and not optional and not _is_number(value):
            raise TypeError(f"{field.name} of {kind.__name__} is not a finite number")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
