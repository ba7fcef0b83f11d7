"""The serving part of a scenario: how requests arrive and which deployments answer them, read strictly into frozen specs.

The module owns these words and their rules. It knows no serving system and runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from windtunnel.spec import traces
from windtunnel.spec.plan import Resources
from windtunnel.spec.strict import Place, Table, known_name, unique

ArrivalKind = Literal["poisson", "uniform", "closed", "gamma", "trace", "steps", "diurnal"]
#: names of deployments called in order; a nested tuple holds parallel branches
Calls = tuple["str | Calls", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLengths:
    """Tokens of a request's prompt and of its answer: means with a coefficient of variation (lognormal), or columns of the trace."""

    prompt: float = 1.0
    output: float = 1.0
    cv: float = 0.0
    prompt_column: str | None = None
    output_column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpec:
    """An emulated language model with continuous batching. An iteration takes ``iteration_s + decode_s × sequences + prefill_s ×
    tokens of prompts``; ``batch_tokens``: tokens that it may compute; ``kv_tokens``: tokens that memory holds, None = no limit."""

    iteration_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    max_batch: int = 256
    batch_tokens: int = 2048
    kv_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalSpec:
    """When requests come. Open loops have a rate (``steps``: one from each time on), ``closed`` a number of clients.

    ``file`` is the path of a trace as the scenario's own path gives it.
    """

    kind: ArrivalKind
    duration_s: float | None = None
    rate_per_s: float | None = None
    cv: float = 1.0  # gamma: coefficient of variation of the gaps
    concurrency: int | None = None
    think_time_s: float = 0.0
    file: str | None = None
    column: str | None = None
    steps: tuple[tuple[float, float], ...] = ()
    swing: float = 0.0  # diurnal: how far the rate rises above and falls below its mean, as a share of it
    period_s: float = 86_400.0
    request_bytes: int = 0
    response_bytes: int = 0
    tokens: TokenLengths | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """A fixed number of replicas (minimum = maximum), or bounds with the targets of an autoscaler."""

    minimum: int = 1
    maximum: int = 1
    target_ongoing: float | None = None
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCost:
    """Declared duration of a call: ``per_call_s + per_item_s * items``, lognormal with coefficient of variation ``cv``."""

    per_call_s: float = 0.0
    per_item_s: float = 0.0
    cv: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """How a replica groups requests: at most ``max_size``, waiting at most ``wait_s`` for more."""

    max_size: int = 1
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """A service with replicas; ``calls`` are made in order after its own work."""

    name: str
    replicas: Replicas = Replicas()
    max_ongoing: int = 100
    resources: Resources = Resources()
    cost: CallCost = CallCost()
    calls: Calls = ()
    batch: BatchSpec = BatchSpec()
    startup_s: float = 0.0
    tokens: TokenSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSpec:
    """Arrivals and the deployments that answer them; requests enter at the first deployment."""

    arrivals: ArrivalSpec
    deployments: tuple[DeploymentSpec, ...]


SHIPPED = "windtunnel:"  # before the name of a trace that comes with windtunnel
_BYTES_KEYS = ("request_bytes", "response_bytes")
_ARRIVAL_KEYS: Mapping[str, tuple[str, ...]] = {
    "poisson": ("rate_per_s",), "uniform": ("rate_per_s",), "gamma": ("rate_per_s", "cv"),
    "closed": ("concurrency", "think_time"), "trace": ("file", "column"), "steps": ("steps",),
    "diurnal": ("rate_per_s", "swing", "period"),
}  # fmt: skip
_EVERY_KEYS = ("kind", "duration", *_BYTES_KEYS, "tokens")
_ALL_ARRIVAL_KEYS = (*_EVERY_KEYS, *dict.fromkeys(k for keys in _ARRIVAL_KEYS.values() for k in keys))
_DEPLOYMENT_KEYS = ("name", "replicas", "max_ongoing", "resources", "cost", "calls", "batch", "startup", "tokens")
_TOKEN_KEYS = ("iteration", "prefill", "decode", "max_batch", "batch_tokens", "kv_memory", "kv_per_token")
_LENGTH_KEYS = ("prompt", "output", "cv", "prompt_column", "output_column")


