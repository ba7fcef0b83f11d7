"""What is computed, engine-neutral: operators with a kernel each, tied into a pipeline.

The module owns the vocabulary of plans and their validation. It knows no engine, no file path and no cost; a kernel is data
(`Filter`, `Join`, ...) or the dotted name of a pure function Arrow batch → Arrow batch (`MapBatches`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from windtunnel.errors import InputError, nearest
from windtunnel.spec.canonical import digest
from windtunnel.spec.expr import Expr

Kind = Literal[
    "scan", "map", "flat_map", "filter", "project", "group_map", "aggregate", "join", "sort", "limit", "sink", "task"
]  # fmt: skip
Exchange = Literal["forward", "hash", "range", "broadcast", "gather"]
AggregateFunction = Literal["sum", "count", "mean", "min", "max"]
Fields = tuple[tuple[str, str], ...]  # (column, Arrow type name such as "int64", "string", "timestamp[us]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Read ``columns`` of a table of the data set; ``predicate`` may be pushed into the reader."""

    table: str
    columns: tuple[str, ...]
    predicate: Expr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Keep rows where ``predicate`` is true."""

    predicate: Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Exactly these columns, each an expression: ``(("revenue", col("price") * col("qty")), ...)``."""

    columns: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapBatches:
    """A Python kernel: ``function`` is "module:name"; called as ``f(batch, **params)`` with a `pyarrow.RecordBatch`.

    It returns a RecordBatch of ``schema`` (a flat_map kernel may yield several). A stateful kernel names a class: built
    once a worker as ``Class(**params)`` and called with each batch.
    """

    function: str
    params: tuple[tuple[str, bool | int | float | str], ...] = ()
    schema: Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMap:
    """A Python kernel over complete groups: its batch holds whole groups of ``keys``, sorted by keys, then ``order_by``."""

    keys: tuple[str, ...]
    order_by: tuple[str, ...]
    function: str
    params: tuple[tuple[str, bool | int | float | str], ...] = ()
    schema: Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """``name = function(column)``; ``count`` counts rows and takes no column."""

    name: str
    function: AggregateFunction
    column: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) != (self.function == "count"):
            raise InputError(f"measure {self.name!r}: count takes no column, {self.function!r} needs one unless it is count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """Group by ``keys`` (may be empty: one row) and compute ``measures``. Output columns: keys, then measures."""

    keys: tuple[str, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Inner or left-semi equi-join of inputs (left, right). Output: left columns, then right columns without its keys."""

    left_keys: tuple[str, ...]
    right_keys: tuple[str, ...]
    how: Literal["inner", "semi"] = "inner"
    broadcast: bool = False  # the right side is small: a hint that engines may use


@dataclass(frozen=True, slots=True, kw_only=True)
class SortKey:
    """A column and its direction; ties are unordered."""

    column: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Global order by ``keys``."""

    keys: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The first ``count`` rows of the input order."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Write Parquet files into the run's output folder; files sorted by name hold the rows in order."""

    format: Literal["parquet"] = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Declared duration of a call: ``per_batch_s + per_row_s * rows + per_byte_s * bytes``, lognormal with mean 1 and ``cv``."""

    per_batch_s: float = 0.0
    per_row_s: float = 0.0
    per_byte_s: float = 0.0
    cv: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """An operator declared by cost: takes its declared time, emits ``rows_out`` rows a row of ``row_bytes_out`` bytes."""

    cost: Cost
    rows_out: float = 1.0
    row_bytes_out: int | None = None  # None: as wide as the input
    fixed_work: Literal["spin", "sleep"] = "spin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Group ``group`` of the workload's job graph: ``tasks`` tasks, each with the duration that was recorded for it."""

    group: int
    tasks: int


Kernel = (
    Scan | Filter | Project | MapBatches | GroupMap | Aggregate | Join | Sort | Limit | Sink | Synthetic | Recorded
)  # fmt: skip
_KINDS: dict[type, tuple[str, ...]] = {
    Scan: ("scan",), Filter: ("filter",), Project: ("project",), MapBatches: ("map", "flat_map"), GroupMap: ("group_map",),
    Aggregate: ("aggregate",), Join: ("join",), Sort: ("sort",), Limit: ("limit",), Sink: ("sink",),
    Synthetic: ("map", "flat_map", "filter", "aggregate", "join", "sort", "sink"), Recorded: ("task",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one task (or actor) of an operator occupies; ``custom`` are tags such as (("camera", 1.0),)."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0  # working memory beyond input and output blocks
    custom: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.gpus < 0 or self.memory_bytes < 0 or any(v <= 0 for _, v in self.custom):
            raise InputError(f"resources must not be negative: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """``stateless``, or an ``actor`` that loads once a worker (declared load time and memory)."""

    kind: Literal["stateless", "actor"] = "stateless"
    load_s: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """Bounds of an actor pool, or of the tasks of an operator that run at once; ``maximum`` None = as resources allow."""

    minimum: int = 1
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.minimum < 1 or (self.maximum is not None and self.maximum < self.minimum):
            raise InputError(f"concurrency must satisfy 1 ≤ minimum ≤ maximum, not {self.minimum}, {self.maximum}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One step of a pipeline. ``batch_rows`` 0 = the whole block a call. ``inputs`` name earlier operators."""

    name: str
    kind: Kind
    kernel: Kernel
    inputs: tuple[str, ...] = ()
    batch_rows: int = 0
    resources: Resources = Resources()
    state: State = State()
    concurrency: Concurrency | None = None
    language: Literal["python", "native"] = "native"

    def __post_init__(self) -> None:
        allowed = _KINDS[type(self.kernel)]
        if self.kind not in allowed:
            raise InputError(f"operator {self.name!r}: kind {self.kind!r} does not fit its kernel; use {' or '.join(allowed)}")
        arity = {"scan": 0, "join": 2}.get(self.kind, 1)
        if len(self.inputs) != arity and self.kind != "task":
            raise InputError(f"operator {self.name!r}: a {self.kind} takes {arity} inputs, not {len(self.inputs)}")
        if self.batch_rows < 0:
            raise InputError(f"operator {self.name!r}: batch_rows must be 0 or more, not {self.batch_rows}")

    @property
    def exchange(self) -> Exchange:
        """How its input must be distributed."""
        if self.kind == "aggregate" and isinstance(self.kernel, Aggregate) and not self.kernel.keys:
            return "gather"
        if self.kind == "join" and isinstance(self.kernel, Join) and self.kernel.broadcast:
            return "broadcast"
        table: Mapping[str, Exchange] = {
            "aggregate": "hash", "join": "hash", "group_map": "hash", "sort": "range", "limit": "gather",
        }  # fmt: skip
        return table.get(self.kind, "forward")

    @property
    def blocking(self) -> bool:
        """Whether it must see all its input before its first output."""
        return self.kind in ("aggregate", "sort", "group_map") or (self.kind == "join" and self.exchange == "hash")


@dataclass(frozen=True)
class Pipeline:
    """Operators in a valid order, each after its inputs; exactly one has no consumer, unless they are groups of recorded tasks."""

    operators: tuple[Operator, ...]
    _by_name: dict[str, Operator] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.operators:
            raise InputError("a pipeline needs at least one operator")
        for op in self.operators:
            if op.name in self._by_name:
                raise InputError(f"operator name {op.name!r} is used twice; names must be unique")
            for name in op.inputs:
                if name not in self._by_name:
                    raise InputError(
                        f"operator {op.name!r}: input {name!r} is not an earlier operator{nearest(name, self._by_name)}"
                    )
            self._by_name[op.name] = op
        if len(self.sinks) != 1 and not all(o.kind == "task" for o in self.operators):
            raise InputError(f"a pipeline ends in one operator, not {len(self.sinks)}: {', '.join(o.name for o in self.sinks)}")

    def __getitem__(self, name: str) -> Operator:
        if name not in self._by_name:
            raise InputError(f"no operator {name!r}{nearest(name, self._by_name)}")
        return self._by_name[name]

    def upstream(self, name: str) -> tuple[Operator, ...]:
        """Its direct inputs, in order."""
        return tuple(self[n] for n in self[name].inputs)

    def topological(self) -> tuple[Operator, ...]:
        """Every operator after its inputs."""
        return self.operators

    @property
    def sinks(self) -> tuple[Operator, ...]:
        """Operators whose output nobody consumes."""
        used = {name for op in self.operators for name in op.inputs}
        return tuple(op for op in self.operators if op.name not in used)

    @property
    def output(self) -> Operator:
        """The last operator that nobody consumes."""
        return self.sinks[-1]

    def digest(self) -> str:
        """Hash of the canonical JSON of the operators."""
        return digest(self.operators)
