"""What a record's JSON holds, declared once: types, signs and ranges of every field that anything here reads.

`windtunnel.records.checking` decodes with these types, and the published JSON Schema is made of them. Fields of `Run` may not be missing
or unknown; the inner objects are open, since specifications grow: declared is what reports rely on. The module reads no file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from windtunnel.records.record import Status
from windtunnel.spec.workload import WorkloadKind

#: seconds of a run that ended well: above what a clock can tell, below the age of the universe
LEAST_S, MOST = 1e-9, 1e18
#: one line: no control characters, line separators or marks that turn the direction of text
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
LINE = rf"^[^{_CONTROL}]*$"

Text = Annotated[str, Meta(pattern=LINE, max_length=100_000)]
Name = Annotated[str, Meta(pattern=LINE, min_length=1, max_length=1000)]
FileName = Annotated[str, Meta(pattern=rf"^[^{_CONTROL}/\\.][^{_CONTROL}/\\]*$", max_length=250)]
Makespan = Annotated[float, Meta(ge=LEAST_S, le=MOST, description="seconds")]
Amount = Annotated[float, Meta(ge=0, le=MOST)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Above = Annotated[float, Meta(gt=0, le=MOST)]
Number = Annotated[int, Meta(ge=-(2**62), le=2**63 - 1)]
AtLeastOne = Annotated[int, Meta(ge=1, le=2**62)]


class Resources(Struct, kw_only=True):
    """What a task of an operator occupies."""

    cpus: Amount
    gpus: Amount


class Operator(Struct, kw_only=True):
    """A step of the plan."""

    name: Name
    inputs: tuple[Name, ...]
    resources: Resources
    batch_rows: Count = 0
    kernel: dict[str, Any] = {}


class Pipeline(Struct, kw_only=True):
    """Operators in their order; the last one gives the result."""

    operators: Annotated[list[Operator], Meta(min_length=1)]


class Dataset(Struct, kw_only=True):
    """Which data; ``rows`` of the source tables where they are known."""

    partitions: AtLeastOne
    rows: Count | None = None
    row_bytes: Count | None = None


class Arrivals(Struct, kw_only=True):
    """When requests come."""

    kind: Name
    rate_per_s: Amount | None = None
    concurrency: AtLeastOne | None = None
    file: Text | None = None


class Deployment(Struct, kw_only=True):
    """What answers."""

    name: Name


class Serving(Struct, kw_only=True):
    """The work of a service."""

    arrivals: Arrivals
    deployments: Annotated[list[Deployment], Meta(min_length=1)]


class Objective(Struct, kw_only=True):
    """What a run is for."""

    p99_s: Above | None = None
    deadline_s: Above | None = None
    budget_usd: Amount | None = None


class Workload(Struct, kw_only=True):
    """The whole definition of what ran."""

    pipeline: Pipeline
    dataset: Dataset
    kind: WorkloadKind
    description: Text = ""
    serving: Serving | None = None
    objective: Objective | None = None


class Devices(Struct, kw_only=True):
    """Accelerators of a node."""

    count: Count
    kind: Text = "slot"


class Node(Struct, kw_only=True):
    """A group of equal nodes."""

    name: Name
    count: AtLeastOne
    cpus: AtLeastOne
    gpus: Devices
    memory_bytes: AtLeastOne
    memory_limit_bytes: Count | None
    price_per_hour_usd: Amount


class Cluster(Struct, kw_only=True):
    """On what it ran."""

    nodes: Annotated[list[Node], Meta(min_length=1)]
    address: Text | None = None


class Environment(Struct, kw_only=True):
    """Where it ran; what a host does not tell is null."""

    cpu_model: Text | None = None
    cpus_usable: AtLeastOne | None = None
    memory_bytes: AtLeastOne | None = None
    system: Text | None = None
    machine: Text | None = None
    kernel: Text | None = None
    python: Text | None = None
    libraries: dict[Name, Text] = {}


class ScenarioEngine(Struct, kw_only=True):
    """An engine that a scenario asks for."""

    name: Name
    label: Name | None = None


class Scenario(Struct, kw_only=True):
    """The document of a scenario's point, as its file says it."""

    name: Name
    engines: list[ScenarioEngine] = []


class Run(Struct, kw_only=True, forbid_unknown_fields=True):
    """A run without its spans and samples, as ``runs/<run_id>.json`` holds it."""

    schema: Annotated[Literal[1], Meta(description="version of this schema")]
    run_id: Annotated[FileName, Meta(description="name of its files")]
    cell: Annotated[Name, Meta(description="equal cells of equal experiments have equal digests")]
    experiment: Text
    scenario: Annotated[Scenario | None, Meta(description="of which it is a point; null: a workload of the catalogue")] = None
    workload: Name
    workload_digest: Name
    workload_spec: Workload
    scale: Above
    engine: Annotated[Name, Meta(description='simulated engines begin with "sim:"')]
    engine_version: Text
    label: Name
    options: dict[str, Any]
    cluster: Text
    cluster_spec: Cluster
    clock: Annotated[Literal["wall", "virtual"], Meta(description="measured, or simulated")]
    seed: Number
    repetition: Annotated[Number, Meta(description="from 0; warm-ups are -1, -2, …")]
    warmup: bool
    status: Status
    reason: Annotated[Text | None, Meta(description="null where status is ok")]
    makespan_s: Annotated[Makespan | None, Meta(description="null unless status is ok")]
    open_s: Annotated[Amount | None, Meta(description="of real runs")]
    prepare_s: Annotated[Amount | None, Meta(description="of real runs")]
    rows_out: Count | None
    peak_memory_bytes: Count | None
    verified: Annotated[bool, Meta(description="whether the oracle accepted the output of a real run")]
    environment: Environment
    counters: Annotated[dict[Name, Amount], Meta(description="sums of a run, in the unit that their name ends with")]
    sweep: Annotated[dict[Name, Any], Meta(description="values of the point of a sweep")] = {}


#: counters that count things, so that they are whole
WHOLE = (
    "tasks", "retries", "blocks", "blocks_lost", "loads", "workers_lost", "dead_letters", "requests_sent", "requests_ok",
    "requests_rejected", "requests_timed_out", "requests_failed",
)  # fmt: skip
#: counters that may not fall from one to the next
RISING = (
    tuple(f"latency_{name}_s" for name in ("p50", "p90", "p99", "p999", "max")), ("interval_low", "interval_high"),
)  # fmt: skip


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a run's file: the types above, and how status, world and numbers go together."""
    (reference,), definitions = msgspec.json.schema_components([Run], ref_template="#/$defs/{name}")
    definitions["Run"]["properties"]["counters"]["properties"] = {name: {"type": "integer", "minimum": 0} for name in WHOLE}
    ok = {"makespan_s": {"type": "number"}, "reason": {"type": "null"}}
    bad = {"makespan_s": {"type": "null"}, "reason": {"type": "string"}, "verified": {"const": False}}
    virtual = {
        "clock": {"const": "virtual"},
        "verified": {"const": False},
        "open_s": {"type": "null"},
        "prepare_s": {"type": "null"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of windtunnel, without its spans and samples",
        **reference,
        "allOf": [
            _depends({"status": {"const": "ok"}}, ok, bad),
            _depends({"engine": {"pattern": "^sim:"}}, virtual, {"clock": {"const": "wall"}}),
            _depends({"warmup": {"const": True}}, {"repetition": {"maximum": -1}}, {"repetition": {"minimum": 0}}),
        ],
        "$defs": definitions,
    }


def _depends(given: dict[str, Any], then: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": given}, "then": {"properties": then}, "else": {"properties": otherwise}}
