"""Records that a run did not write: damaged, or made by somebody who means no good."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile import templates
from tests.hostile.acts import inside
from tests.hostile.frame import Scene, area

NAN, INFINITY = math.nan, math.inf
SECRET = "31337"  # part of numbers that a bad record holds: nobody may be shown it as a result
Change = Callable[[dict[str, Any]], object]


def run_files(folder: Path) -> list[Path]:
    """The JSON files of a results folder."""
    return sorted((folder / "runs").glob("*.json"))


def pair(scene: Scene, template: Callable[[Path], object] = templates.simulated) -> Path:
    """Folders ``base`` and ``new`` of good records; the second one's path."""
    scene.copy(template, "base")
    return scene.copy(template, "new")


def bytes_of(data: bytes) -> Callable[[Scene], None]:
    """A folder ``new`` whose first record is these bytes."""
    return lambda scene: (run_files(pair(scene))[0].write_bytes(data), None)[1]


def changed(
    change: Change, *, every: bool = True, template: Callable[[Path], object] = templates.simulated
) -> Callable[[Scene], None]:
    """A folder ``new`` whose records were changed; JSON as Python writes it, with NaN."""

    def scene(scene: Scene) -> None:
        files = run_files(pair(scene, template))
        for path in files if every else files[:1]:
            document = json.loads(path.read_text(encoding="utf-8"))
            change(document)
            path.write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")

    return scene


def put(path: str, value: Any) -> Change:
    """Set ``a.b.0.c`` of a document."""

    def change(document: dict[str, Any]) -> None:
        *way, last = path.split(".")
        target: Any = document
        for step in way:
            target = target[int(step)] if isinstance(target, list) else target[step]
        target[int(last) if isinstance(target, list) else last] = value

    return change


def all_of(*changes: Change) -> Change:
    """One after another."""
    return lambda document: [change(document) for change in changes]


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


#: what the file is → its bytes
NOT_JSON = {
    "an empty file": b"", "a list": b"[]", "a null": b"null", "a number": b"31337", "a text": b'"ok"', "a space": b" ",
    "half of a record": b'{"cell": "99574fe1', "a hundred thousand brackets": b"[" * 100_000, "objects 5,000 deep": b'{"a":' * 5_000,
    "bytes that are no UTF-8": b"\xff\xfe\x00", "UTF-16": '{"a": 1}'.encode("utf-16"), "an object with nothing in it": b"{}",
    "two objects": b"{}{}", "a gigantic integer": b'{"schema": ' + b"9" * 100_000 + b"}", "NULs": b"\0" * 4096,
    "a lone surrogate, escaped": b'{"cell": "\\ud800"}', "JavaScript": b"alert(1)", "a pickle": b"cposix\nsystem\n(S'true'\ntR.",
}  # fmt: skip

