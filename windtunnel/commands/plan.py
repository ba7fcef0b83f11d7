"""``windtunnel plan FILE``: which engine on which cluster meets the objective at least cost."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windtunnel.commands.common import json_option, print_json, say
from windtunnel.errors import ExitCode

if TYPE_CHECKING:
    from windtunnel.sim.capacity.question import Question

MOST_NODES, MOST_COUNTS = 10_000, 1_000


@click.command()
@click.argument("work")
@click.option("--scale", type=float, help="Scale of a workload of the catalogue.")
@click.option("-e", "--engine", "engines", multiple=True, help="Engine to consider; default those of the scenario, else all.")
@click.option("--deadline", help="When the job must be done: 2h, 90min.")
@click.option("--budget", type=click.FloatRange(0, min_open=True), help="Dollars that may be spent.")
@click.option("--p99", help="Latency that 99 of 100 requests must keep: 50ms.")
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=0.9, show_default=True, help="Probability of meeting it."
)
@click.option("--type", "types", multiple=True, help="Instance type to consider; default all of the catalogue that fit.")
@click.option("--count", "counts", help="Numbers of nodes: 1-16 or 1,2,4; default 1 to 64 in steps.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs at hand: no plan takes more.")
@click.option("--gpu-speed", "speeds", multiple=True, help="KIND=FACTOR: speed of a kind of GPU beside the scenario's.")
@click.option("--catalogue", type=click.Path(path_type=Path), help="File of instance types beside those shipped.")
@click.option("--given", is_flag=True, help="Consider the scenario's own cluster only: which engine and options?")
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.02, show_default=True, help="Cost above the best at which to stop."
)
@click.option("--calibration", type=click.Path(path_type=Path), help="Costs made by `windtunnel calibrate`, for real kernels.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the plan as a scenario, and smaller ones beside it.")
@click.option("--jobs", type=click.IntRange(1), help="Simulations side by side; default one a CPU.")
@json_option
def plan(**given: Any) -> int:
    """Find the engine and cluster that meet an objective at least cost.

    WORK is a scenario file, a table of `windtunnel validate`, or a workload of the catalogue.
    """
    from windtunnel.commands.plan_tables import print_plan
    from windtunnel.running.environment import usable_cpus

    given["jobs"] = given["jobs"] or usable_cpus()
    question = question_of(given)
    result = _answered(question, given)
    if given["output"] is not None and result["recommended"] is not None:
        from windtunnel.sim.capacity.replay import write_plan

        for path, what in write_plan(question, result, given["output"]):
            say(f"{path}: {what}")
    if given["as_json"]:
        print_json(result)
    else:
        print_plan(result)
    if result["recommended"] is None:
        from windtunnel.commands.plan_tables import closest_sentence

        say(f"windtunnel: {closest_sentence(result)}")
        return int(ExitCode.INCOMPLETE)
    return int(ExitCode.OK)


def answered(*args: str) -> dict[str, Any]:
    """The answer to a question, asked as on the command line."""
    given = plan.make_context("plan", list(args)).params
    given["jobs"] = given["jobs"] or 1
    return _answered(question_of(given), given)


def _answered(question: Question, given: dict[str, Any]) -> dict[str, Any]:
    if not question.variants[0].serving:
        return _plan_job(question, given)
    from windtunnel.sim.capacity.serving import plan_serving

    with _progress() as show:
        return plan_serving(question, given["jobs"], show)


def _plan_job(question: Question, given: dict[str, Any]) -> dict[str, Any]:
    from windtunnel.sim.capacity.answer import answer
    from windtunnel.sim.capacity.bench import bench
    from windtunnel.sim.capacity.planner import Planner

    with _progress() as show, bench(given["jobs"], show) as place:
        show("bounds", 0)
        planner = Planner(question, place)
        return answer(planner.run(), planner)


def question_of(given: dict[str, Any]) -> Question:
    """The question as the options ask it. Raises InputError."""
    from windtunnel.errors import InputError
    from windtunnel.scenario.reading import from_document
    from windtunnel.sim.capacity import question as ask

    document, file = _document(given)
    variants = ask.variants(document, file, given["engines"])
    if not variants:
        raise InputError(f"{file}: no engine is left to consider")
    scenario = from_document(variants[0].document, file)
    objective = _objective(scenario.objective, given)
    speeds = dict(_speed(text) for text in given["speeds"])
    notes: list[str] = []
    kinds: list[Any] = []
    if not given["given"]:
        types = ask.types_of(document, file, given["catalogue"])
        if given["catalogue"] is not None:
            variants = tuple(_with_catalogue(v, given["catalogue"], file) for v in variants)
        kinds, notes = ask.eligible(scenario, types, speeds, given["types"])
    grid = ask.grid(variants, kinds, _counts(given["counts"]), own=scenario if given["given"] else None, most_gpus=given["gpus"])
    return ask.Question(
        variants=variants, candidates=grid, objective=objective, confidence=given["confidence"], tolerance=given["tolerance"],
        gpu_speed=speeds, file=file, seed=scenario.seed, notes=tuple(notes),
        calibration=None if given["calibration"] is None else str(given["calibration"]),
    )  # fmt: skip


def _document(given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The parsed scenario and its file; of a workload of the catalogue the scenario that runs it."""
    from importlib import resources

    from windtunnel.errors import InputError, nearest
    from windtunnel.registry import WORKLOADS
    from windtunnel.scenario.reading import read_document
    from windtunnel.sim.judging import validate

    work = given["work"]
    if work in WORKLOADS:
        node = {"cpus": 1, "memory": "64GiB"}
        scale = {} if given["scale"] is None else {"scale": given["scale"]}
        return {"schema": 1, "name": work, "cluster": {"nodes": [node]}, "workload": work, **scale, "engines": []}, f"{work}.toml"
    if given["scale"] is not None:
        raise InputError("--scale belongs to a workload of the catalogue; a scenario file says its own size")
    if work in validate.names():
        path = Path(str(resources.files("windtunnel.sim").joinpath("published", f"{work}.toml")))
    else:
        path = Path(work)
        if not path.suffix and not path.exists():
            raise InputError(
                f"{work!r} is no scenario file, published table or workload{nearest(work, [*WORKLOADS, *validate.names()])}"
            )
    document = read_document(path)
    if "published" not in document and not document.get("engines"):
        document["engines"] = []
    return document, str(path)


