"""Programs as a user writes them, run and watched: what an engine costs to set up, and what its errors look like.

A probe is data in a claim's file: programs by engine, files beside them, and points (environment variables) at which each runs. The
programs use their engine directly, since it is the engine's own start and messages that are asked about. What is counted of each
run: seconds to the first line of output and to the end, processes and memory of its tree, lines that a user reads, and which of
the texts that should survive are in them; of the packages that it needs, their number and size.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.records.record import RunRecord
from windtunnel.running.environment import capture
from windtunnel.running.measure import MARKER, kill_tree, marked, memory_bytes, tree
from windtunnel.spec.canonical import digest, to_plain
from windtunnel.spec.cluster import ClusterSpec

if TYPE_CHECKING:
    from windtunnel.records.store import Store

TIMEOUT_S = 120.0
_COUNT = re.compile(r"^count: (\w+) ([-+.e\d]+)$", re.MULTILINE)  # numbers that a program tells of itself
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(slots=True)
class Seen:
    """What was seen of a program's run."""

    text: str = ""
    code: int | None = None  # None: it was ended at the time limit
    first_line_s: float | None = None
    seconds: float = 0.0
    processes: int = 1
    memory_bytes: int = 0
    problems: list[str] = field(default_factory=list)


#: what a record says of a program: one step on one CPU
_PROGRAM = {
    "kind": "etl", "dataset": {"partitions": 1},
    "pipeline": {"operators": [{"name": "program", "inputs": [], "resources": {"cpus": 1.0, "gpus": 0.0}}]},
}  # fmt: skip


def run_probe(probe: Mapping[str, Any], name: str, store: Store, show: Callable[[str], None] = lambda _: None) -> None:
    """Every program at every point, ``repetitions`` times; finished records stay. Engines that are not here are left out."""
    points = probe.get("points") or [{}]
    for repetition in range(int(probe.get("repetitions", 1))):
        for label, program in probe["programs"].items():
            if any(importlib.util.find_spec(module) is None for module in program.get("needs", ())):
                continue
            for point in points:
                record = _planned(name, label, program, point, repetition)
                if record.run_id not in store:
                    show(f"{label} {' '.join(map(str, point.values()))}")
                    ran, text = _ran(record, probe, program, point)
                    output = store.root / "outputs" / f"{record.run_id}.txt"  # for people: what was counted
                    output.parent.mkdir(parents=True, exist_ok=True)
                    output.write_text(text, encoding="utf-8")
                    store.append(ran)


def _planned(name: str, label: str, program: Mapping[str, Any], point: Mapping[str, Any], repetition: int) -> RunRecord:
    cell = digest([name, label, dict(program), dict(point)])
    return RunRecord(
        run_id=f"{cell}-wall-r{repetition}", cell=cell, experiment=name, workload=name, workload_digest=digest(dict(program)),
        workload_spec=_PROGRAM, scale=1.0, engine=label, engine_version=_version(program), label=label, options={}, cluster="here",
        cluster_spec=to_plain(ClusterSpec.here()), clock="wall", seed=0, repetition=repetition, warmup=False,  # type: ignore[arg-type]
        status="failed", reason="did not run", makespan_s=None, open_s=None, prepare_s=None, rows_out=None, peak_memory_bytes=None,
        verified=False, environment=capture(), counters={}, sweep=dict(point),
    )  # fmt: skip


def _version(program: Mapping[str, Any]) -> str:
    for module in program.get("needs", ()):
        for name in importlib.metadata.packages_distributions().get(module, ()):
            return importlib.metadata.version(name)
    return ""


def _ran(
    record: RunRecord, probe: Mapping[str, Any], program: Mapping[str, Any], point: Mapping[str, Any]
) -> tuple[RunRecord, str]:
    """The record of a run and what it printed. A program that should end well and does not has failed; others count by what they say."""
    from dataclasses import replace

    seen = watch(
        program["code"], probe.get("files", {}), {k: str(v) for k, v in point.items()}, float(probe.get("timeout_s", TIMEOUT_S))
    )
    expected = next((e for e in probe.get("expect", ()) if all(point.get(k) == v for k, v in e["at"].items())), None)
    counters = {
        "ended": float(seen.code is not None), "seconds": seen.seconds, "processes": float(seen.processes),
        "memory_bytes": float(seen.memory_bytes), "code_lines": float(len(_lines(program["code"]))),
    }  # fmt: skip
    if seen.first_line_s is not None:
        counters["first_line_s"] = seen.first_line_s
    counters |= {name: float(value) for name, value in _COUNT.findall(seen.text)}
    if expected is not None:
        counters |= clarity(seen.text, expected["find"])
    if "needs" in program:
        counters |= installed(tuple(program["needs"]), java=bool(program.get("java")))
    fine = expected is not None or seen.code == 0
    last = (_lines(seen.text) or ["no output"])[-1][:300]
    ran = replace(
        record, counters=counters, makespan_s=seen.seconds if fine else None, peak_memory_bytes=seen.memory_bytes,
        status="ok" if fine else "failed", reason=None if fine else f"the program ended with code {seen.code}: {last}",
    )  # fmt: skip
    return ran, seen.text


