"""Gates on files of pytest-benchmark, on baselines, and on results that differ in what must be equal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import templates
from tests.hostile.acts import inside
from tests.hostile.frame import Scene, area
from tests.hostile.situations.records import Change, all_of, changed, pair, put, run_files

MACHINE = {
    "machine": "x86_64", "system": "Linux", "python_implementation": "CPython", "python_version": "3.11.7",
    "cpu": {"brand_raw": "Intel(R) Core(TM) i7", "count": 8, "arch": "X86_64"},
}  # fmt: skip


def benchmark(seconds: float = 0.1, name: str = "test_a.py::test_speed", **stats: Any) -> dict[str, Any]:
    """One benchmark of five rounds."""
    data = [seconds * (1 + 0.001 * i) for i in range(5)]
    return {
        "name": name.rpartition("::")[2],
        "fullname": name,
        "stats": {"median": seconds, "min": seconds, "data": data, **stats},
    }


def document(*benchmarks: Any, machine: Any = MACHINE) -> dict[str, Any]:
    """A file of pytest-benchmark."""
    return {"machine_info": machine, "benchmarks": list(benchmarks), "version": "5.1.0"}


def files(base: Any, new: Any) -> Callable[[Scene], None]:
    """``base.json`` and ``new.json``; bytes as they are, everything else as Python writes it."""

    def scene(scene: Scene) -> None:
        for name, content in (("base", base), ("new", new)):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (scene.folder / f"{name}.json").write_bytes(data)

    return scene


GATE = inside("compare", "base.json", "new.json", "--wall", "gate")
GOOD = document(benchmark())


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in MACHINE.items() if k != key}


def _cpu(**changes: Any) -> dict[str, Any]:
    cpu = {**MACHINE["cpu"], **changes}  # type: ignore[dict-item]
    return {**MACHINE, "cpu": {k: v for k, v in cpu.items() if v is not None}}


#: how the other host differs → (what its file tells, the field that must be named)
HOSTS: dict[str, tuple[Any, str]] = {
    "ARM instead of x86": ({**MACHINE, "machine": "aarch64"}, r"host\.machine \(x86_64 \| aarch64\)"),
    "Windows instead of Linux": ({**MACHINE, "system": "Windows"}, r"host\.system \(Linux \| Windows\)"),
    "PyPy instead of CPython": ({**MACHINE, "python_implementation": "PyPy"}, r"host\.implementation \(CPython \| PyPy\)"),
    "another Python": ({**MACHINE, "python_version": "3.13.0"}, r"host\.python \(3\.11\.7 \| 3\.13\.0\)"),
    "an Atom instead of a Core i7": (_cpu(brand_raw="Intel Atom"), r"host\.cpu_model \(.*i7 \| Intel Atom\)"),
    "an Atom, told by an old key": (_cpu(brand_raw=None, brand="Intel Atom"), r"host\.cpu_model"),
    "two CPUs instead of eight": (_cpu(count=2), r"host\.cpus \(8 \| 2\)"),
    "no CPU told": (_without("cpu"), r"host\.cpu_model \(.* \| not told\)"),
    "no system told": (_without("system"), r"host\.system \(Linux \| not told\)"),
    "nothing told": ({}, "not told"),
    "a null for the machine": (None, "not told"),
}

#: what a benchmark file is → (the file, what must be told)
BROKEN: dict[str, tuple[Any, str]] = {
    "a benchmark without a median": (
        document({"name": "test_a", "stats": {"min": 1.0}}),
        "benchmark 'test_a'.*missing required field median",
    ),
    "a benchmark without statistics": (document({"name": "test_a"}), "benchmark 'test_a'.*missing required field stats"),
    "a benchmark whose statistics are null": (document({"name": "test_a", "stats": None}), "benchmark 'test_a'"),
    "a benchmark that is null": (document(None), "expected object, got null"),
    "a benchmark without a name": (document({"stats": {"median": 1.0}}), "benchmark 'number 1'"),
    "a benchmark whose name is a number": (document({"name": 5, "stats": {"median": 1.0}}), "benchmark '5'"),
    "a benchmark whose name clears the terminal": (document({"name": "a\x1b[2J", "stats": {"median": 1.0}}), "name"),
    "rounds of NaN": (document(benchmark(data=[float("nan")] * 5)), "data|NaN"),
    "rounds below 0": (document(benchmark(data=[-0.1] * 5)), "benchmark 'test_a.py::test_speed'"),
    "rounds of 0": (document(benchmark(data=[0.0] * 5)), "benchmark 'test_a.py::test_speed'"),
    "rounds that are texts": (document(benchmark(data=["0.1"] * 5)), "benchmark 'test_a.py::test_speed'"),
    "rounds that are true": (document(benchmark(data=[True] * 5)), "benchmark 'test_a.py::test_speed'"),
    "a median of infinity": (document(benchmark(median=float("inf"), data=None)), "median is Infinity"),
    "benchmarks that are a number": ({"benchmarks": 3}, "expected array"),
    "a machine that is a list": (document(benchmark(), machine=["x86"]), "machine|object"),
    "a count of CPUs that is a text": (document(benchmark(), machine=_cpu(count="8")), "count"),
    "no JSON": (b"benchmarks", "no JSON object"),
    "JSON 100,000 deep": (b"[" * 100_000, "no JSON object|nests"),
    "a list": ([], "no JSON object"),
    "an object of something else": ({"name": "x"}, "neither benchmarks of pytest-benchmark nor a baseline"),
    "nothing": (b"", "no JSON object"),
    "a name that occurs twice": (document(benchmark(0.1), benchmark(0.2)), "holds benchmark 'test_a.py::test_speed' twice"),
    "a name that occurs twice, the other way round": (
        document(benchmark(0.2), benchmark(0.1)),
        "holds benchmark 'test_a.py::test_speed' twice",
    ),
    "a key that occurs twice": (b'{"benchmarks": [], "benchmarks": [{"name": "x", "stats": {"median": 1}}]}', "occurs twice"),
}


def baseline(**changes: Any) -> dict[str, Any]:
    """A baseline of one series."""
    series = {"clock": "virtual", "facts": {"workload": "a"}, "bad": [], "values": {"makespan_s": [1.0], "tasks": [8]}, **changes}
    return {"windtunnel": "baseline", "schema": 1, "series": {"job · simulated bulk": series}}


BASELINES: dict[str, tuple[Any, str]] = {
    "a schema of the future": ({**baseline(), "schema": 9}, "schema 9; this version reads schema 1"),
    "a schema that is an object": ({**baseline(), "schema": {}}, "this version reads schema 1"),
    "no series": ({"windtunnel": "baseline", "schema": 1}, "no baseline|not a baseline"),
    "a series that is a number": ({"windtunnel": "baseline", "schema": 1, "series": {"a": 1}}, "not a baseline"),
    "a makespan of NaN": (baseline(values={"makespan_s": [float("nan")]}), "NaN|not a baseline|no finite"),
    "a makespan of 0": (baseline(values={"makespan_s": [0]}), "makespan_s of 0"),
    "a makespan below 0": (baseline(values={"makespan_s": [-1]}), "not a baseline"),
    "a makespan without values": (baseline(values={"makespan_s": []}), "not a baseline"),
    "a makespan that is a text": (baseline(values={"makespan_s": ["1.0"]}), "not a baseline"),
    "facts that are a list": (baseline(facts=["workload"]), "not a baseline"),
    "a scenario that is not there": (baseline(scenario="abc"), "lacks the scenario 'abc'"),
    "scenarios that are a number": ({**baseline(), "scenarios": 4}, "not a baseline"),
}


def _slower(document: dict[str, Any]) -> None:
    document["makespan_s"] *= 1.2


def _edited(document: dict[str, Any]) -> None:
    document["scenario"]["operators"][0]["cost"]["per_row"] = "22ms"
    document["workload_digest"] = "0000000000000000"


#: what differs between BASE and NEW → (change of NEW, exit code, what must be told)
DIFFERENT: dict[str, tuple[Change, int, str]] = {
    "an edited scenario that is slower": (all_of(_slower, _edited), 3, r"operators\.work\.cost\.per_row: 2ms → 22ms"),
    "an edited scenario that is as fast": (_edited, 0, r"changed .*operators\.work\.cost\.per_row: 2ms → 22ms"),
    "another definition under the same file": (put("workload_digest", "0000"), 6, "workload .*--allow workload compares"),
    "other options under the same file": (
        put("options.fuse", False),
        6,
        r"options \(fuse: true \| false\); --allow options compares",
    ),
    "other seeds": (lambda d: d.update(seed=d["seed"] + 100), 6, r"seeds \(\[7, 8\] \| \[107, 108\]\); --allow seeds compares"),
    "fewer rows under the same file": (put("rows_out", 3), 6, r"rows \(400 \| 3\); --allow rows compares"),
    "retries where there were none": (put("counters.retries", 5), 3, "retries 0 tasks 5 tasks from 0"),
    "a run that failed": (lambda d: d.update(status="failed", reason="no luck", makespan_s=None), 5, "no luck"),
    "a wrong result": (lambda d: d.update(status="wrong_result", reason="rows differ", makespan_s=None), 4, "rows differ"),
    "an engine that is not there": (lambda d: d.update(label="other"), 5, "missing in (NEW|BASE)"),
}

REAL: dict[str, tuple[Change, int, str]] = {
    "another processor": (
        put("environment.cpu_model", "Atom"),
        6,
        r"host\.cpu_model \(Test CPU \| Atom\); --allow host compares",
    ),
    "another architecture": (put("environment.machine", "aarch64"), 6, r"host\.machine \(x86_64 \| aarch64\)"),
    "a host that does not tell its kernel": (put("environment.kernel", None), 6, r"host\.kernel \(6\.1 \| not told\)"),
    "another version of a library": (
        put("environment.libraries.pyarrow", "21.0"),
        6,
        r"host\.libraries\.pyarrow \(20\.0 \| 21\.0\)",
    ),
    "a library more": (put("environment.libraries.polars", "1.0"), 6, r"host\.libraries\.polars \(absent \| 1\.0\)"),
    "a run that took 20 % longer": (_slower, 3, "worse"),
}


def _sixth_of(scene: Scene) -> None:
    for number in range(6):
        scene.copy(templates.simulated, f"r{number}")
    path = run_files(scene.folder / "r3")[0]
    path.write_text(path.read_text().replace('"makespan_s":0', '"makespan_s":-1', 1))


def _with_pipe(scene: Scene) -> None:
    files(GOOD, GOOD)(scene)
    (scene.folder / "new.json").unlink()
    os.mkfifo(scene.folder / "new.json")


def _blocked(name: str) -> Callable[[Scene], Path]:
    """A file stands where a folder is needed."""

    def scene(scene: Scene) -> Path:
        (scene.folder / name).write_text("")
        return pair(scene)

    return scene


case = area("gates")
COMPARE, BENCHMARKS = inside("compare", "base", "new"), "compare benchmarks"
SITUATIONS = [
    *(
        case(f"another host: {what}", BENCHMARKS, files(GOOD, document(benchmark(), machine=machine)), GATE, 6,
             f"{told}.*--allow host compares in spite of it")
        for what, (machine, told) in HOSTS.items()
    ),
    case("another host, allowed", "compare --allow host", files(GOOD, document(benchmark(), machine=HOSTS["ARM instead of x86"][0])),
         inside("compare", "base.json", "new.json", "--allow", "host"), 0, "same"),
    case("another Python, allowed by its part", "compare --allow host.python",
         files(GOOD, document(benchmark(), machine=HOSTS["another Python"][0])),
         inside("compare", "base.json", "new.json", "--allow", "host.python"), 0, "same"),
    case("neither file tells its host", BENCHMARKS, files(*[document(benchmark(), machine={})] * 2), GATE, 6, "not told"),
    *(case(f"a benchmark file of {what}", BENCHMARKS, files(GOOD, content), GATE, 2, told) for what, (content, told) in BROKEN.items()),
    *(
        case(f"a baseline of {what}", "compare", files(baseline(), content), inside("compare", "base.json", "new.json"), 2, told)
        for what, (content, told) in BASELINES.items()
    ),
    case("files that keep no rounds", BENCHMARKS, files(*[document(benchmark(data=None))] * 2), GATE, 7,
         "--benchmark-json keeps them, and so does --benchmark-save-data"),
    case("a file without benchmarks", BENCHMARKS, files(GOOD, document()), GATE, 5, "missing in NEW"),
    case("two files without benchmarks", BENCHMARKS, files(document(), document()), GATE, 5, "nothing to compare"),
    case("a benchmark that is slower", BENCHMARKS, files(GOOD, document(benchmark(0.2))), GATE, 3, "worse"),
    case("a pipe instead of a file", BENCHMARKS, _with_pipe, GATE, 2, "no regular file"),
    case("a file whose name is misspelt", BENCHMARKS, files(GOOD, GOOD), inside("compare", "base.json", "neww.json"), 2,
         "did you mean 'new.json'"),
    *(case(what, "compare", changed(change), COMPARE, code, told) for what, (change, code, told) in DIFFERENT.items()),
    *(
        case(f"real runs: {what}", "compare --wall gate", changed(change, template=templates.measured),
             inside("compare", "base", "new", "--wall", "gate"), code, told)
        for what, (change, code, told) in REAL.items()
    ),
    *(
        case(f"{option} is {value}", f"compare {option}", pair, inside("compare", "base", "new", f"{option}={value}"), 2, value.lstrip("-"))
        for option, value in (
            ("--limit", "much"), ("--limit", "-1"), ("--tolerance", "1e999"), ("--tolerance", "10 percent"), ("--wall", "maybe"),
        )
    ),
    *(
        case(f"a file stands where {option} needs a folder", f"compare {option}", _blocked("out"),
             inside("compare", "base", "new", option, "out/gate.txt"), 2, "cannot be used")
        for option in ("--junit", "--summary", "--bencher", "--smaller-is-better", "--pytest-benchmark")
    ),
    *(
        case(f"the disk that {option} writes to is full", f"compare {option}", pair,
             inside("compare", "base", "new", option, "/dev/full"), 5, "'/dev/full': No space left on device", needs=("full",))
        for option in ("--junit", "--bencher")
    ),
    case("one of six results has a bad record", "history", _sixth_of, inside("history", *(f"r{n}" for n in range(6))), 5,
         "left aside: r3.*makespan_s is -1"),
    case("a history of one", "history", pair, inside("history", "base"), 2, "too short"),
]  # fmt: skip