#: what a field says that it may not → (its path, the value, what must be told)
WRONG: dict[str, tuple[str, Any, str]] = {
    "makespan_s is NaN": ("makespan_s", NAN, "makespan_s is NaN"),
    "makespan_s is infinite": ("makespan_s", INFINITY, "makespan_s is Infinity"),
    "makespan_s is minus infinity": ("makespan_s", -INFINITY, "makespan_s is -Infinity"),
    "makespan_s is -5": ("makespan_s", -5, "makespan_s is -5"),
    "makespan_s is 0": ("makespan_s", 0, "makespan_s is 0"),
    "makespan_s is 1e-300": ("makespan_s", 1e-300, "makespan_s is 1e-300"),
    "makespan_s is 1e300": ("makespan_s", 1e300, r"makespan_s is 1e\+300"),
    "makespan_s is a text": ("makespan_s", "0.01", "makespan_s is '0.01'"),
    "makespan_s is true": ("makespan_s", True, "makespan_s is True"),
    "makespan_s is a list": ("makespan_s", [0.3], r"makespan_s is \[0.3\]"),
    "makespan_s is null though the run is ok": ("makespan_s", None, "its makespan_s is null"),
    "tasks is NaN": ("counters.tasks", NAN, "tasks is NaN"),
    "tasks is below 0": ("counters.tasks", -8, "counters.tasks is -8"),
    "tasks is a half": ("counters.tasks", 8.5, "not whole"),
    "tasks is a text": ("counters.tasks", "8", "counters.tasks is '8'"),
    "tasks is true": ("counters.tasks", True, "counters.tasks is True"),
    "tasks is null": ("counters.tasks", None, "counters.tasks is None"),
    "a counter is an object": ("counters.blocks", {}, "counters.blocks is"),
    "a counter is larger than anything": ("counters.bytes_network", 1e30, "counters.bytes_network"),
    "a counter's name has an escape sequence": ("counters.a\x1b[31m", 1, "counters"),
    "counters are a list": ("counters", [], r"counters is \[\]"),
    "rows_out is below 0": ("rows_out", -1, "rows_out is -1"),
    "rows_out is a fraction": ("rows_out", 0.5, "rows_out is 0.5"),
    "peak_memory_bytes is a text": ("peak_memory_bytes", "1GB", "peak_memory_bytes"),
    "scale is 0": ("scale", 0, "scale is 0"),
    "scale is below 0": ("scale", -1, "scale is -1"),
    "scale is NaN": ("scale", NAN, "scale is NaN"),
    "the seed is a text": ("seed", "7", "seed is '7'"),
    "the seed is larger than 64 bits": ("seed", 10**30, "seed is 1000"),
    "the repetition is a fraction": ("repetition", 0.5, "repetition is 0.5"),
    "a warm-up has a repetition of measured runs": ("warmup", True, "repetition and warmup"),
    "warmup is a number": ("warmup", 1, "warmup is 1"),
    "the status is not one of its values": ("status", "great", "status is 'great'"),
    "the status is a list": ("status", ["ok"], r"status is \['ok'\]"),
    "the status is failed beside a makespan": ("status", "failed", "failures have no numbers"),
    "the status is ok and has a reason": ("reason", "disk full", "reason for a failure"),
    "a simulated run was verified": ("verified", True, "simulated, and its output is verified"),
    "a simulated run has the clock of a wall": ("clock", "wall", "different worlds"),
    "the clock is unknown": ("clock", "sundial", "clock is 'sundial'"),
    "a simulated run took time to open": ("open_s", 1.0, "real start"),
    "open_s is below 0": ("open_s", -1.0, "open_s is -1"),
    "the schema is of the future": ("schema", 99, "this version reads schema 1"),
    "the schema is a text": ("schema", "1", "this version reads schema 1"),
    "the run id leads out of the folder": ("run_id", "../../etc/passwd", "run_id"),
    "the run id is another's": ("run_id", "bulk-virtual-s7-r0", "not the name of the file"),
    "the run id is empty": ("run_id", "", "run_id"),
    "the label is a number": ("label", 5, "label is 5"),
    "the label is empty": ("label", "", "label is ''"),
    "the label clears the terminal": ("label", "\x1b[2Jbulk", "label is"),
    "the label turns the direction of text": ("label", "bulk\u202edab", "label is"),
    "the label is a lone surrogate": ("label", "\ud800", "not JSON"),
    "the label has two lines": ("label", "bulk\nok", "label is"),
    "the reason is an object": ("reason", {"a": 1}, "reason is"),
    "the workload's name is null": ("workload", None, "workload is None"),
    "the workload's definition is a list": ("workload_spec", [], "workload_spec is"),
    "the plan has no operators": ("workload_spec.pipeline.operators", [], "operators"),
    "an operator is a text": ("workload_spec.pipeline.operators.0", "scan", "operators.0. is 'scan'"),
    "an operator has no name": ("workload_spec.pipeline.operators.0.name", None, "name is None"),
    "an operator needs a text of CPUs": ("workload_spec.pipeline.operators.0.resources.cpus", "two", "cpus is 'two'"),
    "an operator needs fewer than no CPUs": ("workload_spec.pipeline.operators.0.resources.cpus", -1, "cpus is -1"),
    "an operator's resources are null": ("workload_spec.pipeline.operators.1.resources", None, "resources is None"),
    "an operator's inputs are a number": ("workload_spec.pipeline.operators.1.inputs", 3, "inputs is 3"),
    "the data have no partitions": ("workload_spec.dataset.partitions", 0, "partitions is 0"),
    "the data have a text of rows": ("workload_spec.dataset.rows", "many", "rows is 'many'"),
    "the workload is of an unknown kind": ("workload_spec.kind", "bitcoin", "kind is 'bitcoin'"),
    "the objective is a number": ("workload_spec.objective", 5, "objective is 5"),
    "the workload serves nothing": ("workload_spec.serving", {}, "serving"),
    "the cluster has no nodes": ("cluster_spec.nodes", [], "nodes"),
    "the cluster is a text": ("cluster_spec", "big", "cluster_spec is 'big'"),
    "a node has no CPUs": ("cluster_spec.nodes.0.cpus", 0, "cpus is 0"),
    "a node has a null of CPUs": ("cluster_spec.nodes.0.cpus", None, "cpus is None"),
    "a node's price is below 0": ("cluster_spec.nodes.0.price_per_hour_usd", -3, "price_per_hour_usd is -3"),
    "a node's devices are a list": ("cluster_spec.nodes.0.gpus", [], "gpus is"),
    "there are fewer than no nodes": ("cluster_spec.nodes.0.count", -2, "count is -2"),
    "the environment is a text": ("environment", "here", "environment is 'here'"),
    "the libraries are a list": ("environment.libraries", ["pyarrow"], "libraries is"),
    "a library's version is a number": ("environment.libraries.windtunnel", 0.1, "libraries.windtunnel"),
    "the options are a text": ("options", "none", "options is 'none'"),
    "the options are nested 500 deep": ("options.fuse", deep(500), "nests deeper than 60 levels"),
    "the options are nested 20,000 deep": ("options.fuse", None, "nests deeper than 60 levels"),
    "the sweep is a list": ("sweep", [1], "sweep is"),
    "the sweep has an escape sequence": ("sweep", {"a": "\x1b]0;owned\x07"}, "control characters"),
    "the scenario has no name": ("scenario", {"engines": []}, "scenario"),
    "the scenario's engines are a number": ("scenario", {"name": "job", "engines": 3}, "engines is 3"),
    "a field is not known": ("colour", "red", "unknown field colour"),
    "the percentiles fall": ("counters", {"tasks": 8, "latency_p50_s": 9.0, "latency_p99_s": 1.0}, "percentile"),
    "the interval is upside down": ("counters", {"tasks": 8, "interval_low": 2.0, "interval_high": 1.0}, "interval"),
    "requests went missing": ("counters", {"tasks": 8, "requests_sent": 10, "requests_ok": 3}, "requests_sent"),
}  # fmt: skip


