"""Runs tests against a mutant in a forked process, in which the mutated module is what an import gives. No file is changed.

A test is run for a mutant only if it calls the mutated function when nothing is mutated (`calls`); quick ones go first, and the first
one that fails ends the trial. A trial that takes much longer than its tests did, or much more memory, ends the mutant as well.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.abc
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engines", "reports", "sim", "workloads")
MOST_MEMORY = 12 * 2**30  # address space


#: without rewritten assertions, whose import hook would go before ours
_QUIETLY = ("-q", "--no-header", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist")


@dataclass(frozen=True, slots=True)
class Calls:
    """What one test did with nothing mutated: its seconds, and the functions that it called as (file, qualified name)."""

    seconds: float
    functions: frozenset[tuple[str, str]]


def module_of(path: str) -> str:
    """The dotted name that a file of the house is imported by."""
    parts = Path(path).with_suffix("").parts
    return ".".join(("windtunnel", *parts) if parts[0] in ROOMS else parts)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module before anyone else does, and makes it from a tree."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._name, self._file = module_of(path), ROOT / path
        self._code: CodeType = compile(tree, str(self._file), "exec")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(self._file)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


class _Watch:
    """A pytest plugin that writes down what each test calls of some files, and how long it takes."""

    def __init__(self, files: Sequence[str]) -> None:
        self._paths = {str(ROOT / f): f for f in files}
        self._called: set[CodeType] = set()
        self.calls: dict[str, tuple[float, list[tuple[str, str]]]] = {}
        self.failed: list[str] = []

    def _trace(self, frame: FrameType, event: str, arg: object) -> None:
        self._called.add(frame.f_code)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._called.clear()
        begin = time.perf_counter()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            of_files = [(self._paths[c.co_filename], c.co_qualname) for c in self._called if c.co_filename in self._paths]
            functions = {(file, name.replace(".<locals>", "").split(".<")[0]) for file, name in of_files}
            self.calls[item.nodeid] = time.perf_counter() - begin, sorted(functions)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


class _Chosen:
    """A pytest plugin that runs some tests, in their order, and says which one fails first."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {name: place for place, name in enumerate(order)}
        self.failed: str | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def calls(tests: Sequence[str], files: Sequence[str]) -> dict[str, Calls]:
    """Runs all ``tests`` (files) unmutated. Raises RuntimeError when one fails."""

    def work() -> object:
        watch = _Watch(files)
        _pytest(tests, watch)
        return {"calls": watch.calls, "failed": watch.failed}

    found = _forked(work, 3600.0)
    if not isinstance(found, dict) or found["failed"]:
        raise RuntimeError(f"without a mutant these fail: {found and found['failed']}")
    made = found["calls"].items()
    return {name: Calls(seconds, frozenset((f, q) for f, q in functions)) for name, (seconds, functions) in made}


def killer(path: str, tree: ast.Module, tests: Sequence[str], seconds: float) -> str | None:
    """The first of ``tests`` (ids, in order) that fails with the mutant, "time" or "memory" where it runs away; None: it lives.

    ``seconds``: what the tests take unmutated.
    """

    def work() -> object:
        sys.meta_path.insert(0, _Mutated(path, tree))
        chosen = _Chosen(tests)
        _pytest(sorted({t.partition("::")[0] for t in tests}), chosen, "-x")
        return {"failed": chosen.failed}

    found = _forked(work, 30.0 + 5.0 * seconds)
    if found == "time":
        return "time"
    return found["failed"] if isinstance(found, dict) else "crash"


def _pytest(files: Sequence[str], plugin: object, *options: str) -> None:
    from hypothesis import Phase, settings

    settings.register_profile("mutants", database=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")
    base = tempfile.mkdtemp(prefix="mutant-")
    try:
        pytest.main([*_QUIETLY, "-m", "not slow", f"--basetemp={base}/t", *options, *files], plugins=[plugin])
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _forked(work: Callable[[], object], limit_s: float) -> Any:
    """What ``work`` returns in a child process, as JSON; "time" when it does not end, None when it dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _in_child(work, writing)
    os.close(writing)
    killed = threading.Event()

    def stop() -> None:
        killed.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    timer = threading.Timer(limit_s, stop)
    timer.start()
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    timer.cancel()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # whatever it left
    if killed.is_set():
        return "time"
    return json.loads(text) if text else None


def _in_child(work: Callable[[], object], writing: int) -> None:
    """Does ``work``, tells the result, and ends the process."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    if not os.environ.get("MUTANTS_LOUD"):
        os.dup2(silent, 2)
    try:
        os.write(writing, json.dumps(work()).encode())
    except BaseException:
        pass
    os._exit(0)