def read_serving(top: Table) -> ServingSpec:
    """The tables ``[arrivals]`` and ``[[deployments]]`` of a scenario."""
    top.raw("arrivals")
    arrivals = _arrivals(top.table("arrivals", _ALL_ARRIVAL_KEYS))
    tables = top.tables("deployments", _DEPLOYMENT_KEYS)
    deployments = tuple(_deployment(t) for t in tables)
    if any(d.tokens for d in deployments) and arrivals.tokens is None:
        top.place.key("arrivals").fail("needs tokens = { prompt, output }: a deployment computes tokens", None)
    names = [d.name for d in deployments]
    unique(names, top.place.key("deployments"), "deployment")
    for table, deployment in zip(tables, deployments, strict=True):
        for name in flatten(deployment.calls):
            known_name(name, names, table.place.key("calls"), "deployment")
    _refuse_cycle({d.name: flatten(d.calls) for d in deployments}, top.place.key("deployments"))
    return ServingSpec(arrivals=arrivals, deployments=deployments)


def flatten(calls: Calls) -> tuple[str, ...]:
    """Every name in a composition, in order."""
    return tuple(name for c in calls for name in ((c,) if isinstance(c, str) else flatten(c)))


def _arrivals(table: Table) -> ArrivalSpec:
    kind = table.choice("kind", _ARRIVAL_KEYS)
    for name in _ALL_ARRIVAL_KEYS[len(_EVERY_KEYS) :]:
        if name in table and name not in _ARRIVAL_KEYS[kind]:
            table.fail(name, f"does not belong to {kind} arrivals; their keys: {', '.join(_ARRIVAL_KEYS[kind])}")
    needs_duration = kind != "trace"
    rated = "rate_per_s" in _ARRIVAL_KEYS[kind]
    spec = ArrivalSpec(
        kind=kind,
        duration_s=table.seconds("duration", above=0) if needs_duration or "duration" in table else None,
        rate_per_s=table.number("rate_per_s", above=0) if rated else None,
        cv=table.number("cv", 1.0, above=0),
        concurrency=table.integer("concurrency", least=1) if kind == "closed" else None,
        think_time_s=table.seconds("think_time", 0.0),
        file=_trace_file(table) if kind == "trace" else None,
        column=table.text("column") if kind == "trace" else None,
        steps=_steps(table) if kind == "steps" else (),
        swing=_swing(table) if kind == "diurnal" else 0.0,
        period_s=table.seconds("period", 86_400.0, above=0),
        request_bytes=table.bytes("request_bytes", 0),
        response_bytes=table.bytes("response_bytes", 0),
        tokens=_lengths(table, kind) if "tokens" in table else None,
    )
    if spec.file is not None:
        columns = (spec.tokens.prompt_column, spec.tokens.output_column) if spec.tokens else ()
        table.place.key("file").rule(traces.check, Path(spec.file), spec.column, [c for c in columns if c])
    return spec


def _lengths(table: Table, kind: ArrivalKind) -> TokenLengths:
    inner = table.table("tokens", _LENGTH_KEYS)
    columns = [inner.text(k) if k in inner else None for k in ("prompt_column", "output_column")]
    if any(columns) and kind != "trace":
        inner.fail(
            "prompt_column" if columns[0] else "output_column", f"names a column of a trace, and these arrivals are {kind}"
        )
    return TokenLengths(
        prompt=1.0 if columns[0] else inner.number("prompt", least=1), output=1.0 if columns[1] else inner.number("output", least=1),
        cv=inner.number("cv", 0.0), prompt_column=columns[0], output_column=columns[1],
    )  # fmt: skip