# -- watching -----------------------------------------------------------------------------------------------------------


def watch(code: str, files: Mapping[str, str], environment: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> Seen:
    """Run a program in a folder of its own that is removed after; all its processes are ended with it."""
    with tempfile.TemporaryDirectory(
        prefix="wt-", dir="/tmp" if os.path.isdir("/tmp") else None, ignore_cleanup_errors=True
    ) as folder:
        for name, text in {**files, "program.py": code}.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no plain file name")
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return _watched(Path(folder), environment, timeout_s)


def _watched(folder: Path, environment: Mapping[str, str], timeout_s: float) -> Seen:
    seen, start, marker = Seen(), time.monotonic(), f"probe.{folder.name}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # as in an activated environment
    own = {"PYTHONPATH": str(folder), "TMPDIR": str(folder), "PATH": path, MARKER: marker}
    child = subprocess.Popen(
        [sys.executable, "-u", "program.py"], cwd=folder, text=True, errors="replace", start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **own, **environment},
    )  # fmt: skip
    reader = threading.Thread(target=_read, args=(child, seen, start), daemon=True)
    reader.start()
    try:
        while child.poll() is None and time.monotonic() - start < timeout_s:
            _look(child.pid, marker, seen)
            time.sleep(0.2)
        seen.code, seen.seconds = child.poll(), time.monotonic() - start
    finally:
        kill_tree(None if seen.code is not None else child.pid, marker, grace_s=1.0)
        child.wait()
    reader.join(timeout=5)
    return seen


def _read(child: subprocess.Popen[str], seen: Seen, start: float) -> None:
    """``result:`` begins the line that a program prints when it has its first result."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("result:") and seen.first_line_s is None:
            seen.first_line_s = time.monotonic() - start
        seen.text += line


def _look(pid: int, marker: str, seen: Seen) -> None:
    pids = tree(pid, marked(marker))
    seen.processes = max(seen.processes, len(pids))
    seen.memory_bytes = max(seen.memory_bytes, memory_bytes(pids))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def clarity(text: str, find: Mapping[str, str]) -> dict[str, float]:
    """Lines that a user reads; 1 for each text (a regular expression) that survives, else 0; where the root cause stands.

    ``cause_after``: lines below the last line that tells the cause, which a user reads first, from the bottom up; all where none does.
    """
    lines = _lines(text)
    counters = {f"kept_{name}": float(bool(re.search(pattern, text))) for name, pattern in find.items()}
    told = [number for number, line in enumerate(lines) if re.search(find["cause"], line)]
    return {"lines": float(len(lines)), **counters, "cause_after": float(len(lines) - 1 - told[-1] if told else len(lines))}


# -- packages -----------------------------------------------------------------------------------------------------------


def installed(modules: tuple[str, ...], *, java: bool = False) -> dict[str, float]:
    """Distributions that these modules come from, with all they require: how many, and their bytes on disk; Java's too."""
    names = {d for m in modules for d in importlib.metadata.packages_distributions().get(m, ())}
    found: dict[str, int] = {}
    while names:
        name = names.pop()
        if name.lower() in found:
            continue
        with suppress(importlib.metadata.PackageNotFoundError):
            distribution = importlib.metadata.distribution(name)
            found[name.lower()] = sum(_size(Path(str(distribution.locate_file(f)))) for f in distribution.files or ())
            names.update(_required(distribution))
    size = sum(found.values()) + (_java_bytes() if java else 0)
    return {"packages": float(len(found) + java), "installed_bytes": float(size)}


def _required(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    for text in distribution.requires or ():
        requirement, _, marker = text.partition(";")
        if "extra" not in marker and (match := re.match(r"[A-Za-z0-9._-]+", requirement.strip())):
            yield match[0].replace("_", "-")


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _java_bytes() -> int:
    from windtunnel.running.java import find_java

    found = find_java()
    return sum(_size(p) for p in found.home.resolve().rglob("*") if p.is_file()) if found else 0