def _wrong(path: str, value: Any) -> Callable[[Scene], None]:
    if path == "options.fuse" and value is None:  # deeper than Python's own JSON writes
        return _replaced(b'"fuse":true', b'"fuse":' + b"[" * 20_000 + b"]" * 20_000)
    return changed(put(path, value))


def _replaced(old: bytes, new: bytes) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        for path in run_files(pair(scene)):
            data = path.read_bytes()
            assert old in data
            path.write_bytes(data.replace(old, new, 1))

    return scene


def _missing(key: str) -> Change:
    return lambda document: document.pop(key)


FIELDS = ("run_id", "cell", "status", "makespan_s", "counters", "workload_spec", "cluster_spec", "environment", "clock", "schema")

#: other tools that read the same folder → (arguments, what is done)
READERS = {
    "compare": ("compare", "base", "new"),
    "report": ("report", "base", "new"),
    "report as JSON": ("report", "base", "new", "--json"),
}


# -- files that are no files, and tables ---------------------------------------------------------------------------------


def _file(make: Callable[[Path], object]) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        path = run_files(pair(scene))[0]
        path.unlink()
        make(path)

    return scene


FILES: dict[str, Callable[[Path], object]] = {
    "a pipe that nobody writes": os.mkfifo, "a folder": Path.mkdir, "a link to itself": lambda p: p.symlink_to(p),
    "a link to nowhere": lambda p: p.symlink_to(p.parent / "gone.json.old"), "a link to /dev/zero": lambda p: p.symlink_to("/dev/zero"),
    "a link to a file of 65 MiB": lambda p: (os.truncate(os.open(p, os.O_CREAT | os.O_WRONLY), 65 * 2**20), None)[1],
}  # fmt: skip


def _table(kind: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        path = min((pair(scene) / kind).glob("*.parquet"))
        pq.write_table(change(pq.read_table(path)), path)

    return scene


def _column(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = [value, *table[name].to_pylist()[1:]]
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values))

    return change