def _tokens(table: Table) -> TokenSpec:
    inner = table.table("tokens", _TOKEN_KEYS)
    memory, each = inner.bytes("kv_memory", 0), inner.bytes("kv_per_token", 0)
    if bool(memory) != bool(each):
        inner.fail("kv_memory" if memory else "kv_per_token", "needs the other one too: kv_memory over kv_per_token is what fits")
    return TokenSpec(
        iteration_s=inner.seconds("iteration", 0.0), prefill_s=inner.seconds("prefill", 0.0), decode_s=inner.seconds("decode", 0.0),
        max_batch=inner.integer("max_batch", 256, least=1), batch_tokens=inner.integer("batch_tokens", 2048, least=1),
        kv_tokens=int(memory // each) if memory else None,
    )  # fmt: skip


def _swing(table: Table) -> float:
    swing = table.number("swing", 0.5)
    if swing > 1:
        table.fail("swing", "must be at most 1: the rate cannot fall below nothing")
    return swing


def _trace_file(table: Table) -> str:
    name = table.text("file")
    if name.startswith(SHIPPED):
        found = resources.files("windtunnel").joinpath("traces")
        known = sorted(p.name.removesuffix(".csv") for p in found.iterdir() if p.name.endswith(".csv"))
        known_name(name.removeprefix(SHIPPED), known, table.place.key("file"), "shipped trace")
        return str(found.joinpath(name.removeprefix(SHIPPED) + ".csv"))
    path = Path(table.place.file).parent / name
    if not os.path.isfile(path):  # unlike Path.is_file, never an error
        table.fail("file", f"there is no such file next to the scenario ({path})")
    return str(path)


def _steps(table: Table) -> tuple[tuple[float, float], ...]:
    value = table.raw("steps")
    if not isinstance(value, list) or not value:
        table.fail("steps", "must be a list of [time in seconds, requests per second]")
    steps = tuple(_step(item, table.place.key("steps").item(i)) for i, item in enumerate(value))
    if any(b[0] <= a[0] for a, b in zip(steps, steps[1:], strict=False)):
        table.fail("steps", "must have rising times")
    return steps


def _step(item: object, place: Place) -> tuple[float, float]:
    if not isinstance(item, list) or len(item) != 2:
        place.fail("must be a pair [time, requests per second]", item)
    pair = Table({"time": item[0], "rate": item[1]}, place, ("time", "rate"))
    return pair.seconds("time"), pair.number("rate")


def _deployment(table: Table) -> DeploymentSpec:
    cost = table.table("cost", ("per_call", "per_item", "cv"))
    batch = table.table("batch", ("max_size", "wait"))
    tokens = _tokens(table) if "tokens" in table else None
    if tokens is None:
        table.raw("cost")
    elif "batch" in table:
        table.fail("batch", "does not go with tokens, which are batched continuously")
    return DeploymentSpec(
        name=table.text("name"),
        replicas=_replicas(table),
        max_ongoing=table.integer("max_ongoing", 100, least=1),
        resources=read_resources(table),
        cost=CallCost(
            per_call_s=cost.seconds("per_call", 0.0), per_item_s=cost.seconds("per_item", 0.0), cv=cost.number("cv", 0.0)
        ),
        calls=_calls(table.get("calls", []), table.place.key("calls")),
        batch=BatchSpec(max_size=batch.integer("max_size", 1, least=1), wait_s=batch.seconds("wait", 0.0)),
        startup_s=table.seconds("startup", 0.0),
        tokens=tokens,
    )


def read_resources(table: Table, memory_bytes: int = 0) -> Resources:
    """The key ``resources = { cpus, gpus }`` of an operator or deployment."""
    resources = table.table("resources", ("cpus", "gpus"))
    return Resources(cpus=resources.number("cpus", 1.0), gpus=resources.number("gpus", 0.0), memory_bytes=memory_bytes)


def _replicas(table: Table) -> Replicas:
    if not isinstance(table.get("replicas", 1), dict):
        count = table.integer("replicas", 1, least=1)
        return Replicas(minimum=count, maximum=count)
    inner = table.table("replicas", ("min", "max", "target_ongoing", "upscale_delay", "downscale_delay"))
    minimum, maximum = inner.integer("min", 1, least=0), inner.integer("max", least=1)
    if maximum < minimum:
        inner.fail("max", f"must not be below min = {minimum}")
    return Replicas(
        minimum=minimum,
        maximum=maximum,
        target_ongoing=inner.number("target_ongoing", above=0),
        upscale_delay_s=inner.seconds("upscale_delay", 30.0),
        downscale_delay_s=inner.seconds("downscale_delay", 600.0),
    )


def _calls(value: Any, place: Place, depth: int = 0) -> Calls:
    if isinstance(value, str) and depth:
        return (value,)
    if not isinstance(value, list) or depth > 16:
        place.fail('must be a list of deployment names, such as ["echo", ["left", "right"]]', value)
    return tuple(item if isinstance(item, str) else _calls(item, place.item(i), depth + 1) for i, item in enumerate(value))


def _refuse_cycle(calls: Mapping[str, tuple[str, ...]], place: Place) -> None:
    """Depth-first search with an explicit stack; compositions are acyclic."""
    state: dict[str, int] = {}
    for root in calls:
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                state[name] = 2
            elif state.get(name) == 1:
                place.fail(f"deployment {name!r} calls itself through its calls; a composition must not go round in a circle")
            elif name not in state:
                state[name] = 1
                stack.append((name, True))
                stack.extend((callee, False) for callee in calls[name] if state.get(callee) != 2)


def deployment_from_plain(data: Mapping[str, Any]) -> DeploymentSpec:
    """Inverse of `dataclasses.asdict`, also after JSON."""
    parts = {"replicas": Replicas, "resources": Resources, "cost": CallCost, "batch": BatchSpec, "tokens": TokenSpec}
    made = {k: parts[k](**v) if k in parts and v is not None else v for k, v in data.items()}
    return DeploymentSpec(**{**made, "calls": _nested(data["calls"])})


def _nested(calls: Any) -> Calls:
    return tuple(c if isinstance(c, str) else _nested(c) for c in calls)
