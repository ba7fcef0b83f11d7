"""The tables of a scenario that describe hardware and work: cluster, data set, operators, engines, faults, objective.

Each function reads one table strictly into the spec it stands for. The module knows no file format beyond the parsed table
and runs nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from windtunnel.errors import nearest
from windtunnel.registry import engine_names
from windtunnel.scenario.generated import GENERATED, INPUT
from windtunnel.spec.catalogue import MOST_NODES, MOST_SLOTS, NODE_KEYS, InstanceType, read_catalogue, read_node, with_type
from windtunnel.spec.cluster import ClusterSpec, Fault, FaultKind, NetworkSpec
from windtunnel.spec.plan import Concurrency, Cost, Operator, Pipeline, Resources, Scan, State, Synthetic
from windtunnel.spec.serving import read_resources
from windtunnel.spec.strict import Table, known_name, shorten, unique
from windtunnel.spec.workload import DatasetSpec, Location, Objective

#: engines that the format names besides those registered here
FORMAT_ENGINES = ("bulk", "streaming", "spark", "dask", "ray", "flink", "mapreduce", "serving", "ray-serve", "fastapi")
_KINDS = ("map", "flat_map", "filter", "aggregate", "join", "sort", "sink")
_OPERATOR_KEYS = (
    "name", "kind", "inputs", "batch_rows", "cost", "fixed_work", "rows_out", "row_bytes_out", "memory", "language",
    "resources", "state", "concurrency",
)  # fmt: skip
TRAINER = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine with its options; ``label`` tells two configurations of one engine apart."""

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)


# -- hardware ---------------------------------------------------------------------------------------------------------


def read_cluster(top: Table) -> ClusterSpec:
    """The table ``[cluster]``."""
    top.raw("cluster")
    table = top.table("cluster", ("network", "nodes", "catalogue"))
    own, groups, place = _own_types(table), table.get("nodes", []), table.place.key("nodes")
    merged = [with_type(g, own, place.item(i)) for i, g in enumerate(groups)] if isinstance(groups, list) else groups
    whole = Table({"nodes": merged} if "nodes" in table else {}, table.place, ("network", "nodes"))
    nodes = tuple(read_node(n) for n in whole.tables("nodes", NODE_KEYS))
    for what, many, most in (
        ("nodes", sum(n.count for n in nodes), MOST_NODES), ("CPUs", sum(n.count * n.cpus for n in nodes), MOST_SLOTS),
        ("devices", sum(n.count * n.gpus.count for n in nodes), MOST_SLOTS),
    ):  # fmt: skip
        if many > most:
            place.fail(
                f"make a cluster of {many} {what}; at most {most} are simulated: describe a part of it, with its share of the work"
            )
    return table.place.rule(ClusterSpec, nodes=nodes, network=_network(table))


def _own_types(table: Table) -> dict[str, InstanceType]:
    """The instance types of the scenario's own catalogue, whose path is relative to the scenario."""
    if "catalogue" not in table:
        return {}
    path = Path(table.place.file).parent / table.text("catalogue")
    if not os.path.isfile(path):  # unlike Path.is_file, never an error
        table.fail("catalogue", f"there is no such file next to the scenario ({path})")
    return read_catalogue(path, quotes=False)  # a stranger's scenario may name any file


def _network(table: Table) -> NetworkSpec:
    inner = table.table("network", ("topology", "oversubscription", "latency"))
    return NetworkSpec(
        topology=inner.choice("topology", ("star",), "star"),
        oversubscription=inner.number("oversubscription", 1.0, least=1.0),
        latency_s=inner.seconds("latency", 100e-6),
    )


# -- work -------------------------------------------------------------------------------------------------------------


def read_dataset(top: Table) -> DatasetSpec:
    """The table ``[dataset]`` of declared rows."""
    top.raw("dataset")
    table = top.table("dataset", ("rows", "row_bytes", "partitions", "skew", "location", "remote"))
    spec = DatasetSpec(
        name="generated",
        generator=GENERATED,
        format="generated",
        rows=table.integer("rows", most=10**15),
        row_bytes=table.bytes("row_bytes"),
        partitions=table.integer("partitions", 1, least=1, most=10_000_000),
        skew=table.number("skew", 0.0),
        location=_location(table),
    )
    if spec.skew > 100:
        table.fail("skew", "must be 100 or less; common Zipf exponents lie between 0 and 2")
    return spec


