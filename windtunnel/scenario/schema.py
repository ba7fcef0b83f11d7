"""The JSON Schema of scenario files, for editors: keys, values, units and what each key means.

The reader decides and says more; this schema never refuses what the reader accepts. A test holds its keys and choices to those that
the reader knows, so that a new key is missing from neither. The module reads no file.
"""

from __future__ import annotations

from typing import Any, get_args

from windtunnel.registry import ENGINES
from windtunnel.spec.cluster import FaultKind
from windtunnel.spec.units import units

Schema = dict[str, Any]
_TEXT = r"\S"


def _text(what: str, choices: tuple[str, ...] = ()) -> Schema:
    return {"description": what, "type": "string", **({"enum": list(choices)} if choices else {"pattern": _TEXT})}


def _number(what: str, **limits: float) -> Schema:
    return {"description": what, "type": "number", "minimum": 0, **limits}


def _whole(what: str, least: int = 0) -> Schema:
    return {"description": what, "type": "integer", "minimum": least}


def _quantity(what: str, dimension: str) -> Schema:
    """A number of the base unit, or a text with a unit."""
    known = "|".join(sorted(units(dimension)))
    pattern = rf"^\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*({known})?\s*$|^\s*-(0+\.?0*|\.0+)"
    return {
        "description": f"{what} ({dimension})",
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}],
    }


def _bytes(what: str) -> Schema:
    return _quantity(what, "bytes")


def _time(what: str) -> Schema:
    return _quantity(what, "seconds")


def _rate(what: str) -> Schema:
    return _quantity(what, "bytes per second")


def _table(what: str, **keys: Schema) -> Schema:
    return {"description": what, "type": "object", "additionalProperties": False, "properties": keys}


def _tables(what: str, **keys: Schema) -> Schema:
    return {"description": what, "type": "array", "items": _table(what, **keys)}


def _resources() -> Schema:
    return _table("what one task or replica occupies", cpus=_number("CPUs"), gpus=_number("devices, or a share of one"))


def _cluster() -> Schema:
    return _table(
        "on what it runs",
        network=_table(
            "a star of nodes around a core",
            topology=_text("how nodes are joined", ("star",)),
            oversubscription=_number("how many times smaller the core is than the sum of the NICs", minimum=1),
            latency=_time("between nodes"),
        ),
        catalogue=_text("a file of your own instance types, relative to the scenario"),
        nodes=_tables(
            "a group of equal nodes",
            name=_text("of the group"),
            count=_whole("nodes", 1),
            type=_text("an instance type; keys beside it go before its figures"),
            cpus=_whole("CPUs of a node", 1),
            memory=_bytes("of a node"),
            memory_limit=_bytes("what the engine may use of it"),
            gpus=_table(
                "devices of a node",
                kind=_text("slot, cuda, cuda:N or emulated:KIND"),
                count=_whole("devices"),
                memory=_bytes("of a device"),
                pcie=_rate("between host and device"),
                speed=_number("times the declared costs", exclusiveMinimum=0),
            ),
            disk=_table(
                "local disks",
                read=_rate("reading"),
                write=_rate("writing"),
                capacity=_bytes("of the disks"),
                total=_rate("both together"),
                kind=_text("of drive", ("ssd", "hdd")),
                drives=_whole("spinning disks", 1),
                seek=_time("to a place on a spinning disk"),
                chunk=_bytes("that a stream takes in its turn on a spinning disk"),
            ),
            nic=_rate("of a node"),
            price_per_hour=_number("USD"),
            startup=_time("until a node can be used"),
            mtbf=_time("between failures; 0: never"),
        ),
    )


def _dataset() -> Schema:
    table = _table(
        "rows that are made",
        rows=_whole("rows"),
        row_bytes=_bytes("of a row"),
        partitions=_whole("files or blocks", 1),
        skew=_number("Zipf exponent of partition sizes", maximum=100),
        location=_text("where they lie", ("generated", "local", "remote")),
        remote=_table("a remote store", bandwidth_per_node=_rate("of a node"), latency=_time("of a request")),
    )
    return {"anyOf": [table, _text("the data set of the workload")]}


def _operators() -> Schema:
    concurrency = {
        "description": "workers: a number, or [minimum, maximum]",
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
        ],
    }
    return _tables(
        "an operator declared by its cost",
        name=_text("of the operator"),
        kind=_text("what it does", ("map", "flat_map", "filter", "aggregate", "join", "sort", "sink")),
        inputs={
            "description": "names of earlier operators; default the one before",
            "type": "array",
            "items": {"type": "string"},
        },
        batch_rows=_whole("rows a call; 0: the whole block"),
        cost=_table(
            "of a call",
            per_batch=_time("a call"),
            per_row=_time("a row"),
            per_byte=_time("a byte"),
            cv=_number("coefficient of variation"),
        ),
        fixed_work=_text("spin: occupies its CPUs; sleep: keeps its slot", ("spin", "sleep")),
        rows_out=_number("rows out for a row in"),
        row_bytes_out=_bytes("of a row out"),
        memory=_bytes("working memory beyond blocks"),
        language=_text("whether a JVM engine must cross the bridge", ("python", "native")),
        resources=_resources(),
        state=_table(
            "what a worker keeps",
            kind=_text("of state", ("stateless", "actor")),
            load=_time("to load it"),
            memory=_bytes("of it"),
        ),
        concurrency=concurrency,
    )