def _with_catalogue(variant: Any, catalogue: Path, file: str) -> Any:
    """A user's catalogue in place of the scenario's own, as a path from the scenario."""
    import os

    relative = os.path.relpath(catalogue, Path(file).parent)
    cluster = {**variant.document["cluster"], "catalogue": relative}
    return replace(variant, document={**variant.document, "cluster": cluster})


def _objective(own: Any, given: dict[str, Any]) -> Any:
    from windtunnel.spec.units import parse_seconds
    from windtunnel.spec.workload import Objective

    base = own or Objective()
    changes: dict[str, Any] = {}
    for key, name in (("deadline", "deadline_s"), ("p99", "p99_s")):
        if given[key] is not None:
            changes[name] = _positive(key, parse_seconds(given[key]))
    if given["budget"] is not None:
        changes["budget_usd"] = given["budget"]
    return replace(base, **changes)


def _positive(name: str, value: float) -> float:
    from windtunnel.errors import InputError

    if not value > 0:
        raise InputError(f"--{name} must be above 0")
    return value


def _speed(text: str) -> tuple[str, float]:
    from windtunnel.errors import InputError

    kind, equals, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        value = 0.0
    if not equals or not 0 < value < float("inf"):
        raise InputError(f"--gpu-speed {text!r} must be written KIND=FACTOR with a factor above 0, for example T4=0.4")
    return kind, value


def _counts(text: str | None) -> tuple[int, ...]:
    """``1-16`` or ``1,2,4``; also both."""
    from windtunnel.errors import InputError
    from windtunnel.sim.capacity.question import COUNTS
    from windtunnel.spec.strict import shorten

    if text is None:
        return COUNTS
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        bounds = [int(n) if re.fullmatch(r"[0-9]{1,9}", n.strip()) else 0 for n in (low, high if dash else low)]
        if not 1 <= bounds[0] <= bounds[1] <= MOST_NODES:
            raise InputError(f"--count {shorten(text)} must be numbers of nodes from 1 to {MOST_NODES}, such as 1-16 or 1,2,4")
        found.update(range(bounds[0], bounds[1] + 1))
    if len(found) > MOST_COUNTS:
        raise InputError(
            f"--count {shorten(text)} names {len(found)} numbers of nodes; at most {MOST_COUNTS} are compared, such as 64,128,256"
        )
    return tuple(sorted(found))


def _progress() -> Any:
    """How far the search is, on standard error: a line on a terminal, elsewhere one every ten seconds."""
    import sys
    import time
    from contextlib import contextmanager

    @contextmanager
    def show() -> Any:
        if not sys.stderr.isatty():
            last = time.monotonic()

            def line(text: str, count: int) -> None:
                nonlocal last
                if time.monotonic() - last >= 10:
                    last = time.monotonic()
                    say(f"{text}: {count} done")

            yield line
            return
        from rich.console import Console

        console = Console(stderr=True)
        with console.status("bounds") as status:
            yield lambda text, count: status.update(f"{text}: {count} done")

    return show()