def _location(table: Table) -> Location:
    """Keys of ``remote`` are checked wherever they stand, and used where the location is remote."""
    kind = table.choice("location", ("generated", "local", "remote"), "generated")
    if kind == "remote":
        table.raw("remote")
    inner = table.table("remote", ("bandwidth_per_node", "latency"))
    rate = inner.rate("bandwidth_per_node") if "remote" in table else None
    latency = inner.seconds("latency", 0.0)
    return Location(kind=kind, bandwidth_per_node=rate, latency_s=latency) if kind == "remote" else Location(kind=kind)


def read_pipeline(top: Table, cluster: ClusterSpec) -> Pipeline:
    """The tables ``[[operators]]`` behind an implicit scan of the data set."""
    scan = Operator(name=INPUT, kind="scan", kernel=Scan(table=INPUT, columns=("payload",)))
    operators = [scan]
    for table in top.tables("operators", _OPERATOR_KEYS):
        operators.append(_operator(table, operators))
        _refuse_too_large(table, operators[-1], cluster)
    if "trainer" in top:
        table = top.table("trainer", ("batch_rows", "step", "resources"))
        operators.append(_trainer(table, operators))
        _refuse_too_large(table, operators[-1], cluster)
    return top.place.key("operators").rule(Pipeline, tuple(operators))


def _operator(table: Table, before: list[Operator]) -> Operator:
    name, kind = table.text("name"), table.choice("kind", _KINDS)
    names = [op.name for op in before]
    if name in names:
        table.fail("name", f"is used twice or is the implicit {INPUT!r}; operator names must be unique")
    inputs = _inputs(table, kind, names)
    return table.place.rule(
        Operator,
        name=name,
        kind=kind,
        kernel=_kernel(table, kind),
        inputs=inputs,
        batch_rows=table.integer("batch_rows", 0),
        resources=read_resources(table, table.bytes("memory", 0)),
        state=_state(table),
        concurrency=_concurrency(table),
        language=table.choice("language", ("python", "native"), "python"),
    )


def _trainer(table: Table, before: list[Operator]) -> Operator:
    """The table ``[trainer]``: a loop that takes batches at its own rate, asleep, on no CPU unless it asks for some."""
    rows, step_s = table.integer("batch_rows", least=1), table.seconds("step", above=0)
    if any(op.name == TRAINER for op in before):
        table.place.fail(f"an operator is called {TRAINER!r}, which is the loop's name; give the operator another one")
    resources = read_resources(table, 0) if "resources" in table else Resources(cpus=0)
    return Operator(
        name=TRAINER, kind="map", inputs=(before[-1].name,), batch_rows=rows, resources=resources, language="python",
        kernel=Synthetic(cost=Cost(per_row_s=step_s / rows), row_bytes_out=8, fixed_work="sleep"),
        state=State(kind="actor"), concurrency=Concurrency(minimum=1, maximum=1),
    )  # fmt: skip


def _inputs(table: Table, kind: str, names: list[str]) -> tuple[str, ...]:
    given = table.texts("inputs")
    for index, name in enumerate(given):
        known_name(name, names, table.place.key("inputs").item(index), "earlier operator")
    if not given and kind != "join":
        return (names[-1],)
    wanted = 2 if kind == "join" else 1
    if len(given) != wanted:
        table.place.key("inputs").fail(f"a {kind} takes {wanted} {'input' if wanted == 1 else 'inputs'}, not {len(given)}")
    return given


def _kernel(table: Table, kind: str) -> Synthetic:
    table.raw("cost")
    inner = table.table("cost", ("per_batch", "per_row", "per_byte", "cv"))
    cost = Cost(
        per_batch_s=inner.seconds("per_batch", 0.0),
        per_row_s=inner.seconds("per_row", 0.0),
        per_byte_s=inner.seconds("per_byte", 0.0),
        cv=inner.number("cv", 0.0),
    )
    rows_out = table.number("rows_out", 1.0)
    if kind == "filter" and rows_out > 1:
        table.fail("rows_out", "must be 1 or less: a filter makes no rows")
    return Synthetic(
        cost=cost,
        rows_out=rows_out,
        row_bytes_out=table.bytes("row_bytes_out") if "row_bytes_out" in table else None,
        fixed_work=table.choice("fixed_work", ("spin", "sleep"), "spin"),
    )


