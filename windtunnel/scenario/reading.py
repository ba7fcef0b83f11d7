"""Scenario files: TOML → the specs that both worlds run. Strict: a broken rule is one sentence, before anything runs.

The module owns the shape of a scenario and its sweep. The single tables are read in `tables` and `windtunnel.spec.serving`; the data
behind operators declared by cost are made in `generated`. It runs nothing.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windtunnel.errors import nearest
from windtunnel.registry import WORKLOADS, load_workload
from windtunnel.scenario.generated import CHECK_ROWS, NO_TABLES, expected_rows
from windtunnel.scenario.tables import (
    EngineChoice,
    read_cluster,
    read_dataset,
    read_engines,
    read_faults,
    read_objective,
    read_pipeline,
)
from windtunnel.scenario.tasks import recorded_workload
from windtunnel.spec.cluster import ClusterSpec
from windtunnel.spec.documents import parse_toml, read_text
from windtunnel.spec.plan import Operator, Pipeline, Scan
from windtunnel.spec.serving import ServingSpec, read_serving
from windtunnel.spec.strict import Place, Table, known_name
from windtunnel.spec.workload import DatasetSpec, Objective, Oracle, Workload

SCHEMA = 1
MOST_POINTS = 10_000
_KEYS = (
    "schema", "name", "seed", "repetitions", "cluster", "dataset", "scale", "workload", "operators", "engines", "faults",
    "sweep", "arrivals", "deployments", "objective", "parameters", "trainer", "graph", "tasks",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a scenario file says. With a sweep these are the values of its first point; `expand` gives all points.

    ``serving`` is set for a serving scenario, whose workload holds it too. ``document`` is the parsed TOML behind it.
    """

    name: str
    seed: int
    repetitions: int
    cluster: ClusterSpec
    workload: Workload
    serving: ServingSpec | None
    engines: tuple[EngineChoice, ...]
    objective: Objective | None
    sweep: tuple[tuple[str, tuple[Any, ...]], ...]
    file: str
    document: dict[str, Any] = field(repr=False, compare=False)

    def expand(self) -> tuple[ScenarioPoint, ...]:
        """Every point of the sweep, in order, the last key varying fastest; one point without a sweep."""
        return tuple(
            ScenarioPoint(index=i, sweep=values, scenario=_read(document, self.file))
            for i, (values, document) in enumerate(_points(self.document, self.file))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioPoint:
    """One point of a sweep: the values set and the scenario they give (itself without a sweep)."""

    index: int
    sweep: dict[str, Any]
    scenario: Scenario


# -- reading ----------------------------------------------------------------------------------------------------------


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file and check every point of its sweep. Raises InputError with one sentence."""
    return from_document(read_document(path), str(path))


def read_document(path: Path) -> dict[str, Any]:
    """The parsed TOML of a scenario file, its keys unchecked. Raises InputError with one sentence."""
    return parse_toml(read_text(path, Place(str(path))), Place(str(path)))


def parse_scenario(text: str, file: str = "scenario.toml") -> Scenario:
    """Like `load_scenario`, from the text."""
    return from_document(parse_toml(text, Place(file)), file)


def from_document(document: dict[str, Any], file: str = "scenario.toml") -> Scenario:
    """A scenario from its parsed TOML; every point of the sweep is checked."""
    sweep = _sweep(document, file)
    points = _points(document, file)
    first = _read(next(points)[1], file)
    for _, point in points:
        _read(point, file)
    return replace(first, sweep=sweep, document=document)


def _read(document: dict[str, Any], file: str) -> Scenario:
    """One point: a document without a sweep."""
    top = Table(document, Place(file), _KEYS)
    if top.integer("schema") != SCHEMA:
        top.fail("schema", f"this version reads scenarios of schema {SCHEMA}")
    name = top.text("name")
    cluster = read_cluster(top)
    cluster = replace(cluster, faults=read_faults(top, cluster))
    objective = read_objective(top)
    workload, serving = _work(top, name, cluster, objective)
    return Scenario(
        name=name,
        seed=top.integer("seed", 7, most=2**62),
        repetitions=top.integer("repetitions", 1, least=1, most=100_000),
        cluster=cluster,
        workload=workload,
        serving=serving,
        engines=read_engines(top),
        objective=objective,
        sweep=(),
        file=file,
        document=document,
    )


def _work(top: Table, name: str, cluster: ClusterSpec, objective: Objective | None) -> tuple[Workload, ServingSpec | None]:
    ways = {
        "workload": ("workload",), "operators": ("operators",), "serving": ("arrivals", "deployments"), "graph": ("graph",),
        "tasks": ("tasks",),
    }  # fmt: skip
    used = [way for way, keys in ways.items() if any(k in top for k in keys)]
    if len(used) != 1:
        what = f"not {' and '.join(used)} together" if used else "and none is there; known keys: " + ", ".join(sorted(_KEYS))
        top.place.fail(
            f"a scenario has either a workload, or [[operators]], or [arrivals] with [[deployments]], or [[tasks]] or their [graph], {what}"
        )
    if used[0] != "workload" and "scale" in top:
        top.fail("scale", "belongs to a workload of the catalogue; declared data have rows")
    if used[0] != "workload" and "parameters" in top:
        top.fail("parameters", "belong to a workload of the catalogue")
    if used[0] != "operators" and "trainer" in top:
        top.fail("trainer", "belongs to [[operators]], which feed it; the workload 'ingest' has parameters for its own")
    if used[0] in ("graph", "tasks"):
        if "dataset" in top:
            top.fail("dataset", "does not belong to tasks of known durations")
        return recorded_workload(top, name, objective), None
    if used[0] == "serving":
        if "dataset" in top:
            top.fail("dataset", "does not belong to a serving scenario")
        serving = read_serving(top)
        return serving_workload(name, serving, objective), serving
    if used[0] == "workload":
        return _catalogue_workload(top, objective), None
    return _declared_workload(top, name, read_dataset(top), cluster, objective), None


def _catalogue_workload(top: Table, objective: Objective | None) -> Workload:
    name, scale = top.text("workload"), top.number("scale", 1.0, above=0)
    known_name(name, WORKLOADS, top.place.key("workload"), "workload")
    workload: Workload = top.place.key("workload").rule(load_workload, name, scale=scale, **top.plain("parameters"))
    if "dataset" in top and top.text("dataset") != workload.dataset.name:
        hint = nearest(str(top.get("dataset")), [workload.dataset.name])
        top.fail("dataset", f"is not the data set of workload {name!r}{hint}")
    return replace(workload, objective=objective or workload.objective)


def serving_workload(name: str, serving: ServingSpec, objective: Objective | None = None) -> Workload:
    """A workload of requests: no data, and a pipeline that is only their source."""
    source = Operator(name="requests", kind="scan", kernel=Scan(table="requests", columns=("payload",)))
    return Workload(
        name=name, kind="serving", pipeline=Pipeline((source,)), dataset=DatasetSpec(name="requests", generator=NO_TABLES),
        objective=objective, description=f"deployments of scenario {name!r}", serving=serving,
    )  # fmt: skip


def _declared_workload(
    top: Table, name: str, dataset: DatasetSpec, cluster: ClusterSpec, objective: Objective | None
) -> Workload:
    pipeline = read_pipeline(top, cluster)
    oracle = Oracle(check=CHECK_ROWS) if expected_rows(pipeline, dataset) is not None else None
    return Workload(
        name=name, kind="ingest" if "trainer" in top else "etl", pipeline=pipeline, dataset=dataset, oracle=oracle, objective=objective,
        description=f"operators declared by cost in scenario {name!r}",
    )  # fmt: skip


# -- sweep ------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)|\[(\d{1,9})\]|\.")


def _sweep(document: dict[str, Any], file: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    place = Place(file).key("sweep")
    table = document.get("sweep", {})
    if not isinstance(table, dict):
        place.fail("must be a table of lists by dotted key", table)
    for key, values in table.items():
        if not isinstance(values, list) or not values:
            place.key(key).fail("must be a list of at least one value", values)
    count = math.prod(len(v) for v in table.values())
    if count > MOST_POINTS:
        place.fail(f"makes {count} points; at most {MOST_POINTS} are allowed")
    return tuple((k, tuple(v)) for k, v in table.items())


def _points(document: dict[str, Any], file: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The values set and the resulting document of each point."""
    sweep = _sweep(document, file)
    base = {k: v for k, v in document.items() if k != "sweep"}
    for combination in itertools.product(*(values for _, values in sweep)):
        values = dict(zip((k for k, _ in sweep), combination, strict=True))
        point = copy.deepcopy(base)
        for key, value in values.items():
            _assign(point, key, copy.deepcopy(value), Place(file).key("sweep").key(key))
        yield values, point


def assign(document: dict[str, Any], key: str, value: Any, file: str) -> None:
    """Set a dotted key such as ``cluster.nodes[0].memory_limit`` of a scenario document; what leads to it must exist."""
    _assign(document, key, copy.deepcopy(value), Place(file).key(key))


def _assign(document: dict[str, Any], key: str, value: Any, place: Place) -> None:
    """Set ``cluster.nodes[0].memory_limit``; everything before the last step must exist."""
    steps = _steps(key, place)
    target: Any = document
    for step, following in zip(steps, steps[1:], strict=False):
        target = _step_into(target, step, place, empty={} if isinstance(following, str) else [])
    _check_step(target, steps[-1], place, last=True)
    target[steps[-1]] = value


def _steps(key: str, place: Place) -> list[str | int]:
    steps: list[str | int] = []
    position, dot = 0, True
    while position < len(key):
        match = _TOKEN.match(key, position)
        name = match is not None and match[1] is not None
        if match is None or (name != dot and match[0] != ".") or (match[0] == "." and dot):
            break
        dot = match[0] == "."
        if not dot:
            steps.append(match[1] if name else int(match[2]))
        position = match.end()
    if position < len(key) or dot or not steps:
        place.fail('is not a dotted key such as "cluster.nodes[0].cpus"')
    if steps[0] in ("sweep", "schema"):
        place.fail(f"{steps[0]} cannot be swept")
    return steps


def _step_into(target: Any, step: str | int, place: Place, empty: Any) -> Any:
    _check_step(target, step, place, last=empty == {} and isinstance(step, str))
    if isinstance(target, dict):
        return target.setdefault(step, empty)
    return target[step]


def _check_step(target: Any, step: str | int, place: Place, *, last: bool) -> None:
    if isinstance(step, int):
        if not isinstance(target, list) or step >= len(target):
            size = f"a list of {len(target)}" if isinstance(target, list) else "no list"
            place.fail(f"names item [{step}] of {size}; it must point into the scenario")
    elif not isinstance(target, dict) or (step not in target and not last):
        known = target if isinstance(target, dict) else ()
        place.fail(f"names key {step!r}, which is not in the scenario{nearest(step, known)}")