def _arrivals() -> Schema:
    step = {"type": "array", "minItems": 2, "maxItems": 2}
    return _table(
        "when requests come",
        kind=_text("of arrivals", ("poisson", "uniform", "gamma", "closed", "trace", "steps", "diurnal")),
        duration=_time("how long they come"),
        rate_per_s=_number("requests a second", exclusiveMinimum=0),
        cv=_number("gamma: coefficient of variation of the gaps", exclusiveMinimum=0),
        concurrency=_whole("closed: clients", 1),
        think_time=_time("closed: between an answer and the next request"),
        file=_text("trace: a file beside the scenario, or windtunnel:NAME"),
        column=_text("trace: the column of times"),
        steps={"description": "[seconds, requests a second] from each time on", "type": "array", "items": step},
        swing=_number("diurnal: how far the rate rises and falls, as a share", maximum=1),
        period=_time("diurnal: a day"),
        request_bytes=_bytes("of a request"),
        response_bytes=_bytes("of an answer"),
        tokens=_table(
            "of a request",
            prompt=_number("tokens of a prompt", minimum=1),
            output=_number("tokens of an answer", minimum=1),
            cv=_number("coefficient of variation"),
            prompt_column=_text("trace: the column of prompts"),
            output_column=_text("trace: the column of answers"),
        ),
    )


def _deployments() -> Schema:
    replicas = _table(
        "autoscaling",
        min=_whole("fewest"),
        max=_whole("most", 1),
        target_ongoing=_number("ongoing requests a replica", exclusiveMinimum=0),
        upscale_delay=_time("before growing"),
        downscale_delay=_time("before shrinking"),
    )
    return _tables(
        "what answers",
        name=_text("of the deployment"),
        replicas={"anyOf": [_whole("replicas", 1), replicas]},
        max_ongoing=_whole("requests that a replica takes at once", 1),
        resources=_resources(),
        cost=_table("of a call", per_call=_time("a call"), per_item=_time("an item"), cv=_number("coefficient of variation")),
        calls={"description": "deployments called in order; a list inside is called in parallel", "type": "array"},
        batch=_table("how a replica groups requests", max_size=_whole("requests", 1), wait=_time("for more")),
        startup=_time("of a replica"),
        tokens=_table(
            "a model that computes tokens",
            iteration=_time("an iteration"),
            prefill=_time("a token of a prompt"),
            decode=_time("a token of an answer"),
            max_batch=_whole("sequences at once", 1),
            batch_tokens=_whole("tokens at once", 1),
            kv_memory=_bytes("for keys and values"),
            kv_per_token=_bytes("of keys and values, a token"),
        ),
    )


def _tasks() -> Schema:
    each = {"anyOf": [_time("of every task"), {"type": "array", "items": _time("of a task")}]}
    groups = {"type": "array", "items": {"type": "string"}}
    return _tables(
        "a group of tasks of known durations",
        name=_text("of the group"),
        count=_whole("tasks", 1),
        seconds={"description": "that a task takes: one figure, or one for each task", **each},
        wait={"description": "the part of seconds in which it computes nothing", **each},
        after={"description": "earlier groups that must have ended", **groups},
        reads={"description": "earlier groups whose output is read", **groups},
        parts={"description": "by group that is read: for each task here, the tasks there that it reads", "type": "object"},
        bytes_out=_bytes("that a task leaves"),
        cpus=_number("of a task"),
        gpus=_number("of a task"),
        language=_text("of what it computes", ("python", "native")),
        gap=_time("of the driver before the group begins"),
    )


def json_schema() -> Schema:
    """The published JSON Schema (2020-12)."""
    named = dict.fromkeys(n for n in ENGINES if ":" not in n)
    top = _table(
        "A scenario of windtunnel",
        schema={"description": "version of the format", "const": 1},
        name=_text("of the scenario"),
        seed=_whole("of all randomness"),
        repetitions=_whole("simulated seeds, or measured runs", 1),
        cluster=_cluster(),
        dataset=_dataset(),
        scale=_number("of a workload of the catalogue", exclusiveMinimum=0),
        workload=_text("of the catalogue"),
        graph=_table("a recorded job", file=_text("a saved job graph or a log, relative to the scenario")),
        tasks=_tasks(),
        parameters={"description": "of a workload of the catalogue", "type": "object"},
        operators=_operators(),
        trainer=_table(
            "a training loop that the operators feed",
            batch_rows=_whole("rows of a step", 1),
            step=_time("of a step"),
            resources=_resources(),
        ),
        arrivals=_arrivals(),
        deployments=_deployments(),
        objective=_table(
            "what a run is for",
            p99=_time("bound of latencies"),
            deadline=_time("bound of the makespan"),
            budget_usd=_number("USD"),
        ),
        engines=_tables(
            "who executes",
            name={**_text("of the engine"), "examples": list(named)},
            label=_text("tells two configurations of an engine apart"),
            options={"description": "each engine documents its own", "type": "object"},
        ),
        faults=_tables(
            "what goes wrong",
            at=_time("when"),
            kind=_text("of fault", get_args(FaultKind)),
            target=_text('a node, as "group[index]"'),
            factor=_number("of stragglers and slow networks", exclusiveMinimum=0),
            until=_time("when it ends"),
        ),
        sweep={
            "description": "lists by dotted key: their cross product",
            "type": "object",
            "additionalProperties": {"type": "array", "minItems": 1},
        },
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of windtunnel",
        **top,
        "required": ["schema", "name"],
    }