def _state(table: Table) -> State:
    inner = table.table("state", ("kind", "load", "memory"))
    kind = inner.choice("kind", ("stateless", "actor"), "stateless")
    if kind == "stateless" and ("load" in inner or "memory" in inner):
        inner.place.fail('a stateless operator has no load time or memory; write kind = "actor"')
    return State(kind=kind, load_s=inner.seconds("load", 0.0), memory_bytes=inner.bytes("memory", 0))


def _concurrency(table: Table) -> Concurrency | None:
    value = table.get("concurrency")
    if value is None:
        return None
    bounds = value if isinstance(value, list) else [value, value]
    if len(bounds) != 2 or not all(isinstance(b, int) and not isinstance(b, bool) for b in bounds):
        table.fail("concurrency", "must be a whole number, or [minimum, maximum]")
    if not 1 <= bounds[0] <= bounds[1] <= 1_000_000:
        table.fail("concurrency", "must satisfy 1 ≤ minimum ≤ maximum ≤ 1000000")
    return Concurrency(minimum=bounds[0], maximum=bounds[1])


def _refuse_too_large(table: Table, op: Operator, cluster: ClusterSpec) -> None:
    """An operator that fits no node would wait for ever."""
    place = table.place.key("resources")
    nodes = cluster.nodes
    if not any(op.resources.cpus <= n.cpus and op.resources.gpus <= n.gpus.count for n in nodes):
        largest = ", ".join(f"{n.name}: cpus {n.cpus}, gpus {n.gpus.count}" for n in nodes)
        place.fail(f"cpus {op.resources.cpus:g} and gpus {op.resources.gpus:g} fit no node of the cluster ({shorten(largest)})")


# -- engines, faults, objective ---------------------------------------------------------------------------------------


def read_engines(top: Table) -> tuple[EngineChoice, ...]:
    """The tables ``[[engines]]``."""
    tables = top.tables("engines", ("name", "label", "options"))
    choices = tuple(_engine(t) for t in tables)
    unique((c.label for c in choices), top.place.key("engines"), "label")
    return choices


def _engine(table: Table) -> EngineChoice:
    name = table.text("name")
    known = tuple(dict.fromkeys((*FORMAT_ENGINES, *(n for n in engine_names() if ":" not in n))))
    if name not in known:
        table.fail("name", f"is no known engine{nearest(name, known)}")
    return EngineChoice(name=name, label=table.text("label", name), options=table.plain("options"))


_TARGET = re.compile(r"^(?P<group>.+)\[(?P<index>\d{1,9})\]$")


def read_faults(top: Table, cluster: ClusterSpec) -> tuple[Fault, ...]:
    """The tables ``[[faults]]``."""
    tables = top.tables("faults", ("at", "kind", "target", "factor", "until"), required=False)
    return tuple(_fault(t, cluster) for t in tables)


def _fault(table: Table, cluster: ClusterSpec) -> Fault:
    kind, at = table.choice("kind", get_args(FaultKind)), table.seconds("at")
    until = table.seconds("until") if "until" in table else None
    if until is not None and until <= at:
        table.fail("until", f"must be later than at = {at:g} s")
    factor = table.number("factor", 1.0, above=0)
    return Fault(kind=kind, at_s=at, target=_target(table, kind, cluster), factor=factor, until_s=until)


def _target(table: Table, kind: str, cluster: ClusterSpec) -> str:
    target = table.text("target")
    match = _TARGET.match(target)
    groups = {n.name: n for n in cluster.nodes}
    if match is None:
        table.fail("target", f'must name a node as "{cluster.nodes[0].name}[0]"')
    known_name(match["group"], groups, table.place.key("target"), "node group")
    node = groups[match["group"]]
    if kind != "node_joins" and int(match["index"]) >= node.count:
        table.fail("target", f"group {node.name!r} has {node.count} nodes, numbered from 0")
    if kind == "gpu_lost" and node.gpus.count == 0:
        table.fail("target", f"nodes of group {node.name!r} have no gpus to lose")
    return target


def read_objective(top: Table) -> Objective | None:
    """The table ``[objective]``."""
    if "objective" not in top:
        return None
    table = top.table("objective", ("p99", "deadline", "budget_usd"))
    return Objective(
        p99_s=table.seconds("p99", above=0) if "p99" in table else None,
        deadline_s=table.seconds("deadline", above=0) if "deadline" in table else None,
        budget_usd=table.number("budget_usd") if "budget_usd" in table else None,
    )