TABLES: dict[str, tuple[Callable[[Scene], None], str]] = {
    "a span begins at NaN": (_table("spans", _column("start_s", NAN)), "no finite number"),
    "a span ends in infinity": (_table("spans", _column("end_s", INFINITY)), "no finite number"),
    "a span ends before it begins": (_table("spans", _column("end_s", -1.0)), "ends before it begins"),
    "a span has no operator": (_table("spans", _column("operator", None)), "nulls"),
    "a span has an unknown kind": (_table("spans", _column("kind", "dance")), "unknown kind 'dance'"),
    "a span's operator clears the terminal": (_table("spans", _column("operator", "\x1b[2J")), "control characters"),
    "a span has fewer than no rows": (_table("spans", _column("rows", -5)), "below 0"),
    "a span's worker is a text": (_table("spans", lambda t: t.set_column(3, "worker", pa.array(["a"] * t.num_rows))), "worker|Parquet"),
    "spans lack a column": (_table("spans", lambda t: t.drop_columns(["bytes"])), "Parquet spans"),
    "spans have one column more": (_table("spans", lambda t: t.append_column("extra", pa.nulls(t.num_rows))), "Parquet spans"),
    "a sample's value is NaN": (_table("samples", _column("value", NAN)), "no finite number"),
    "a sample's time is beyond time": (_table("samples", _column("time_s", 1e300)), "no finite number"),
    "the spans are no Parquet": (lambda s: (min((pair(s) / "spans").iterdir()).write_bytes(b"PAR1 nothing"), None)[1], "Parquet spans"),
    "the spans are cut in half": (lambda s: _cut(min((pair(s) / "spans").iterdir())), "Parquet spans"),
    "the samples are empty": (lambda s: (min((pair(s) / "samples").iterdir()).write_bytes(b""), None)[1], "Parquet samples"),
}  # fmt: skip


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _removed(kind: str) -> Callable[[Scene], None]:
    return lambda scene: min((pair(scene) / kind).iterdir()).unlink()


def _half_done(scene: Scene) -> None:
    """An experiment one of whose records says what no run writes, and another is not there yet."""
    (scene.folder / "job.toml").write_text(templates.SCENARIO)
    assert inside("simulate", "job.toml", "--results", "new", "--jobs", "1")(scene).code == 0
    first, second, *_ = run_files(scene.folder / "new")
    first.write_bytes(first.read_bytes().replace(b'"makespan_s":0', b'"makespan_s":-5', 1))
    second.unlink()


case = area("records")
COMPARE, REPORT = inside(*READERS["compare"]), inside(*READERS["report"])
SITUATIONS = [
    *(
        case(f"a record is {what}", name, bytes_of(data), inside(*READERS[name]), 5, r"runs/\S+\.json", never=SECRET)
        for (what, data), name in zip(NOT_JSON.items(), ["compare", "report"] * 20)
    ),
    *(
        case(what, name, _wrong(path, value), inside(*READERS[name]), 5, told)
        for (what, (path, value, told)), name in zip(WRONG.items(), ["compare", "compare", "report", "report as JSON"] * 40)
    ),
    *(case(f"a record lacks {key}", "compare", changed(_missing(key)), COMPARE, 5, f"missing required field {key}") for key in FIELDS),
    *(case(f"a record is {what}", "compare", _file(make), COMPARE, 5, r"runs/\S+\.json") for what, make in FILES.items()),
    *(case(what, "report", scene, REPORT, 5, told) for what, (scene, told) in TABLES.items()),
    *(case(f"a run has lost its {kind}", "compare", _removed(kind), COMPARE, 5, "is missing") for kind in ("spans", "samples")),
    case("one of four records is bad", "compare", changed(put("makespan_s", NAN), every=False), COMPARE, 5, "makespan_s is NaN"),
    case("a key occurs twice", "compare", _replaced(b'"makespan_s":', b'"makespan_s":0.31337,"makespan_s":'), COMPARE, 5,
         "'makespan_s' occurs twice", never=SECRET),
    case("the bad numbers are in BASE", "compare", changed(put("makespan_s", NAN)), inside("compare", "new", "base"), 5,
         "left aside in BASE"),
    case("a bad record in a folder that is gone on with", "simulate --resume", _half_done,
         inside("simulate", "job.toml", "--results", "new", "--resume"), 5, "makespan_s is -5"),
]  # fmt: skip
