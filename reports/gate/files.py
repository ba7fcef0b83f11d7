"""Where series come from: results folders, files of pytest-benchmark, baselines. All of them are checked here, since they may be anybody's.

The types of a benchmark file and of a baseline are declared; what is wrong is told with the file and the name of the benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta, Struct

from windtunnel.errors import InputError, closest
from windtunnel.records.checking import MOST_BYTES, json_object, read_file
from windtunnel.records.schema import LEAST_S, Amount, Name, Number, Scenario, Text
from windtunnel.records.store import Store, no_results
from windtunnel.reports.gate.series import Series, of_records, unreadable
from windtunnel.spec.canonical import digest
from windtunnel.spec.strict import one_line, shorten

Duration = Annotated[float, Meta(gt=0, le=1e18)]
NO_ROUNDS = (
    "the file keeps its statistics without its rounds; pytest --benchmark-json keeps them, and so does --benchmark-save-data"
)


def read(path: Path) -> tuple[Series, ...]:
    """A results folder, or a file of pytest-benchmark or of `to_json`. A record that breaks a rule becomes a series that says so.

    Raises InputError with one sentence.
    """
    if path.is_dir():
        found = Store(path).look(tables=False)
        if not any(not r.warmup for r in found.records) and not found.left_aside:
            raise InputError(no_results(path))
        aside = (unreadable(f"{a.path.parent.name}/{a.path.name}", a.why) for a in found.left_aside)
        return (*of_records(found.records), *aside)
    try:
        document = json_object(read_file(path, 8 * MOST_BYTES))
    except FileNotFoundError as error:
        raise InputError(_absent(path)) from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if "benchmarks" in document:
        return of_benchmarks(document, path)
    if document.get("windtunnel") == "baseline":
        return of_json(document, path)
    raise InputError(f"{path} holds neither benchmarks of pytest-benchmark nor a baseline of windtunnel")


def _absent(path: Path) -> str:
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no {str(path)!r}{closest(path.name, names)}"


def _refuse(path: Path, what: str, error: msgspec.ValidationError, name: str = "") -> NoReturn:
    rule = one_line(str(error).replace("`", ""))
    raise InputError(
        f"{path} is not {what}: {f'benchmark {shorten(name)}: ' if name else ''}{rule[:1].lower()}{rule[1:]}"
    ) from error


# -- pytest-benchmark -------------------------------------------------------------------------------------------------


class _Cpu(Struct):
    brand_raw: Text | None = None
    brand: Text | None = None  # py-cpuinfo before 6
    count: int | None = None


class _Machine(Struct):
    machine: Text | None = None
    system: Text | None = None
    python_implementation: Text | None = None
    python_version: Text | None = None
    cpu: _Cpu | None = None


class _Stats(Struct):
    median: Duration
    data: list[Duration] | None = None


class _Benchmark(Struct):
    name: Name
    stats: _Stats
    fullname: Name | None = None


def of_benchmarks(document: Mapping[str, Any], path: Path) -> tuple[Series, ...]:
    """Series of a file that ``pytest --benchmark-json`` wrote, one a benchmark; its rounds are the runs.

    Raises InputError for what pytest-benchmark does not write, and for a name that occurs twice.
    """
    what = "what pytest-benchmark writes"
    try:
        host = _host(msgspec.convert(document.get("machine_info") or {}, _Machine))
        plain = msgspec.convert(document["benchmarks"], list[dict[str, Any]])
    except msgspec.ValidationError as error:
        _refuse(path, what, error)
    found: dict[str, Series] = {}
    for place, item in enumerate(plain):
        try:
            benchmark = msgspec.convert(item, _Benchmark)
        except msgspec.ValidationError as error:
            _refuse(path, what, error, str(item.get("fullname") or item.get("name") or f"number {place + 1}"))
        subject, rounds = benchmark.fullname or benchmark.name, tuple(benchmark.stats.data or ())
        if subject in found:
            raise InputError(
                f"{path} holds benchmark {shorten(subject)} twice: nobody can say which one counts; give them names of their own"
            )
        found[subject] = Series(
            subject=subject, clock="wall", values={"duration_s": rounds or (benchmark.stats.median,)}, facts=host,
            units={"duration_s": "s"}, few="" if rounds else NO_ROUNDS,
        )  # fmt: skip
    return tuple(found.values())


def _host(machine: _Machine) -> dict[str, str | None]:
    """All that a file can tell of its host; None where it does not."""
    cpu = machine.cpu or _Cpu()
    return {
        "host.machine": machine.machine, "host.system": machine.system, "host.cpu_model": cpu.brand_raw or cpu.brand,
        "host.cpus": None if cpu.count is None else str(cpu.count), "host.implementation": machine.python_implementation,
        "host.python": machine.python_version,
    }  # fmt: skip


# -- baselines --------------------------------------------------------------------------------------------------------


class _Baseline(Struct):
    clock: Name
    facts: dict[Name, Text | None]
    values: dict[Name, Annotated[list[Amount], Meta(min_length=1)]]
    bad: list[tuple[Text, Text]] = []
    key: Text = ""
    scenario: Text | None = None
    seeds: list[Number] = []


def to_json(series: Iterable[Series]) -> dict[str, Any]:
    """A document for people and version control: the counted and simulated numbers of each series, sorted, and their scenario once."""
    ordered = sorted(series, key=lambda s: s.subject)
    return {
        "windtunnel": "baseline",
        "schema": 1,
        "scenarios": {digest(s.scenario): s.scenario for s in ordered if s.scenario is not None},
        "series": {
            s.subject: {
                "clock": s.clock,
                "facts": {name: _short(value) for name, value in sorted(s.facts.items())},
                "bad": [list(pair) for pair in s.bad],
                "values": {name: list(values) for name, values in sorted(s.values.items())},
                **({} if s.scenario is None else {"key": s.key, "scenario": digest(s.scenario)}),
                **({"seeds": list(s.seeds)} if s.seeds else {}),
            }
            for s in ordered
        },
    }


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= 64 else digest(value)


def of_json(document: Mapping[str, Any], path: Path) -> tuple[Series, ...]:
    """The series of a `to_json` document."""
    if document.get("schema") != 1:
        raise InputError(f"{path} is a baseline of schema {shorten(document.get('schema'))}; this version reads schema 1")
    try:
        scenarios: dict[str, Any] = document.get("scenarios", {})
        msgspec.convert(scenarios, dict[str, Scenario])
        plain = msgspec.convert(document.get("series"), dict[Name, _Baseline])
    except msgspec.ValidationError as error:
        _refuse(path, "a baseline that windtunnel wrote", error)
    if wrong := [name for name, s in plain.items() if min(s.values.get("makespan_s", [LEAST_S])) < LEAST_S]:
        raise InputError(f"{path} is not a baseline that windtunnel wrote: {shorten(wrong[0])} has a makespan_s of 0")
    if lost := sorted({s.scenario for s in plain.values() if s.scenario is not None} - scenarios.keys()):
        raise InputError(f"{path} is not a baseline that windtunnel wrote: it lacks the scenario {shorten(lost[0])}")
    return tuple(
        Series(
            subject=name, clock=s.clock, facts=s.facts, values={k: tuple(v) for k, v in s.values.items()},
            bad=tuple(s.bad), key=s.key, scenario=None if s.scenario is None else scenarios[s.scenario], seeds=tuple(s.seeds),
        )
        for name, s in plain.items()
    )  # fmt: skip


def short(series: Series) -> Series:
    """With long facts as digests, so that a series read from a baseline equals the one it was made of."""
    document = json.loads(json.dumps(to_json([series])))
    (back,) = of_json(document, Path("baseline.json"))
    return back
